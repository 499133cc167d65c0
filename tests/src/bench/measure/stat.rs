//! `/proc/stat` (proc(5)): how long the processors were idle.
//!
//! User and system time there are sampled at each tick, but idle time is exact where the tick stops
//! while a processor idles (`CONFIG_NO_HZ_IDLE`). So *busy* is what the clock says less what was idle.
//! The file counts in hundredths of a second.

use std::time::Duration;

const TICKS: u64 = 100;

/// Times of all processors together since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Nothing to do, or waiting for a disk.
    pub idle: Duration,
    /// Another virtual machine ran.
    pub steal: Duration,
}

impl Cpu {
    /// As of now.
    #[must_use]
    pub fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let numbers: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|word| word.parse().ok())
            .collect();
        let at = |index: usize| ticks(numbers.get(index).copied().unwrap_or_default());
        Self {
            idle: at(3) + at(4),
            steal: at(7),
        }
    }
}

/// A number of clock ticks as /proc tells them.
#[must_use]
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::{Cpu, ticks};

    #[test]
    fn idle_includes_waiting_for_a_disk() {
        let cpu = Cpu::parse("cpu  147391 3406 35575 48853 1637 0 176 169 0 0\ncpu0 1 2 3 4\n");
        assert_eq!(cpu.idle, ticks(48_853 + 1_637));
        assert_eq!(cpu.steal, ticks(169));
    }
}
