//! Changes of single routes while the forwarder runs: how many a second, and how soon each holds.

use std::time::{Duration, Instant};

use super::connections::ANSWER;
use crate::bench::contender::Capacity;
use crate::bench::load::client::{fetch, refused};
use crate::bench::load::control::Control;
use crate::bench::load::job::Job;
use crate::bench::load::server::RAW;
use crate::bench::load::{self, Place};
use crate::bench::measure::Meter;
use crate::bench::workload::{Metric, Outcome, Stage, Workload};
use crate::error::{Context, Error, Result};
use crate::hello::Hello;

const ADDED: &str = "added.example.net";
/// Changes whose effect is looked at.
const LOOKED_AT: usize = 20;

/// Routes added and removed on the control socket.
pub const ROUTES: Workload = Workload {
    name: "routes",
    title: "one route added or removed while many names are listed (--names)",
    metrics: &[
        Metric::alone("rate", "1/s", "changes a second"),
        Metric::alone("p50", "ms", "request to first connection, half within"),
        Metric::alone("most", "ms", "all within"),
    ],
    suits: |contender| contender.name == "forwarder",
    yardstick: "forwarder",
    rounds: 3,
    run,
    ..super::connections::SMALL
};

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let capacity = Capacity {
        names: stage.scale.names,
        ..Capacity::default()
    };
    let running = stage.up_with(capacity)?;
    let target = running.service(RAW);
    let Some(forwarder) = &running.forwarder else {
        return Err(Error::Unmeasured {
            what: "a change of routes".to_owned(),
            why: "only the forwarder has a control socket".to_owned(),
        });
    };
    let socket = forwarder.control()?;
    let opened = Control::open(&socket);
    let mut control = opened.context(|| format!("connecting to {}", socket.display()))?;
    let add = |control: &mut Control| {
        let body = format!(r#"{{"names": ["{ADDED}"], "pool": "raw", "listeners": ["raw"]}}"#);
        control.request("PUT", "/v1/routes", &body)
    };
    let remove =
        |control: &mut Control| control.request("DELETE", &format!("/v1/routes/{ADDED}"), "");
    let hello = Job::Reply(ANSWER as u64).hello(Hello::small(ADDED));

    let meter = Meter::start();
    let mut delays = Vec::new();
    for _ in 0..LOOKED_AT {
        let began = Instant::now();
        add(&mut control).context(|| "adding a route".to_owned())?;
        let taken = load::block_on(scene.client(), Place::Client, async {
            while fetch(target, &hello, ANSWER).await.is_err() {
                if began.elapsed() > Duration::from_secs(10) {
                    return Err(Error::Timeout {
                        what: "the effect of an added route".to_owned(),
                        waited: began.elapsed(),
                        detail: String::new(),
                    });
                }
            }
            Ok(began.elapsed())
        })?;
        delays.push(taken.as_secs_f64() * 1e3);
        remove(&mut control).context(|| "removing a route".to_owned())?;
        load::block_on(scene.client(), Place::Client, async {
            let after = refused(target, &hello).await;
            after.context(|| "a name whose route is gone".to_owned())
        })?;
    }
    delays.sort_by(f64::total_cmp);
    let (began, mut changes) = (Instant::now(), 0_u32);
    while began.elapsed() < duration {
        add(&mut control).context(|| "adding a route".to_owned())?;
        remove(&mut control).context(|| "removing a route".to_owned())?;
        changes += 2;
    }
    let rate = f64::from(changes) / began.elapsed().as_secs_f64();
    let values = vec![
        ("rate", rate),
        ("p50", delays[delays.len() / 2]),
        ("most", delays[delays.len() - 1]),
    ];
    Ok(Outcome::new(&meter.stop(), values))
}
