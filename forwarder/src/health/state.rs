//! Whether a node works: what checks and clients' connections say, and what follows. Pure; time comes in.
//!
//! A node is taken to work until something says otherwise. The first check of a node that nothing is known
//! about decides alone; after that it takes `fall` failures in a row to take a node out and `rise` successes
//! to bring it back, also when the daemon was started again in between. Connections of clients
//! that fail take it out at once, because they are the real thing; a check then confirms or contradicts that.
//! Without checks a node comes back after a time, and the first failure takes it out for longer.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long a node of a pool without checks stays out the first time.
pub const COOL_DOWN: Duration = Duration::from_secs(10);
/// The longest it stays out.
const COOL_DOWN_MAX: Duration = Duration::from_secs(80);
/// Steps in which a node comes back.
const STEPS: u32 = 10;

/// What the configuration says about nodes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Successes in a row that bring a node back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// Time from one check to the next; `None`: there are no checks.
    pub interval: Option<Duration>,
    /// How long a node that comes back takes to its full share.
    pub slow_start: Duration,
}

/// Who says that a node does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A check failed.
    Check,
    /// Connections of clients failed.
    Clients,
}

/// What has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It works again.
    Up,
    /// It does not work any more.
    Down(Cause),
    /// Clients' connections failed before, and now a check says the same.
    Confirmed,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeState {
    down: Option<Cause>,
    /// Whether a check has said anything yet.
    checked: bool,
    /// Results in a row that contradict the state.
    row: u32,
    /// Failed connections since the last that was accepted.
    failed: u64,
    /// Until then failed connections do not count: a check has just contradicted them.
    deaf_until: Option<Instant>,
    /// Without checks: when it is tried again.
    back_at: Option<Instant>,
    cool_down: Duration,
    /// Back without proof: the next failure takes it out.
    trial: bool,
    /// When it came back.
    risen: Option<Instant>,
}

impl Default for NodeState {
    fn default() -> Self {
        Self {
            down: None,
            checked: false,
            row: 0,
            failed: 0,
            deaf_until: None,
            back_at: None,
            cool_down: COOL_DOWN,
            trial: false,
            risen: None,
        }
    }
}

impl NodeState {
    /// A node that a former daemon found not working. One success does not bring it back, as before.
    pub fn left_down(cause: Cause, now: Instant) -> Self {
        Self {
            down: Some(cause),
            checked: true,
            back_at: Some(now + COOL_DOWN),
            ..Self::default()
        }
    }

    /// A node that a former daemon's checks found working. One failure does not take it out, as before.
    pub fn left_up() -> Self {
        Self {
            checked: true,
            ..Self::default()
        }
    }

    /// Why it is taken not to work; `None` if it is taken to work.
    pub fn down(&self) -> Option<Cause> {
        self.down
    }

    /// A check has ended.
    pub fn check(&mut self, success: bool, now: Instant, limits: &Limits) -> Option<Change> {
        let first = !std::mem::replace(&mut self.checked, true);
        match (self.down, success) {
            (None, true) | (Some(Cause::Check), false) => {
                self.row = 0;
                None
            }
            (None, false) => {
                self.row += 1;
                if !first && self.row < limits.fall {
                    return None;
                }
                self.take_out(Cause::Check);
                Some(Change::Down(Cause::Check))
            }
            (Some(Cause::Check), true) => {
                self.row += 1;
                if !first && self.row < limits.rise {
                    return None;
                }
                self.bring_back();
                self.risen = Some(now);
                Some(Change::Up)
            }
            (Some(Cause::Clients), false) => {
                self.take_out(Cause::Check);
                Some(Change::Confirmed)
            }
            (Some(Cause::Clients), true) => {
                self.bring_back();
                self.deaf_until = limits.interval.map(|interval| now + interval);
                Some(Change::Up)
            }
        }
    }

    /// So many connections of clients failed, and so many were accepted, since the last time.
    pub fn clients(
        &mut self,
        failed: u64,
        accepted: u64,
        now: Instant,
        limits: &Limits,
    ) -> Option<Change> {
        if accepted > 0 {
            self.failed = 0;
            if self.down.is_none() {
                self.trial = false;
                self.cool_down = COOL_DOWN;
            }
            return None;
        }
        if self.down.is_some() || self.deaf_until.is_some_and(|until| now < until) {
            self.failed = 0;
            return None;
        }
        self.failed = self.failed.saturating_add(failed);
        let enough = if self.trial { 1 } else { limits.fall };
        if failed == 0 || self.failed < u64::from(enough) {
            return None;
        }
        self.take_out(Cause::Clients);
        if limits.interval.is_none() {
            self.back_at = Some(now + self.cool_down);
            self.cool_down = (self.cool_down * 2).min(COOL_DOWN_MAX);
        }
        Some(Change::Down(Cause::Clients))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, limits: &Limits) -> Option<Change> {
        let due = self.back_at.is_some_and(|at| at <= now) && limits.interval.is_none();
        if !due || self.down.is_none() {
            return None;
        }
        self.bring_back();
        self.trial = true;
        self.risen = Some(now);
        Some(Change::Up)
    }

    /// Its share of new connections in percent of what the configuration says.
    pub fn share(&self, now: Instant, limits: &Limits) -> u32 {
        if self.down.is_some() {
            return 0;
        }
        let risen = self.risen.filter(|_| !limits.slow_start.is_zero());
        let since = risen.map(|risen| now.saturating_duration_since(risen));
        match since.filter(|since| *since < limits.slow_start) {
            Some(since) => {
                let steps = since.as_nanos() * u128::from(STEPS) / limits.slow_start.as_nanos();
                (steps as u32 + 1) * 100 / STEPS
            }
            None => 100,
        }
    }

