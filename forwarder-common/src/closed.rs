//! Connections that have ended, remembered for as long as their cookies live.
//!
//! A cookie says nothing about the connection that it opened having ended: a hello that is sent again, by a network that
//! duplicates or by somebody who recorded it, would open another one without a SYN, and a server would take early data
//! twice (RFC 8446 8). So a connection that a node had accepted is remembered when it ends, until its cookie has ended
//! too; and what still comes of it is told from what belongs to nothing.
//!
//! Sets of four, found by a keyed digest of the connection's ends, so that nobody can aim at one. When a set is full the
//! oldest gives way: 131,072 places hold what ends at a thousand connections a second, and forget the oldest sooner
//! above that. Two processors that write the same set at once may lose one of both.

use crate::abi::{Closed, ClosedSet, FlowKey};
use crate::cookie::EPOCH_NS;
use crate::expiry::elapsed_ms;
use crate::siphash::SipHash24;

/// How many sets there are, a power of two.
pub const SETS: u32 = 1 << 15;
/// How many connections one holds.
pub const WAYS: usize = 4;
/// How long one is remembered: two epochs, the longest that a cookie lives.
pub const KEPT_MS: u32 = (2 * EPOCH_NS / 1_000_000) as u32;
/// The bit of [`Closed::digest`] that says how it ended.
const FINISHED: u64 = 1;

/// How a connection ended. An enumeration without payload: what an `Option` leaves unset the verifier will not see read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// Not lately, as far as is known.
    Unknown,
    /// Both ends had closed it. They may have lost each other's last acknowledgement, and nothing else.
    Finished,
    /// By a reset, by silence or by order.
    Cut,
}

/// The digest of a connection's ends. The low bit is zero.
#[must_use]
#[inline(always)]
pub const fn digest(secret: [u64; 2], key: &FlowKey) -> u64 {
    let [a, b, c, d] = key.client;
    let hash = SipHash24::new(secret)
        .word((a as u64) << 32 | b as u64)
        .word((c as u64) << 32 | d as u64);
    hash.finish((key.port_be as u64) << 16 | key.vip as u64, 20) & !FINISHED
}

/// The set that a digest belongs to.
#[must_use]
#[inline(always)]
pub const fn set_of(digest: u64) -> u32 {
    (digest >> 32) as u32 & (SETS - 1)
}

impl Closed {
    /// A connection that ended at `now_ms`: by FINs of both ends, or otherwise.
    #[must_use]
    #[inline(always)]
    pub const fn new(digest: u64, entrance_isn: u32, finished: bool, now_ms: u32) -> Self {
        Self {
            digest: digest | finished as u64,
            entrance_isn,
            closed_ms: now_ms,
        }
    }

    #[inline(always)]
    const fn how(&self) -> Ended {
        if self.digest & FINISHED != 0 {
            Ended::Finished
        } else {
            Ended::Cut
        }
    }

    #[inline(always)]
    const fn is_of(&self, digest: u64, now_ms: u32) -> bool {
        self.digest & !FINISHED == digest && elapsed_ms(self.closed_ms, now_ms) < KEPT_MS
    }
}

impl ClosedSet {
    /// What is known of the connection with these ends that ended last.
    #[inline(always)]
    pub fn last(&self, digest: u64, now_ms: u32) -> Ended {
        let (mut last, mut least) = (Ended::Unknown, u32::MAX);
        for way in &self.ways {
            let age = elapsed_ms(way.closed_ms, now_ms);
            if way.is_of(digest, now_ms) && age <= least {
                (last, least) = (way.how(), age);
            }
        }
        last
    }

    /// What is known of the connection with these ends and this cookie.
    #[inline(always)]
    pub fn of_cookie(&self, digest: u64, entrance_isn: u32, now_ms: u32) -> Ended {
        let mut found = Ended::Unknown;
        for way in &self.ways {
            if way.entrance_isn == entrance_isn && way.is_of(digest, now_ms) {
                found = way.how();
            }
        }
        found
    }

