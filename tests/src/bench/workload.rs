//! What is asked of every contender.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ethtool::Offloads;

use super::contender::{Capacity, Contender, Kind, Running};
use super::measure::Usage;
use super::scene::Scene;
use super::workloads;

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// A cost: the control's is taken off, and the rest is related to the yardstick's.
    Marginal,
    /// The yardstick's is taken off.
    Added,
    /// It is related to the yardstick's.
    Ratio,
    /// Nothing.
    Alone,
}

/// One figure of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// What it is called in results.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it says, for a table's head.
    pub title: &'static str,
    /// What it is compared with.
    pub compared: Compared,
}

impl Metric {
    const fn new(
        name: &'static str,
        unit: &'static str,
        title: &'static str,
        compared: Compared,
    ) -> Self {
        Self {
            name,
            unit,
            title,
            compared,
        }
    }

    /// A cost, of which the control's is taken off.
    #[must_use]
    pub const fn cost(name: &'static str, unit: &'static str, title: &'static str) -> Self {
        Self::new(name, unit, title, Compared::Marginal)
    }

    /// A time, of which the yardstick's is taken off.
    #[must_use]
    pub const fn added(name: &'static str, unit: &'static str, title: &'static str) -> Self {
        Self::new(name, unit, title, Compared::Added)
    }

    /// A figure in relation to the yardstick's.
    #[must_use]
    pub const fn ratio(name: &'static str, unit: &'static str, title: &'static str) -> Self {
        Self::new(name, unit, title, Compared::Ratio)
    }

    /// A figure by itself.
    #[must_use]
    pub const fn alone(name: &'static str, unit: &'static str, title: &'static str) -> Self {
        Self::new(name, unit, title, Compared::Alone)
    }
}

/// What one run of a workload gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its figures, by the names of its metrics.
    pub values: Vec<(&'static str, f64)>,
    /// The part of the machine that was lost to others while it was measured.
    pub noise: f64,
    /// What went wrong, if a little did.
    pub note: Option<String>,
}

impl Outcome {
    /// Figures that were taken while the meter ran.
    #[must_use]
    pub fn new(usage: &Usage, values: Vec<(&'static str, f64)>) -> Self {
        Self {
            values,
            noise: usage.noise(),
            note: None,
        }
    }

    /// With a word about what went wrong.
    #[must_use]
    pub fn noted(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }
}

/// How large and long everything is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// How long one measurement takes.
    pub seconds: f64,
    /// Idle connections held at once.
    pub flows: usize,
    /// Names in the largest table.
    pub names: usize,
}

impl Scale {
    /// How long one measurement takes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// One of [`ALL`].
pub struct Workload {
    /// What it is called on the command line and in results.
    pub name: &'static str,
    /// What it does, in a few words.
    pub title: &'static str,
    /// Its figures.
    pub metrics: &'static [Metric],
    /// The offloads of the links.
    pub offloads: Offloads,
    /// Whether a contender can take part.
    pub suits: fn(&Contender) -> bool,
    /// Whose figures are taken off costs.
    pub control: &'static str,
    /// Whose figures the others are compared with.
    pub yardstick: &'static str,
    /// In how many of a full run's rounds it is asked for at most.
    pub rounds: usize,
    /// Whether it is part of a quick run.
    pub quick: bool,
    /// Does it.
    pub run: fn(&mut Stage<'_>) -> Result<Outcome>,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them, the cheap ones first.
pub const ALL: &[&Workload] = &[
    &workloads::connections::SMALL,
    &workloads::connections::LARGE,
    &workloads::connections::SMALL_V6,
    &workloads::handshakes::FULL,
    &workloads::handshakes::RESUMED,
    &workloads::requests::KEPT,
    &workloads::requests::SERIAL,
    &workloads::wrk::WRK,
    &workloads::bulk::DOWNLOAD,
    &workloads::bulk::UPLOAD,
    &workloads::bulk::DOWNLOAD_MERGED,
    &workloads::bulk::UPLOAD_MERGED,
    &workloads::bulk::DOWNLOAD_PLAIN,
    &workloads::bulk::UPLOAD_PLAIN,
    &workloads::refusals::REFUSALS,
    // Before floods, of which the kernel gives memory back for some time.
    &workloads::memory::IDLE,
    &workloads::floods::SYN,
    &workloads::floods::ACK,
    &workloads::floods::BOTH,
    &workloads::floods::BOTH_V6,
    &workloads::floods::SYN_ABSORBED,
    &workloads::floods::ACK_ABSORBED,
    &workloads::floods::SYN_ABSORBED_V6,
    &workloads::floods::ACK_ABSORBED_V6,
    &workloads::names::NAMES,
    &workloads::start::START,
    &workloads::routes::ROUTES,
    &workloads::reload::RELOAD,
];

/// The one with a name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Workload> {
    ALL.iter().copied().find(|it| it.name == name)
}

/// Everyone who forwards, and the control.
pub fn anyone(contender: &Contender) -> bool {
    contender.kind != Kind::Shield
}

/// Those that are set up for clients of IPv6, and the control.
pub fn dual_stack(contender: &Contender) -> bool {
    !["redirect", "nftables", "sniproxy"].contains(&contender.name)
}

/// Those that decide by name.
pub fn by_name(contender: &Contender) -> bool {
    contender.kind == Kind::Named
}

/// A contender in the scene, started when it is needed.
pub struct Stage<'a> {
    /// The network.
    pub scene: &'a Scene,
    /// Who is on.
    pub contender: &'static Contender,
    /// How large and long everything is.
    pub scale: Scale,
    running: Option<(Capacity, Running<'a>)>,
}

impl<'a> Stage<'a> {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(scene: &'a Scene, contender: &'static Contender, scale: Scale) -> Self {
        Self {
            scene,
            contender,
            scale,
            running: None,
        }
    }

    /// The contender at work, set up as usual.
    pub fn up(&mut self) -> Result<&Running<'a>> {
        self.up_with(Capacity::default())
    }

    /// The contender at work, set up to hold so much.
    pub fn up_with(&mut self, capacity: Capacity) -> Result<&Running<'a>> {
        if self
            .running
            .as_ref()
            .is_none_or(|(has, _)| *has != capacity)
        {
            self.running = None;
            let running = self.contender.start(self.scene, capacity)?;
            self.running = Some((capacity, running));
        }
        let (_, running) = self.running.as_ref().unwrap_or_else(|| unreachable!());
        Ok(running)
    }

    /// Ends the contender.
    pub fn down(&mut self) {
        self.running = None;
    }
}
