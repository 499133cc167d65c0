//! New connections without TLS work: TCP handshake, a ClientHello, a small answer, and both ends close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bulk;
use crate::bench::contender::{CONTROL, YARDSTICK};
use crate::bench::load::client::{self, Count, fetch};
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::scene::{NAME, Scene};
use crate::bench::workload::{Metric, Outcome, Stage, Workload, anyone, dual_stack};
use crate::error::Result;
use crate::hello::Hello;
use crate::lab::Family;

/// Connections at once.
pub(super) const WIDTH: usize = 32;
/// The answer's length.
pub(super) const ANSWER: usize = 1_000;

/// The figures of new connections.
pub(super) const METRICS: &[Metric] = &[
    Metric::cost("cpu", "µs", "CPU a connection"),
    Metric::ratio("rate", "1/s", "connections a second"),
    Metric::added("p50", "µs", "half of them within"),
    Metric::ratio("p99", "µs", "99 % within"),
    Metric::alone("failed", "", "failed"),
];

/// With a small hello.
pub const SMALL: Workload = Workload {
    name: "connections",
    title: "new connections, no TLS work, small hello (one segment)",
    metrics: METRICS,
    offloads: bulk::MERGED,
    suits: anyone,
    control: CONTROL,
    yardstick: YARDSTICK,
    rounds: usize::MAX,
    quick: true,
    run: |stage| run(stage, Hello::small(NAME), Family::V4),
};

/// With a browser's hello.
pub const LARGE: Workload = Workload {
    name: "connections-browser",
    title: "new connections, no TLS work, a browser's hello (two segments)",
    rounds: 3,
    quick: false,
    run: |stage| run(stage, Hello::browser(NAME, 1), Family::V4),
    ..SMALL
};

/// From clients of IPv6.
pub const SMALL_V6: Workload = Workload {
    name: "connections-v6",
    title: "new connections of IPv6, no TLS work, small hello (one segment)",
    suits: |contender| anyone(contender) && dual_stack(contender),
    rounds: 3,
    quick: false,
    run: |stage| run(stage, Hello::small(NAME), Family::V6),
    ..SMALL
};

fn run(stage: &mut Stage<'_>, hello: Hello, family: Family) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service_of(family, RAW)?;
    let hellos = Arc::new(vec![Job::Reply(ANSWER as u64).hello(hello)]);
    super::exchanges(&connect(scene, target, &hellos, WIDTH, duration)?)
}

/// Makes connections, with each of some hellos in turn; they must ask for [`ANSWER`] bytes.
pub(super) fn connect(
    scene: &Scene,
    target: SocketAddr,
    hellos: &Arc<Vec<Vec<u8>>>,
    width: usize,
    duration: Duration,
) -> Result<Count> {
    load::block_on(scene.client(), Place::Client, async {
        let task = |first, tally: Arc<client::Tally>| {
            let hellos = Arc::clone(hellos);
            async move {
                for hello in hellos.iter().cycle().skip(first) {
                    if !tally.goes_on() {
                        return;
                    }
                    let began = Instant::now();
                    tally.exchange(began, fetch(target, hello, ANSWER).await);
                }
            }
        };
        Ok(client::load(width, duration, task).await)
    })
}
