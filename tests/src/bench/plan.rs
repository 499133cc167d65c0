//! Who runs when: rounds in which contenders take turns, in an order that turns too; silence before each
//! measurement, and another try for those that were disturbed.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::lab::TunnelKind;

use super::contender::Contender;
use super::measure::Meter;
use super::record::{Failure, Machine, Noise, Run, Sample};
use super::scene::Scene;
use super::workload::{Scale, Stage, Workload};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part; the control among them.
    pub contenders: Vec<&'static Contender>,
    /// What is asked of them.
    pub workloads: Vec<&'static Workload>,
    /// How often.
    pub rounds: usize,
    /// Whether workloads were asked for by name: all rounds are theirs then.
    pub chosen: bool,
    /// How large everything is.
    pub scale: Scale,
    /// What leads to the node.
    pub tunnel: TunnelKind,
    /// The part of the machine that others may have, from 0 to 1.
    pub noise_limit: f64,
    /// How long the whole run may wait for silence, all waits together.
    pub patience: Duration,
    /// How often a disturbed measurement is made again.
    pub tries: usize,
}

/// How long silence is looked for at a time.
const LISTEN: Duration = Duration::from_millis(250);
/// No measurement takes longer, with everything that belongs to it; idle connections need some more.
const WATCHDOG: Duration = Duration::from_secs(240);
const IDLE_A_SECOND: usize = 1_000;

/// Carries a plan out, telling on standard error how it goes.
pub fn run(plan: &Plan) -> Result<Run> {
    let began = Instant::now();
    watch_over(WATCHDOG + Duration::from_secs((plan.scale.flows / IDLE_A_SECOND) as u64));
    super::load::descriptors();
    let scene = Scene::build(plan.tunnel)?;
    let mut work = Work {
        began,
        plan,
        scene: &scene,
        patience: plan.patience,
        noise: Noise {
            limit: plan.noise_limit,
            ..Noise::default()
        },
        samples: Vec::new(),
        failures: Vec::new(),
    };
    for round in 0..plan.rounds {
        for contender in order(&plan.contenders, round) {
            work.turn(round, contender);
        }
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Run {
        began: since.saturating_sub(began.elapsed()).as_secs(),
        took: began.elapsed().as_secs_f64(),
        machine: Machine::this(),
        versions: super::report::versions(),
        scale: plan.scale,
        rounds: plan.rounds,
        noise: work.noise,
        samples: work.samples,
        failures: work.failures,
    })
}

/// Forth in even rounds and back in odd ones, beginning with another one in each pair: whatever changes
/// slowly on the machine meets everybody alike.
fn order(contenders: &[&'static Contender], round: usize) -> Vec<&'static Contender> {
    let mut order = contenders.to_vec();
    let length = order.len().max(1);
    order.rotate_left(round / 2 % length);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

struct Work<'a> {
    began: Instant,
    plan: &'a Plan,
    scene: &'a Scene,
    patience: Duration,
    noise: Noise,
    samples: Vec<Sample>,
    failures: Vec<Failure>,
}

impl Work<'_> {
    /// One contender through every workload.
    fn turn(&mut self, round: usize, contender: &'static Contender) {
        let mut stage = Stage::new(self.scene, contender, self.plan.scale);
        for workload in &self.plan.workloads {
            if (self.plan.chosen || round < workload.rounds) && (workload.suits)(contender) {
                self.measure(round, workload, &mut stage);
            }
        }
    }

    fn measure(&mut self, round: usize, workload: &Workload, stage: &mut Stage<'_>) {
        let mut tries = 1;
        loop {
            self.wait_for_silence();
            alive();
            let result = self
                .scene
                .set_offloads(workload.offloads)
                .and_then(|()| (workload.run)(stage));
            alive();
            match result {
                Ok(outcome) if outcome.noise > self.plan.noise_limit && tries < self.plan.tries => {
                    tries += 1;
                    self.noise.repeated += 1;
                }
                Ok(outcome) => {
                    self.noise.above += usize::from(outcome.noise > self.plan.noise_limit);
                    let values = outcome
                        .values
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), *value));
                    let sample = Sample {
                        workload: workload.name.to_owned(),
                        contender: stage.contender.name.to_owned(),
                        round,
                        noise: outcome.noise,
                        values: values.collect(),
                        note: outcome.note,
                    };
                    tell(&sample, self.began.elapsed());
                    self.samples.push(sample);
                    return;
                }
                Err(error) => {
                    eprintln!(
                        "  {} {}: {}",
                        stage.contender.name,
                        workload.name,
                        error.chain()
                    );
                    self.failures.push(Failure {
                        workload: workload.name.to_owned(),
                        contender: stage.contender.name.to_owned(),
                        round,
                        reason: error.chain(),
                    });
                    // Whatever state it is in: the next workload finds it started anew.
                    stage.down();
                    return;
                }
            }
        }
    }

    /// Waits until the others are quiet, as long as patience lasts.
    fn wait_for_silence(&mut self) {
        let began = Instant::now();
        while began.elapsed() < self.patience {
            let meter = Meter::start();
            std::thread::sleep(LISTEN);
            if meter.stop().noise() <= self.plan.noise_limit {
                break;
            }
            alive();
        }
        let waited = began.elapsed();
        self.patience = self.patience.saturating_sub(waited.saturating_sub(LISTEN));
        self.noise.waited += waited.as_secs_f64();
    }
}

fn tell(sample: &Sample, since: Duration) {
    let values: Vec<String> = sample
        .values
        .iter()
        .map(|(name, value)| format!("{name} {value:.2}"))
        .collect();
    eprintln!(
        "{:>5.0} s  round {} {:<16} {:<20} {}  (others {:.1} %)",
        since.as_secs_f64(),
        sample.round + 1,
        sample.contender,
        sample.workload,
        values.join(", "),
        sample.noise * 100.0
    );
    if let Some(note) = &sample.note {
        eprintln!("         {note}");
    }
}

static LAST_SIGN: Mutex<Option<Instant>> = Mutex::new(None);

/// A sign of life for the watchdog.
fn alive() {
    *LAST_SIGN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
}

/// Ends the process, clean-up included, should one measurement hang.
fn watch_over(limit: Duration) {
    alive();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let last = *LAST_SIGN
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() > limit) {
                eprintln!("bench: a measurement has not ended within {limit:?}; giving up");
                std::process::exit(3);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::order;
    use crate::bench::contender::ALL;

    #[test]
    fn everybody_comes_first_and_last_at_times() {
        let all: Vec<_> = ALL.iter().collect();
        let firsts: std::collections::BTreeSet<_> = (0..2 * all.len())
            .map(|round| order(&all, round)[0].name)
            .collect();
        assert_eq!(firsts.len(), all.len());
        for round in 0..4 {
            assert_eq!(order(&all, round).len(), all.len());
        }
    }
}
