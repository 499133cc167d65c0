//! Requests on connections that are open already: 64 bytes there, 256 back.

use std::sync::Arc;
use std::time::Instant;

use crate::bench::load::client::{self, Kept};
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::scene::NAME;
use crate::bench::workload::{Metric, Outcome, Stage, Workload};
use crate::error::Result;
use crate::hello::Hello;

const ANSWER: usize = 256;

pub(super) const METRICS: &[Metric] = &[
    Metric::cost("cpu", "µs", "CPU a request"),
    Metric::ratio("rate", "1/s", "requests a second"),
    Metric::added("p50", "µs", "half of them within"),
    Metric::ratio("p99", "µs", "99 % within"),
    Metric::ratio("p999", "µs", "99.9 % within"),
    Metric::alone("failed", "", "failed"),
];

/// Many connections at once.
pub const KEPT: Workload = Workload {
    name: "requests",
    title: "requests on 32 kept connections",
    metrics: METRICS,
    run: |stage| run(stage, 32),
    ..super::connections::SMALL
};

/// One request at a time: nothing waits for anything else.
pub const SERIAL: Workload = Workload {
    name: "latency",
    title: "requests on one kept connection, one at a time",
    run: |stage| run(stage, 1),
    ..KEPT
};

fn run(stage: &mut Stage<'_>, width: usize) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service(RAW);
    let hello: Arc<[u8]> = Job::Requests(ANSWER as u64)
        .hello(Hello::small(NAME))
        .into();
    let count = load::block_on(scene.client(), Place::Client, async {
        let task = |_, tally: Arc<client::Tally>| {
            let hello = Arc::clone(&hello);
            async move {
                while tally.goes_on() {
                    // After a failure with a new connection.
                    if let Err(error) = requests(target, &hello, &tally).await {
                        tally.failure(&error);
                    }
                }
            }
        };
        Ok(client::load(width, duration, task).await)
    })?;
    super::exchanges(&count)
}

async fn requests(
    target: std::net::SocketAddr,
    hello: &[u8],
    tally: &client::Tally,
) -> std::io::Result<()> {
    let mut kept = Kept::open(target, hello, ANSWER).await?;
    while tally.goes_on() {
        let began = Instant::now();
        kept.request().await?;
        tally.exchange(began, Ok(()));
    }
    Ok(())
}
