//! Whether the daemon does its work, and whether the kernel side is as it should be: what `/healthz` and
//! `/readyz` answer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The daemon's loop has something to do every 10 seconds. Silent for so long, it hangs.
const STALLED: Duration = Duration::from_secs(60);

/// Shared by the daemon's loop, which feels it, and the metrics page, which tells it.
#[derive(Debug)]
pub struct Readiness {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    beat: Instant,
    problem: Option<String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                beat: Instant::now(),
                problem: Some(String::from("not started yet")),
            }),
        }
    }
}

impl Readiness {
    /// The daemon's loop came round.
    pub fn beat(&self) {
        self.with(|inner| inner.beat = Instant::now());
    }

    /// The kernel side is in step with the network, but for interfaces that do not exist, and those that are down.
    pub fn in_step(&self, missing: &[String], down: &[String]) {
        let problem = match (missing, down) {
            ([], []) => None,
            ([], down) => Some(format!("down: {}", down.join(", "))),
            (missing, _) => Some(format!("no such interface: {}", missing.join(", "))),
        };
        self.with(|inner| inner.problem = problem);
    }

    /// The kernel side could not be brought in step.
    pub fn out_of_step(&self, why: &dyn std::error::Error) {
        self.with(|inner| inner.problem = Some(format!("not in step with the network: {why}")));
    }

    /// Whether the loop comes round.
    pub fn is_alive(&self) -> bool {
        self.with(|inner| inner.beat.elapsed() < STALLED)
    }

    /// Why the entrance is not ready; `None` if it is.
    pub fn problem(&self) -> Option<String> {
        if !self.is_alive() {
            return Some(String::from("the daemon hangs"));
        }
        self.with(|inner| inner.problem.clone())
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Inner) -> T) -> T {
        // Nothing can be left half done by a panic in here.
        use_it(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_in_step_and_alive() {
        let readiness = Readiness::default();
        assert_eq!(readiness.problem().as_deref(), Some("not started yet"));
        readiness.in_step(&[], &[]);
        assert_eq!(readiness.problem(), None);
        readiness.in_step(&[], &[String::from("wg0")]);
        assert_eq!(readiness.problem().unwrap(), "down: wg0");
        readiness.in_step(&[String::from("wg0")], &[]);
        assert_eq!(
            readiness.problem().as_deref(),
            Some("no such interface: wg0")
        );
        readiness.out_of_step(&std::fmt::Error);
        assert!(readiness.problem().unwrap().starts_with("not in step"));
        readiness.in_step(&[], &[]);
        readiness.with(|inner| inner.beat -= STALLED);
        assert!(!readiness.is_alive());
        assert_eq!(readiness.problem().as_deref(), Some("the daemon hangs"));
        readiness.beat();
        assert_eq!(readiness.problem(), None);
    }
}
