//! Checks one node again and again, until it is dropped.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::check::Method;
use super::finding::{Egresses, Finding};
use crate::instance::fatal;

/// The interval while results change, unless the configured one is shorter.
const FAST: Duration = Duration::from_secs(1);

/// So long after three checks should have ended, something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What checks a node.
pub(super) struct Checker {
    /// Tells its findings from those of others.
    pub number: u64,
    /// The node.
    pub node: SocketAddr,
    /// How it is checked.
    pub method: Method,
    /// Through which interface; it waits until that is known.
    pub ways: watch::Receiver<Option<Egresses>>,
    /// Asks for a check at once.
    pub now: Arc<Notify>,
    /// Where findings go.
    pub to: mpsc::Sender<Finding>,
}

/// A checker at work; dropped, it ends.
pub(super) struct Running {
    number: u64,
    method: Method,
    task: AbortHandle,
    /// When it was heard of at last.
    heard: Instant,
}

impl Running {
    /// Sets a checker to work. Needs a running tokio.
    pub fn start(checker: Checker) -> Self {
        let (number, method) = (checker.number, checker.method.clone());
        let task = tokio::spawn(checker.run()).abort_handle();
        Self {
            number,
            method,
            task,
            heard: Instant::now(),
        }
    }

    /// A check of its has ended.
    pub fn found(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether it should have been heard of long since.
    pub fn is_late(&self, now: Instant) -> bool {
        let checks = &self.method.checks;
        now.saturating_duration_since(self.heard)
            > (checks.interval + checks.timeout) * 3 + PATIENCE
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it checks in this way.
    pub fn is(&self, method: &Method) -> bool {
        self.method.is_same(method)
    }

    /// Whether it learns when the node's certificate expires.
    pub fn sees_certificates(&self) -> bool {
        self.method.checks.check.is_tls()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    async fn run(mut self) {
        if self.ways.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let checks = &self.method.checks;
        let random = RandomState::new();
        let mut round = 0_u64;
        // Spread over the first second: a start is no reason to meet all nodes at once.
        let mut pause = part(checks.interval.min(FAST), random.hash_one(round));
        let (mut last, mut row) = (None, 0);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.now.notified() => {}
            }
            fatal::point("check");
            let interface = self.interface();
            let outcome = self.method.run(self.node, interface.as_deref()).await;
            let success = outcome.result.is_ok();
            row = if last == Some(success) { row + 1 } else { 1 };
            last = Some(success);
            let settled = row >= if success { checks.rise } else { checks.fall };
            let interval = if settled {
                checks.interval
            } else {
                checks.interval.min(FAST)
            };
            round += 1;
            // 90 to 110 %.
            pause = interval * 9 / 10 + part(interval / 5, random.hash_one(round));
            let checker = self.number;
            if self.to.send(Finding { checker, outcome }).await.is_err() {
                return;
            }
        }
    }

    fn interface(&self) -> Option<String> {
        let ways = self.ways.borrow();
        ways.as_ref()?.get(&self.node.ip()).cloned()
    }
}

/// A random part of a duration.
fn part(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}
