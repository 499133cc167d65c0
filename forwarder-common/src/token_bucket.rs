//! A token bucket in one word, without a division.
//!
//! This is the "virtual scheduling" form of the generic cell rate algorithm
//! (ITU-T I.371 Annex A): instead of a token count it keeps the time at which
//! the bucket will be full again. An event moves that time one interval ahead;
//! it is refused when the time would lie further ahead than a whole bucket
//! takes to fill. A zeroed state is a full bucket, so a fresh map value works.

/// The limit: how fast tokens come and how many may gather.
///
/// Made once by whoever configures the limit; [`TokenBucket::take`] then only
/// adds and compares.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Time one token takes to come, in nanoseconds.
    pub interval_ns: u64,
    /// Time an empty bucket takes to fill, in nanoseconds.
    pub fill_ns: u64,
}

impl Limit {
    /// A limit of `rate` events per second with bursts of `burst` events.
    ///
    /// A rate or a burst of zero refuses everything. Rates beyond one event per
    /// nanosecond count as one per nanosecond.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        if rate == 0 || burst == 0 {
            return Self {
                interval_ns: u64::MAX,
                fill_ns: 0,
            };
        }
        let interval_ns = 1_000_000_000 / rate as u64;
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        Self {
            interval_ns,
            fill_ns: interval_ns.saturating_mul(burst as u64),
        }
    }
}

/// The state of one bucket: the monotonic time, in nanoseconds, at which it is
/// full again.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket(pub u64);

impl TokenBucket {
    /// Whether more than half of the tokens are gone at the monotonic time `now_ns`: an event that came too often stays
    /// known for half the time that the bucket takes to fill.
    #[inline(always)]
    #[must_use]
    pub const fn is_low(&self, now_ns: u64, limit: Limit) -> bool {
        self.0.saturating_sub(now_ns) > limit.fill_ns / 2
    }

    /// Takes one token at the monotonic time `now_ns`, if there is one.
    ///
    /// Two CPUs that share a state without a lock may let one event too many
    /// through, never refuse for ever.
    #[inline(always)]
    #[must_use]
    pub const fn take(&mut self, now_ns: u64, limit: Limit) -> bool {
        let missing = self
            .0
            .saturating_sub(now_ns)
            .saturating_add(limit.interval_ns);
        let allowed = missing <= limit.fill_ns;
        if allowed {
            self.0 = now_ns.saturating_add(missing);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_fresh_bucket_holds_one_burst() {
        let limit = Limit::per_second(10, 5);
        let mut bucket = TokenBucket::default();
        let taken = (0..100).filter(|_| bucket.take(7 * SECOND, limit)).count();
        assert_eq!(taken, 5);
    }

    #[test]
    fn it_is_low_until_half_of_it_has_come_back() {
        let limit = Limit::per_second(10, 20);
        let mut bucket = TokenBucket::default();
        let low =
            |bucket: &TokenBucket, tenths: u64| bucket.is_low(SECOND + tenths * SECOND / 10, limit);
        for _ in 0..10 {
            assert!(!low(&bucket, 0));
            assert!(bucket.take(SECOND, limit));
        }
        assert!(!low(&bucket, 0));
        while bucket.take(SECOND, limit) {}
        assert!(low(&bucket, 0) && low(&bucket, 9));
        assert!(!low(&bucket, 10));
    }

    #[test]
    fn a_token_comes_each_interval_and_no_earlier() {
        let limit = Limit::per_second(10, 1);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(SECOND, limit));
        assert!(!bucket.take(SECOND + SECOND / 10 - 1, limit));
        assert!(bucket.take(SECOND + SECOND / 10, limit));
    }

    #[test]
    fn a_long_pause_gathers_no_more_than_a_burst() {
        let limit = Limit::per_second(1000, 3);
        let mut bucket = TokenBucket::default();
        while bucket.take(SECOND, limit) {}
        let taken = (0..100)
            .filter(|_| bucket.take(3600 * SECOND, limit))
            .count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn zero_refuses_everything() {
        for limit in [Limit::per_second(0, 5), Limit::per_second(5, 0)] {
            let mut bucket = TokenBucket::default();
            assert!(!bucket.take(0, limit));
            assert!(!bucket.take(u64::MAX, limit));
        }
    }

    #[test]
    fn the_fastest_rate_is_one_per_nanosecond() {
        let limit = Limit::per_second(u32::MAX, 1);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(5, limit) && !bucket.take(5, limit) && bucket.take(6, limit));
    }

    /// A clock of another CPU that lags a little must not wedge the bucket.
    #[test]
    fn a_lagging_clock_is_harmless() {
        let limit = Limit::per_second(1000, 1);
        let mut bucket = TokenBucket::default();
        assert!(bucket.take(SECOND, limit));
        assert!(!bucket.take(SECOND - 500, limit));
        assert!(bucket.take(SECOND + SECOND / 1000, limit));
    }
}
