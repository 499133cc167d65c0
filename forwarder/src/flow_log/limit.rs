//! How many lines a second are written. Refusals cost an attacker nothing; lines would cost the entrance.

use std::time::Duration;

use forwarder_common::token_bucket::{Limit, TokenBucket};

/// Two budgets, so that a flood of refused connections does not hide flows.
#[derive(Debug)]
pub struct RateLimit {
    limit: Limit,
    refused: TokenBucket,
    others: TokenBucket,
}

impl RateLimit {
    /// So many lines a second, and so many at once after a calm.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self {
            limit: Limit::per_second(rate, burst),
            refused: TokenBucket::default(),
            others: TokenBucket::default(),
        }
    }

    /// Whether one more may be written; `now` is monotonic.
    pub fn allows(&mut self, refused: bool, now: Duration) -> bool {
        let bucket = match refused {
            true => &mut self.refused,
            false => &mut self.others,
        };
        bucket.take(now.as_nanos() as u64, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_does_not_hide_flows() {
        let mut limit = RateLimit::new(10, 50);
        let at = Duration::from_secs;
        let written = (0..1_000).filter(|_| limit.allows(true, at(100))).count();
        assert_eq!(written, 50);
        assert!(limit.allows(false, at(100)));
        let written = (0..1_000).filter(|_| limit.allows(true, at(101))).count();
        assert_eq!(written, 10);
    }
}
