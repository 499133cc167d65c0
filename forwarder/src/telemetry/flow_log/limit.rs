//! How many lines a second are written. Refusals cost an attacker nothing; lines would cost the entrance.

use std::time::Duration;

use forwarder_common::token_bucket::{Limit, TokenBucket};

const MINUTE_NS: u64 = 60_000_000_000;

/// Two budgets, so that a flood of refused connections does not hide flows.
#[derive(Debug)]
pub struct RateLimit {
    refusals: (TokenBucket, Limit),
    flows: (TokenBucket, Limit),
}

impl RateLimit {
    /// So many lines of flows a second, and so many at once after a calm; and so many of refusals a minute, all of
    /// which may come at once.
    pub fn new(rate: u32, burst: u32, refused_per_minute: u32) -> Self {
        let refused = match MINUTE_NS.checked_div(u64::from(refused_per_minute)) {
            Some(interval_ns) => Limit {
                interval_ns,
                fill_ns: MINUTE_NS,
            },
            None => Limit::per_second(0, 0),
        };
        Self {
            refusals: (TokenBucket::default(), refused),
            flows: (TokenBucket::default(), Limit::per_second(rate, burst)),
        }
    }

    /// Whether one more may be written; `now` is monotonic.
    pub fn allows(&mut self, refused: bool, now: Duration) -> bool {
        let (bucket, limit) = match refused {
            true => &mut self.refusals,
            false => &mut self.flows,
        };
        bucket.take(now.as_nanos() as u64, *limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_does_not_hide_flows() {
        let mut limit = RateLimit::new(10, 50, 30);
        let at = Duration::from_secs;
        let mut refused = |at| (0..1_000).filter(|_| limit.allows(true, at)).count();
        assert_eq!(refused(at(100)), 30);
        assert_eq!(refused(at(101)), 0);
        assert_eq!(refused(at(120)), 10, "a minute's worth in a minute");
        assert!(limit.allows(false, at(120)));
        let flows = (0..1_000).filter(|_| limit.allows(false, at(130))).count();
        assert_eq!(flows, 50);
    }

    #[test]
    fn none_a_minute_is_none() {
        let mut limit = RateLimit::new(10, 50, 0);
        assert!(!limit.allows(true, Duration::from_secs(1_000)));
        assert!(limit.allows(false, Duration::from_secs(1_000)));
    }
}
