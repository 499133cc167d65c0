//! The daemon, from `/proc` (proc(5)).

use std::fs;

/// What is told about a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Start, seconds since 1970.
    pub start: f64,
    /// Processor time, seconds.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many may be open.
    pub max_fds: u64,
}

impl Process {
    /// This process; `None` where `/proc` is not there.
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (cpu, _, pages) = fields(&stat)?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        Some(Self {
            start: started("self")?,
            cpu: cpu as f64 / sysconf(libc::_SC_CLK_TCK)? as f64,
            resident: pages * sysconf(libc::_SC_PAGESIZE)?,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: soft_limit(&limits)?,
        })
    }
}

/// When a process started, seconds since 1970; `None` if there is none of that id.
pub fn started(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let (_, start, _) = fields(&stat)?;
    Some(boot.trim().parse::<f64>().ok()? + start as f64 / sysconf(libc::_SC_CLK_TCK)? as f64)
}

/// Processor time and start in ticks, resident pages.
fn fields(stat: &str) -> Option<(u64, u64, u64)> {
    // The command's name, in parentheses, may hold anything; what follows is numbers from the third on.
    let (_, rest) = stat.rsplit_once(')')?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?, field(24)?))
}

/// The soft limit of open files.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(name) })
        .ok()
        .filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        let stat = "7 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 140 150 16 17 18 19 20 0 220 23 240 25";
        assert_eq!(fields(stat), Some((290, 220, 240)));
    }

    #[test]
    fn this_process_is_plausible() {
        let own = Process::read().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - own.start;
        assert!((-2.0..3_600.0).contains(&age), "{age} s old");
        assert!(own.resident > 100_000 && own.open_fds >= 3 && own.max_fds >= own.open_fds);
    }
}
