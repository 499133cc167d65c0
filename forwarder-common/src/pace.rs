//! How often the hello is sent to its node again.
//!
//! The node gets all that it has not acknowledged, up to 17 KB, and one byte of the client's asks for it. So it is sent
//! again when the node has acknowledged some of it since, or when the client's timer can have run out: as long after
//! the SYN to the node, which is when the client last sent, as known stacks wait at least (200 ms), and then twice as
//! long each time (RFC 6298 5.5). In the thirty seconds that a flow may wait for its first acknowledgement the hello is
//! sent at most eight times more; a client that follows the RFC never waits for it.

/// How often the time doubles: from then on the hello is sent every 6.4 seconds.
const DOUBLINGS: u32 = 5;

/// When the hello was last sent, and how often. Zeroed, it has not been sent yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Time from which the next interval counts, µs modulo 2^32.
    since_us: u32,
    /// Times it was sent without an acknowledgement that moved on.
    times: u32,
    /// What the node had acknowledged then.
    acked: u32,
}

impl Pace {
    /// It has not been sent yet.
    pub const START: Self = Self {
        since_us: 0,
        times: 0,
        acked: 0,
    };

    /// Whether it is sent at `now_us`, when the node has acknowledged `acked` bytes; that then counts as done. The
    /// last SYN went to the node at `syn_us`, and `least_us` is what clients wait at least.
    #[must_use]
    #[inline(always)]
    pub const fn take(&mut self, now_us: u32, acked: u32, syn_us: u32, least_us: u32) -> bool {
        if self.times == 0 {
            self.since_us = syn_us;
        } else {
            if acked == self.acked
                && now_us.wrapping_sub(self.since_us) < self.interval_us(least_us)
            {
                return false;
            }
            self.since_us = now_us;
        }
        self.times = if acked == self.acked {
            self.times.saturating_add(1)
        } else {
            1
        };
        self.acked = acked;
        true
    }

    const fn interval_us(&self, least_us: u32) -> u32 {
        let doublings = self.times.wrapping_sub(1);
        let doublings = if doublings < DOUBLINGS {
            doublings
        } else {
            DOUBLINGS
        };
        least_us << doublings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u32 = 200_000;

    /// Sent at once, then no more than a few times, however often it is asked for.
    #[test]
    fn who_asks_all_the_time_gets_little() {
        for start in [0, 5, u32::MAX - 400_000] {
            let mut pace = Pace::START;
            assert!(pace.take(start + 30_000, 1, start, LEAST));
            let times: Vec<u32> = (0..30_000_u32)
                .filter(|ms| pace.take(start.wrapping_add(ms * 1_000), 1, start, LEAST))
                .collect();
            assert_eq!(
                times,
                [200, 600, 1_400, 3_000, 6_200, 12_600, 19_000, 25_400]
            );
        }
    }

    /// A client whose time-out is the least that is known, or longer, is never put off.
    #[test]
    fn a_timer_that_doubles_is_always_heeded() {
        for (timeout_ms, way_ms) in [(200, 0), (200, 40), (230, 150), (1_000, 500)] {
            let mut pace = Pace::START;
            assert!(pace.take(way_ms * 1_000, 1, 0, LEAST));
            let (mut at, mut timeout) = (0, timeout_ms);
            while at < 60_000 {
                at += timeout;
                timeout *= 2;
                assert!(pace.take(at * 1_000, 1, 0, LEAST), "{timeout_ms}: at {at}");
            }
        }
    }

    /// What the node acknowledged meanwhile shows that the rest is missing.
    #[test]
    fn progress_asks_for_the_rest() {
        let mut pace = Pace::START;
        assert!(pace.take(10_000, 1, 0, LEAST));
        assert!(!pace.take(20_000, 1, 0, LEAST));
        assert!(pace.take(20_000, 1_201, 0, LEAST));
        assert!(!pace.take(219_000, 1_201, 0, LEAST));
        assert!(pace.take(220_000, 1_201, 0, LEAST));
        assert!(!pace.take(600_000, 1_201, 0, LEAST));
        assert!(pace.take(600_000, 2_401, 0, LEAST));
        assert!(pace.take(800_000, 2_401, 0, LEAST));
    }
}
