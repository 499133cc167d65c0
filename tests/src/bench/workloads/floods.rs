//! Floods from sources never seen before, with right checksums (`load::flood`).
//!
//! - *under a flood*: what valid clients still get while frames come at a fixed rate;
//! - *absorbed*: how many frames one processor makes and the entrance deals with, nothing else going on,
//!   and what each costs beyond being dropped at once.
//!
//! The control is the forwarder behind an XDP program that drops the flood's sources.

use std::sync::Arc;
use std::time::Duration;

use super::connections::{ANSWER, connect};
use crate::bench::bpf::flood::Kind as Frames;
use crate::bench::contender::{Contender, Kind, SHIELD};
use crate::bench::load::flood::Running;
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::measure::Meter;
use crate::bench::measure::memory::Memory;
use crate::bench::scene::NAME;
use crate::bench::workload::{Metric, Outcome, Stage, Workload, dual_stack};
use crate::error::{Error, Result};
use crate::hello::Hello;
use crate::lab::Family;

/// Frames a second, where the rate is fixed.
const RATE: u32 = 100_000;
/// How long a flood is there first. Each batch of its frames comes from a pool of its own, which the kernel
/// keeps for a second if a frame is under way when the batch ends: only then memory stands still.
const SETTLING: Duration = Duration::from_millis(1_500);
/// Valid connections at once.
const WIDTH: usize = 8;

const UNDER: &[Metric] = &[
    Metric::alone("success", "%", "valid clients served"),
    Metric::ratio("rate", "1/s", "their connections a second"),
    Metric::alone("p50", "µs", "half of them within"),
    Metric::ratio("p99", "µs", "99 % within"),
    Metric::alone("flood", "1/s", "frames of the flood a second"),
    Metric::alone("growth", "MB", "memory taken meanwhile"),
];

const ABSORBED: &[Metric] = &[
    Metric::ratio("rate", "1/s", "frames a second, one processor making them"),
    Metric::cost("cpu", "ns", "CPU a frame"),
    Metric::alone("answered", "%", "answered by the entrance"),
];

/// Valid clients during a SYN flood.
pub const SYN: Workload = Workload {
    name: "syn-flood",
    title: "valid clients during a SYN flood of 100,000 a second",
    metrics: UNDER,
    suits: floodable,
    control: SHIELD,
    yardstick: SHIELD,
    rounds: 3,
    run: |stage| under(stage, &[Frames::Syn], Family::V4),
    ..super::connections::SMALL
};

/// Valid clients during an ACK flood.
pub const ACK: Workload = Workload {
    name: "ack-flood",
    title: "valid clients during an ACK flood of 100,000 a second",
    quick: false,
    run: |stage| under(stage, &[Frames::Ack], Family::V4),
    ..SYN
};

/// Valid clients during both.
pub const BOTH: Workload = Workload {
    name: "mixed-flood",
    title: "valid clients during a SYN and an ACK flood of 100,000 a second each",
    run: |stage| under(stage, &[Frames::Syn, Frames::Ack], Family::V4),
    ..ACK
};

/// The same of IPv6, clients and flood.
pub const BOTH_V6: Workload = Workload {
    name: "mixed-flood-v6",
    title: "valid clients of IPv6 during an IPv6 SYN and ACK flood of 100,000 a second each",
    suits: floodable_v6,
    run: |stage| under(stage, &[Frames::Syn, Frames::Ack], Family::V6),
    ..ACK
};

/// SYNs as fast as they can be made.
pub const SYN_ABSORBED: Workload = Workload {
    name: "syn-absorbed",
    title: "SYNs as fast as one processor makes them",
    metrics: ABSORBED,
    run: |stage| absorbed(stage, Frames::Syn, Family::V4),
    ..SYN
};

/// ACKs as fast as they can be made.
pub const ACK_ABSORBED: Workload = Workload {
    name: "ack-absorbed",
    title: "ACKs as fast as one processor makes them",
    quick: false,
    run: |stage| absorbed(stage, Frames::Ack, Family::V4),
    ..SYN_ABSORBED
};

/// SYNs of IPv6.
pub const SYN_ABSORBED_V6: Workload = Workload {
    name: "syn-absorbed-v6",
    title: "IPv6 SYNs as fast as one processor makes them",
    quick: false,
    suits: floodable_v6,
    run: |stage| absorbed(stage, Frames::Syn, Family::V6),
    ..SYN_ABSORBED
};

/// ACKs of IPv6.
pub const ACK_ABSORBED_V6: Workload = Workload {
    name: "ack-absorbed-v6",
    title: "IPv6 ACKs as fast as one processor makes them",
    run: |stage| absorbed(stage, Frames::Ack, Family::V6),
    ..SYN_ABSORBED_V6
};

/// Whoever has a public address of its own or passes on what comes, and the control.
fn floodable(contender: &Contender) -> bool {
    contender.kind != Kind::Control && contender.name != "redirect"
}

fn floodable_v6(contender: &Contender) -> bool {
    floodable(contender) && dual_stack(contender)
}

fn under(stage: &mut Stage<'_>, kinds: &[Frames], family: Family) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service_of(family, RAW)?;
    let floods = kinds
        .iter()
        .map(|kind| Running::start(scene, *kind, target, Some(RATE)));
    let floods = floods.collect::<Result<Vec<_>>>()?;
    let sent = || floods.iter().map(Running::sent).sum::<u64>();
    std::thread::sleep(SETTLING);
    let (already, meter, before) = (sent(), Meter::start(), Memory::now());
    let hellos = Arc::new(vec![Job::Reply(ANSWER as u64).hello(Hello::small(NAME))]);
    let count = connect(scene, target, &hellos, WIDTH, duration)?;
    let wall = meter.stop().wall.as_secs_f64();
    let frames = sent() - already;
    let growth = before.available.saturating_sub(Memory::now().available);
    drop(floods);
    let all = (count.done + count.failed).max(1);
    Ok(Outcome::new(
        &count.usage,
        vec![
            ("success", count.done as f64 * 100.0 / all as f64),
            ("rate", count.rate()),
            ("p50", count.quantile(0.5)),
            ("p99", count.quantile(0.99)),
            ("flood", frames as f64 / wall),
            ("growth", growth as f64 / 1e6),
        ],
    )
    .noted(count.first_error.clone()))
}

fn absorbed(stage: &mut Stage<'_>, kind: Frames, family: Family) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service_of(family, RAW)?;
    let transmitted = || -> Result<u64> {
        let path = "/sys/class/net/eth0/statistics/tx_packets";
        let text = crate::command::run(scene.lab.entrance.command("cat")?.arg(path))?;
        text.trim().parse().map_err(|_| Error::Unintelligible {
            what: path.to_owned(),
            text,
        })
    };
    let flood = Running::start(scene, kind, target, None)?;
    std::thread::sleep(Duration::from_millis(300));
    let (sent, meter, answers) = (flood.sent_next()?, Meter::start(), transmitted()?);
    std::thread::sleep(duration);
    let frames = flood.sent_next()? - sent;
    let usage = meter.stop();
    let answers = transmitted()? - answers;
    drop(flood);
    Ok(Outcome::new(
        &usage,
        vec![
            ("rate", frames as f64 / usage.wall.as_secs_f64()),
            ("cpu", usage.busy.as_secs_f64() * 1e9 / frames as f64),
            ("answered", answers as f64 * 100.0 / frames as f64),
        ],
    ))
}
