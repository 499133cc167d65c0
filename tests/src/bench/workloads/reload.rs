//! Another configuration with as many names, all of them different, while clients go on connecting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::{ANSWER, connect};
use crate::bench::contender::{Capacity, Running};
use crate::bench::contenders::forwarder::{Way, configuration};
use crate::bench::load::client::fetch;
use crate::bench::load::control::Control;
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::measure::Meter;
use crate::bench::scene::{NAME, Scene};
use crate::bench::workload::{Metric, Outcome, Stage, Workload};
use crate::error::{Context, Error, Result};
use crate::hello::Hello;

/// A reload.
pub const RELOAD: Workload = Workload {
    name: "reload",
    title: "reload of many names (--names), all but one of them new",
    metrics: &[
        Metric::alone("whole", "ms", "request to answer"),
        Metric::alone("visible", "ms", "request to first connection of a new name"),
        Metric::alone("refusal", "ms", "slowest refusal until then"),
        Metric::alone("failed", "", "failed connections meanwhile"),
        Metric::alone("meanwhile", "", "connections meanwhile"),
    ],
    suits: |contender| matches!(contender.name, "forwarder" | "nginx" | "haproxy"),
    yardstick: "forwarder",
    rounds: 3,
    run,
    ..super::connections::SMALL
};

/// Prepares a reload.
fn reload<'a>(
    scene: &Scene,
    capacity: Capacity,
    running: &'a Running<'_>,
) -> Result<Box<dyn FnMut() -> Result<()> + 'a>> {
    let (from, to) = ("site-", "shop-");
    if let Some(forwarder) = &running.forwarder {
        let text = configuration(scene, capacity, Way::Transparent).replace(from, to);
        forwarder.write_config(&text)?;
        let socket = forwarder.control()?;
        let opened = Control::open(&socket);
        let mut control = opened.context(|| format!("connecting to {}", socket.display()))?;
        return Ok(Box::new(move || {
            let answer = control.request("POST", "/v1/reload", "");
            answer.map(drop).context(|| "reloading".to_owned())
        }));
    }
    let Some(rename) = &running.rename else {
        return Err(Error::Unmeasured {
            what: "a reload".to_owned(),
            why: "it knows no names".to_owned(),
        });
    };
    Ok(Box::new(move || rename(from, to)))
}

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let scene = stage.scene;
    let capacity = Capacity {
        names: stage.scale.names,
        ..Capacity::default()
    };
    let running = stage.up_with(capacity)?;
    let target = running.service(RAW);
    // The others are told by a signal.
    let answers = running.forwarder.is_some();
    let mut reload = reload(scene, capacity, running)?;

    let meter = Meter::start();
    let kept = Job::Reply(ANSWER as u64).hello(Hello::small(NAME));
    let new = format!("shop-{}.example.net", capacity.names / 2);
    let new = Job::Reply(ANSWER as u64).hello(Hello::small(&new));
    let (whole, (visible, slowest), count) = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            connect(
                scene,
                target,
                &Arc::new(vec![kept]),
                4,
                Duration::from_secs(3),
            )
        });
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let watch = scope.spawn(move || {
            load::block_on(scene.client(), Place::Node, async {
                let mut slowest = (Duration::ZERO, String::new());
                loop {
                    let attempt = Instant::now();
                    let Err(error) = fetch(target, &new, ANSWER).await else {
                        break;
                    };
                    let took = attempt.elapsed();
                    if took > slowest.0 {
                        let at = attempt - began;
                        slowest = (
                            took,
                            format!("the slowest refusal, begun at {at:?}: {error}"),
                        );
                    }
                    if began.elapsed() > Duration::from_secs(60) {
                        return Err(Error::Timeout {
                            what: "the effect of a reload".to_owned(),
                            waited: began.elapsed(),
                            detail: slowest.1,
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok((began.elapsed(), slowest))
            })
        });
        let answer = reload();
        let whole = began.elapsed();
        answer?;
        Ok::<_, Error>((whole, join(watch)?, join(others)?))
    })?;
    let usage = meter.stop();
    drop(reload);
    // It has another configuration now than the one it was asked for.
    stage.down();
    // A refusal takes no longer than a round trip, unless something is wrong.
    let note = (slowest.0 > Duration::from_secs(1)).then_some(slowest.1);
    let mut values = vec![
        ("visible", visible.as_secs_f64() * 1e3),
        ("refusal", slowest.0.as_secs_f64() * 1e3),
        ("failed", count.failed as f64),
        ("meanwhile", count.done as f64),
    ];
    if answers {
        values.push(("whole", whole.as_secs_f64() * 1e3));
    }
    Ok(Outcome::new(&usage, values).noted(count.first_error.or(note)))
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
