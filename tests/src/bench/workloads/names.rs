//! What a connection costs with more and more names listed; each connection is for another one.

use std::sync::Arc;

use super::connections::{ANSWER, WIDTH, connect};
use crate::bench::contender::{CONTROL, Capacity, Contender};
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::scene::NAME;
use crate::bench::workload::{Metric, Outcome, Stage, Workload};
use crate::error::Result;
use crate::hello::Hello;

/// Names that are asked for, spread over the table.
const ASKED: usize = 1_000;

/// Three sizes of the table.
pub const NAMES: Workload = Workload {
    name: "names",
    title: "new connections with 10, 10,000 and many names listed (--names, 100,000 unless told)",
    metrics: &[
        Metric::cost("few", "µs", "CPU a connection, 10 names"),
        Metric::cost("some", "µs", "10,000 names"),
        Metric::cost("many", "µs", "many names"),
        Metric::alone("growth", "%", "whole cost, many to 10 names"),
    ],
    suits,
    rounds: 3,
    run,
    ..super::connections::SMALL
};

/// The control, and whoever finds a name faster than by trying one after the other.
fn suits(contender: &Contender) -> bool {
    [
        CONTROL,
        "routing",
        "forwarder",
        "forwarder-xdp",
        "nginx",
        "haproxy",
    ]
    .contains(&contender.name)
}

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let mut costs = Vec::new();
    let mut last = None;
    for names in [10, 10_000, stage.scale.names] {
        let capacity = Capacity {
            names,
            ..Capacity::default()
        };
        let target = stage.up_with(capacity)?.service(RAW);
        let step = (names / ASKED).max(1);
        let asked = std::iter::once(NAME.to_owned()).chain(capacity.other_names().step_by(step));
        let hellos = asked.map(|name| Job::Reply(ANSWER as u64).hello(Hello::small(&name)));
        let count = connect(scene, target, &Arc::new(hellos.collect()), WIDTH, duration)?;
        super::sound(&count)?;
        costs.push(count.cost());
        last = Some(count.usage);
    }
    let growth = (costs[2] / costs[0] - 1.0) * 100.0;
    Ok(Outcome::new(
        &last.unwrap_or_default(),
        vec![
            ("few", costs[0]),
            ("some", costs[1]),
            ("many", costs[2]),
            ("growth", growth),
        ],
    ))
}
