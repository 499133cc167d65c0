//! What work costs the machine: CPU time of everything together, and how much of it was not ours.

pub mod foreign;
pub mod memory;
pub mod stat;

use std::time::{Duration, Instant};

use foreign::Processes;
use stat::Cpu;

/// CPU time of the whole machine over some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// How long it was.
    pub wall: Duration,
    /// What all processors together were not idle.
    pub busy: Duration,
    /// What the hypervisor gave to others.
    pub steal: Duration,
    /// What processes that are not ours used, as far as they can be seen.
    pub foreign: Duration,
}

impl Usage {
    /// The part of the machine that was lost to others, from 0 to 1.
    #[must_use]
    pub fn noise(&self) -> f64 {
        let whole = self.wall.as_secs_f64() * super::load::processors() as f64;
        (self.steal + self.foreign).as_secs_f64() / whole.max(1e-9)
    }
}

/// Begins to measure when it is made.
#[derive(Debug)]
pub struct Meter {
    processes: Processes,
    cpu: Cpu,
    began: Instant,
}

impl Meter {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        let processes = Processes::now();
        Self {
            processes,
            began: Instant::now(),
            cpu: Cpu::now(),
        }
    }

    /// What was used since.
    #[must_use]
    pub fn stop(self) -> Usage {
        let cpu = Cpu::now();
        let wall = self.began.elapsed();
        let whole = wall * u32::try_from(super::load::processors()).unwrap_or(1);
        let steal = cpu.steal.saturating_sub(self.cpu.steal);
        let idle = cpu.idle.saturating_sub(self.cpu.idle);
        Usage {
            wall,
            busy: whole.saturating_sub(idle + steal),
            steal,
            foreign: Processes::now().foreign_since(&self.processes).min(whole),
        }
    }
}
