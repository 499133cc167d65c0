//! CPU time of processes that have nothing to do with the benchmark.
//!
//! Ours are this process, whatever descends from it, and the kernel's own threads (they work on our
//! packets). Everything else is noise. A process that ends in between is seen through what its parent's
//! ended children have used, if the parent waits for it and lives on; otherwise what it used is lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::stat::ticks;

/// The parent of all kernel threads.
const KERNEL: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// User and system time, in ticks.
    own: u64,
    /// That of the children it has waited for.
    ended: u64,
}

/// All processes at one time.
#[derive(Debug, Default)]
pub struct Processes(HashMap<u32, Process>);

impl Processes {
    /// As of now.
    #[must_use]
    pub fn now() -> Self {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(
            pids.filter_map(|pid: u32| Some((pid, read(pid)?)))
                .collect(),
        )
    }

    /// What foreign processes have used since an earlier time.
    #[must_use]
    pub fn foreign_since(&self, earlier: &Self) -> Duration {
        let ours = self.descendants(std::process::id());
        let foreign = self.0.iter().filter(|(pid, process)| {
            **pid != KERNEL && process.parent != KERNEL && !ours.contains(*pid)
        });
        let used = foreign.map(|(pid, process)| match earlier.0.get(pid) {
            None => process.own + process.ended,
            Some(before) => {
                // What a child had used before is part of what it hands down when it ends.
                let gone = earlier
                    .0
                    .iter()
                    .filter(|(child, it)| it.parent == *pid && !self.0.contains_key(child))
                    .map(|(_, child)| child.own + child.ended)
                    .sum();
                let ended = process.ended.saturating_sub(before.ended);
                process.own.saturating_sub(before.own) + ended.saturating_sub(gone)
            }
        });
        ticks(used.sum())
    }

    /// A process and all below it.
    fn descendants(&self, root: u32) -> HashSet<u32> {
        let mut found = HashSet::from([root]);
        loop {
            let more: Vec<u32> = self
                .0
                .iter()
                .filter(|(pid, it)| found.contains(&it.parent) && !found.contains(*pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}

fn read(pid: u32) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state parent …`, user, system, children's user and children's system time being fields
/// 14 to 17. The name may contain anything, also parentheses.
fn parse(text: &str) -> Option<Process> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(number(4)?).ok()?,
        own: number(14)? + number(15)?,
        ended: number(16)? + number(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Process, Processes, parse};

    #[test]
    fn reads_a_line_with_a_nasty_name() {
        let line = "12 (a) b) S 7 12 12 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        let process = Process {
            parent: 7,
            own: 120,
            ended: 7,
        };
        assert_eq!(parse(line), Some(process));
    }

    #[test]
    fn only_strangers_count() {
        let ours = std::process::id();
        let process = |parent, own| Process {
            parent,
            own,
            ended: 0,
        };
        let at = |stranger| {
            Processes(
                [
                    (1, process(0, 0)),
                    (2, process(0, 50)),
                    (3, process(2, stranger * 7)),
                    (ours, process(1, stranger * 3)),
                    (ours + 1, process(ours, stranger * 5)),
                    (ours + 2, process(ours + 1, stranger * 9)),
                    (ours + 3, process(1, stranger)),
                ]
                .into(),
            )
        };
        let used = at(30).foreign_since(&at(10));
        assert_eq!(used, std::time::Duration::from_millis(200));
    }

    /// A child that had used 40 ticks ends after 10 more; another one begins and ends in between with 5.
    #[test]
    fn what_ended_children_used_before_does_not_count() {
        let parent = |ended| Process {
            parent: 1,
            own: 100,
            ended,
        };
        let child = Process {
            parent: 7,
            own: 40,
            ended: 0,
        };
        let before = Processes([(7, parent(1_000)), (8, child)].into());
        let after = Processes([(7, parent(1_055))].into());
        let used = after.foreign_since(&before);
        assert_eq!(used, std::time::Duration::from_millis(150));
    }
}
