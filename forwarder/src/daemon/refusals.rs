//! How many refused connections are shown one by one. Refusals cost an attacker nothing; log lines would
//! cost the entrance. All of them are counted by the data path.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// Lines a second.
const SHOWN: u32 = 50;

/// What was shown in the present second, and what was not.
#[derive(Debug, Default)]
pub struct Refusals {
    second: Option<Instant>,
    shown: u32,
    hidden: u64,
}

impl Refusals {
    /// Whether one more may be shown.
    pub fn may_show(&mut self, now: Instant) -> bool {
        let fresh = self
            .second
            .is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1));
        if fresh {
            self.second = Some(now);
            self.shown = 0;
        }
        if self.shown < SHOWN {
            self.shown += 1;
            return true;
        }
        self.hidden += 1;
        false
    }

    /// Says how many were not shown since the last time.
    pub fn summarize(&mut self) {
        if self.hidden > 0 {
            info!(target: "forwarder::flow", event = "refused", count = self.hidden, "further refusals, not shown one by one");
            self.hidden = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_a_trickle_shown() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let shown = (0..1_000).filter(|_| refusals.may_show(now)).count();
        assert_eq!((shown, refusals.hidden), (50, 950));
        assert!(refusals.may_show(now + Duration::from_secs(1)));
        refusals.summarize();
        assert_eq!(refusals.hidden, 0);
    }
}
