//! Memory of the machine, of processes and of kernel maps.

use std::path::Path;

/// What `/proc/meminfo` tells, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What is free, or would be freed at once if asked for.
    pub available: u64,
    /// What the kernel's object caches hold.
    pub slab: u64,
}

impl Memory {
    /// As of now.
    #[must_use]
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            number.unwrap_or_default() * 1024
        };
        Self {
            available: value("MemAvailable:"),
            slab: value("Slab:"),
        }
    }
}

/// The proportional set size of processes in bytes: shared pages count in parts.
#[must_use]
pub fn process_memory(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() * 1024
}

/// What the kernel has set aside for the BPF maps that a process holds, in bytes (`memlock` of
/// `/proc/PID/fdinfo`, which counts the elements that exist or were allocated beforehand).
#[must_use]
pub fn map_memory(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = std::fs::read_dir(Path::new(&folder)).into_iter().flatten();
    let mut maps = std::collections::BTreeMap::new();
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(memory)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id, memory);
        }
    }
    maps.values().sum()
}