    /// The place for another one: that of the oldest.
    #[must_use]
    #[inline(always)]
    pub fn place(&self, now_ms: u32) -> u32 {
        let (mut place, mut oldest) = (0, 0);
        for (at, way) in (0_u32..).zip(&self.ways) {
            // None ever stood there, or it stood there before the clock wrapped.
            let age = if way.digest == 0 {
                u32::MAX
            } else {
                elapsed_ms(way.closed_ms, now_ms)
            };
            if age > oldest {
                (place, oldest) = (at, age);
            }
        }
        place
    }

    /// Enters one.
    pub fn enter(&mut self, closed: Closed) {
        let place = self.place(closed.closed_ms) as usize;
        if let Some(way) = self.ways.get_mut(place) {
            *way = closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::address_v4;

    const SECRET: [u64; 2] = [7, 9];
    const EMPTY: ClosedSet = ClosedSet {
        ways: [Closed {
            digest: 0,
            entrance_isn: 0,
            closed_ms: 0,
        }; WAYS],
    };

    fn key(port: u16) -> FlowKey {
        FlowKey {
            client: address_v4([198, 51, 100, 4]),
            port_be: port.to_be(),
            vip: 3,
        }
    }

    #[test]
    fn one_is_remembered_for_its_cookies_life() {
        let digest = digest(SECRET, &key(1));
        for start in [0, 1, 5_000, u32::MAX - 5_000] {
            let mut set = EMPTY;
            assert_eq!(set.last(digest, start), Ended::Unknown);
            set.enter(Closed::new(digest, 77, true, start));
            for (after, there) in [
                (0, true),
                (127_999, true),
                (128_000, false),
                (200_000, false),
            ] {
                let now = start.wrapping_add(after);
                let how = if there {
                    Ended::Finished
                } else {
                    Ended::Unknown
                };
                assert_eq!(set.last(digest, now), how, "{start} {after}");
                assert_eq!(set.of_cookie(digest, 77, now), how);
                assert_eq!(set.of_cookie(digest, 78, now), Ended::Unknown);
                assert_eq!(set.last(digest ^ 2, now), Ended::Unknown);
            }
        }
    }

    #[test]
    fn each_of_several_with_the_same_ends_is_told_apart() {
        let digest = digest(SECRET, &key(1));
        let mut set = EMPTY;
        for n in 0..4_u32 {
            set.enter(Closed::new(digest, n, n % 2 == 0, 1_000 * n));
        }
        let how = [Ended::Finished, Ended::Cut, Ended::Finished, Ended::Cut];
        for (n, how) in how.into_iter().enumerate() {
            assert_eq!(set.of_cookie(digest, n as u32, 5_000), how);
        }
        assert_eq!(set.last(digest, 5_000), Ended::Cut);
        set.enter(Closed::new(digest, 4, true, 5_000));
        let oldest = set.of_cookie(digest, 0, 5_000);
        assert_eq!(oldest, Ended::Unknown, "it gave way");
        assert!((1..5).all(|n| set.of_cookie(digest, n, 5_000) != Ended::Unknown));
        assert_eq!(set.last(digest, 5_000), Ended::Finished);
    }

    #[test]
    fn other_ends_have_other_digests() {
        let own = digest(SECRET, &key(1));
        let mut client = key(1);
        client.client = address_v4([198, 51, 100, 5]);
        let vip = FlowKey { vip: 4, ..key(1) };
        for other in [key(2), client, vip] {
            assert_ne!(digest(SECRET, &other), own);
        }
        assert_ne!(digest([7, 10], &key(1)), own);
        let sets: std::collections::HashSet<u32> = (0..1_000)
            .map(|port| set_of(digest(SECRET, &key(port))))
            .collect();
        assert!(sets.len() > 950 && sets.iter().all(|set| *set < SETS));
    }
}