    fn take_out(&mut self, cause: Cause) {
        self.down = Some(cause);
        self.row = 0;
        self.failed = 0;
        self.trial = false;
        self.risen = None;
        self.back_at = None;
    }

    fn bring_back(&mut self) {
        self.down = None;
        self.row = 0;
        self.failed = 0;
        self.back_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED: Limits = Limits {
        rise: 2,
        fall: 3,
        interval: Some(Duration::from_secs(5)),
        slow_start: Duration::ZERO,
    };
    const UNCHECKED: Limits = Limits {
        interval: None,
        ..CHECKED
    };
    const DOWN: Option<Change> = Some(Change::Down(Cause::Check));
    const FAILED: Option<Change> = Some(Change::Down(Cause::Clients));
    const UP: Option<Change> = Some(Change::Up);

    fn after(seconds: u64) -> Instant {
        // One origin for all, so that differences are exact.
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_check_decides_alone() {
        let mut node = NodeState::default();
        assert_eq!(node.share(after(0), &CHECKED), 100, "until it is known");
        assert_eq!(node.check(false, after(0), &CHECKED), DOWN);
    }

    #[test]
    fn what_a_former_daemon_knew_takes_as_much_to_change() {
        let mut left = NodeState::left_down(Cause::Check, after(0));
        assert_eq!(left.share(after(0), &CHECKED), 0);
        assert_eq!(left.check(true, after(1), &CHECKED), None);
        assert_eq!(left.check(true, after(2), &CHECKED), UP);
        let mut left = NodeState::left_up();
        assert_eq!(left.check(false, after(1), &CHECKED), None);
        assert_eq!(left.check(false, after(2), &CHECKED), None);
        assert_eq!(left.check(false, after(3), &CHECKED), DOWN);
    }

    #[test]
    fn it_takes_fall_failures_and_rise_successes_in_a_row() {
        let mut node = NodeState::default();
        let mut told = |results: &str| -> Vec<_> {
            let results = results.chars();
            results
                .map(|c| node.check(c == '+', after(1), &CHECKED))
                .collect()
        };
        assert_eq!(told("+--+--"), [None; 6], "never three in a row");
        assert_eq!(told("-"), [DOWN]);
        assert_eq!(told("-+-+"), [None; 4], "never two in a row");
        assert_eq!(told("+"), [UP]);
        assert_eq!(told("+--"), [None; 3]);
    }

    #[test]
    fn clients_take_a_node_out_and_the_next_check_has_the_word() {
        let mut node = NodeState::default();
        node.check(true, after(0), &CHECKED);
        assert_eq!(node.clients(2, 0, after(1), &CHECKED), None);
        assert_eq!(node.clients(1, 0, after(2), &CHECKED), FAILED);
        assert_eq!(
            node.check(false, after(2), &CHECKED),
            Some(Change::Confirmed)
        );
        assert_eq!(node.down(), Some(Cause::Check));

        let mut node = NodeState::default();
        node.check(true, after(0), &CHECKED);
        assert_eq!(node.clients(3, 0, after(1), &CHECKED), FAILED);
        assert_eq!(node.check(true, after(1), &CHECKED), UP, "contradicted");
        let deaf = node.clients(9, 0, after(5), &CHECKED);
        assert_eq!(deaf, None, "contradicted a moment ago");
        assert_eq!(node.clients(9, 0, after(6), &CHECKED), FAILED);
    }

    #[test]
    fn one_accepted_connection_outweighs_failures() {
        let mut node = NodeState::default();
        for second in 0..20 {
            assert_eq!(node.clients(2, 0, after(second), &UNCHECKED), None);
            assert_eq!(node.clients(5, 1, after(second), &UNCHECKED), None);
        }
    }

    #[test]
    fn without_checks_a_node_is_tried_again_less_and_less_often() {
        let mut node = NodeState::default();
        assert_eq!(node.clients(3, 0, after(0), &UNCHECKED), FAILED);
        assert_eq!(node.tick(after(9), &UNCHECKED), None);
        assert_eq!(node.tick(after(10), &UNCHECKED), UP);
        assert_eq!(
            node.clients(1, 0, after(11), &UNCHECKED),
            FAILED,
            "on trial"
        );
        assert_eq!(node.tick(after(30), &UNCHECKED), None);
        assert_eq!(node.tick(after(31), &UNCHECKED), UP);
        assert_eq!(node.clients(0, 1, after(32), &UNCHECKED), None);
        assert_eq!(node.clients(2, 0, after(33), &UNCHECKED), None, "proven");
        assert_eq!(node.clients(1, 0, after(34), &UNCHECKED), FAILED);
        assert_eq!(node.tick(after(44), &UNCHECKED), UP);
    }

    #[test]
    fn a_check_brings_back_no_node_by_the_clock() {
        let mut node = NodeState::left_down(Cause::Check, after(0));
        assert_eq!(node.tick(after(1_000), &CHECKED), None);
        let mut node = NodeState::left_down(Cause::Check, after(0));
        assert_eq!(
            node.tick(after(1_000), &UNCHECKED),
            UP,
            "checks were removed"
        );
    }

    #[test]
    fn a_node_comes_back_in_steps() {
        let limits = Limits {
            slow_start: Duration::from_secs(20),
            ..CHECKED
        };
        let mut node = NodeState::default();
        assert_eq!(node.share(after(0), &limits), 100, "no ramp at the start");
        node.check(false, after(0), &limits);
        node.check(true, after(1), &limits);
        node.check(true, after(100), &limits);
        let shares: Vec<_> = [100, 101, 102, 110, 119, 120]
            .map(|second| node.share(after(second), &limits))
            .into();
        assert_eq!(shares, [10, 10, 20, 60, 100, 100]);
    }
}
