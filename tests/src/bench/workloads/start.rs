//! From nothing to the first connection that is forwarded.

use std::time::Instant;

use super::connections::ANSWER;
use crate::bench::contender::Capacity;
use crate::bench::load::client::fetch;
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::measure::Meter;
use crate::bench::scene::NAME;
use crate::bench::workload::{Metric, Outcome, Stage, Workload, by_name};
use crate::error::{Context, Result};
use crate::hello::Hello;

/// With few names and with many.
pub const START: Workload = Workload {
    name: "start",
    title: "start of the program to the first forwarded connection",
    metrics: &[
        Metric::ratio("few", "ms", "10 names"),
        Metric::ratio("many", "ms", "many names (--names)"),
    ],
    suits: |contender| by_name(contender) && contender.name != "sniproxy",
    yardstick: "nginx",
    rounds: 3,
    run,
    ..super::connections::SMALL
};

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let scene = stage.scene;
    let meter = Meter::start();
    let mut times = Vec::new();
    for names in [10, stage.scale.names] {
        stage.down();
        let began = Instant::now();
        let capacity = Capacity {
            names,
            ..Capacity::default()
        };
        let target = stage.up_with(capacity)?.service(RAW);
        let hello = Job::Reply(ANSWER as u64).hello(Hello::small(NAME));
        load::block_on(scene.client(), Place::Client, async {
            let first = fetch(target, &hello, ANSWER).await;
            first.context(|| format!("the first connection to {target}"))
        })?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    stage.down();
    Ok(Outcome::new(
        &meter.stop(),
        vec![("few", times[0]), ("many", times[1])],
    ))
}
