//! A flood of names that are not listed: whole handshakes from real addresses, each to be refused.

use std::sync::Arc;
use std::time::Instant;

use super::connections::WIDTH;
use crate::bench::load::client::{self, refused};
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::scene::UNLISTED;
use crate::bench::workload::{Metric, Outcome, Stage, Workload, by_name};
use crate::error::Result;
use crate::hello::Hello;

/// As many refusals as can be.
pub const REFUSALS: Workload = Workload {
    name: "refusals",
    title: "connections for an unlisted name, client included",
    metrics: &[
        Metric::ratio("cpu", "µs", "CPU a refusal"),
        Metric::ratio("rate", "1/s", "refusals a second"),
        Metric::alone("p99", "µs", "99 % within"),
        Metric::alone("failed", "", "failed"),
    ],
    suits: by_name,
    yardstick: "nginx",
    rounds: 3,
    run,
    ..super::connections::SMALL
};

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service(RAW);
    let hello: Arc<[u8]> = Hello::small(UNLISTED).record().into();
    let count = load::block_on(scene.client(), Place::Client, async {
        let task = |_, tally: Arc<client::Tally>| {
            let hello = Arc::clone(&hello);
            async move {
                while tally.goes_on() {
                    let began = Instant::now();
                    tally.exchange(began, refused(target, &hello).await);
                }
            }
        };
        Ok(client::load(WIDTH, duration, task).await)
    })?;
    super::exchanges(&count)
}
