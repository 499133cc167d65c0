//! What a node offered in its SYN-ACK: what each flow keeps of it, and what is learnt of it for the clients that come
//! next.

use crate::tcp::NO_SCALE;

/// What every host takes in one segment: RFC 9293 3.7.1 for IPv4, the least MTU of IPv6 (RFC 8200 5) for IPv6.
pub const LEAST_MSS: [u32; 2] = [536, 1_220];
/// The least that a hello is cut to; no stack offers less.
const LEAST_PIECE: u32 = 64;
/// Bits of [`NodeOptions`] that hold the MSS.
const MSS_BITS: u16 = 0xfff;

/// Bytes of IP and TCP header before the data of a full segment.
#[must_use]
#[inline(always)]
pub const fn headers(v6: bool) -> u32 {
    if v6 { 60 } else { 40 }
}

/// The longest piece of a hello for a node that offered this MSS (0: none).
#[must_use]
#[inline(always)]
pub const fn piece(offered: u32, v6: bool) -> u32 {
    let [v4_least, v6_least] = LEAST_MSS;
    if offered == 0 {
        if v6 { v6_least } else { v4_least }
    } else if offered < LEAST_PIECE {
        LEAST_PIECE
    } else {
        offered
    }
}

/// Window scale and MSS of a flow's node in sixteen bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct NodeOptions(pub u16);

impl NodeOptions {
    /// No window scale, and no bound for segments.
    pub const NONE: Self = Self((NO_SCALE as u16) << 12);

    /// Of a node that offered this window scale ([`NO_SCALE`]: none, or it was not asked for one) and this MSS (0:
    /// none). A client cannot be held to less than every host takes, nor is it to more than 4,095 bytes.
    #[inline(always)]
    pub const fn new(scale: u32, mss: u32, v6: bool) -> Self {
        let [v4_least, v6_least] = LEAST_MSS;
        let least = if v6 { v6_least } else { v4_least };
        let mss = if mss < least { least } else { mss };
        let mss = if mss > MSS_BITS as u32 { 0 } else { mss };
        Self(((scale & 15) as u16) << 12 | mss as u16)
    }

    /// The node's window scale, or [`NO_SCALE`].
    #[must_use]
    #[inline(always)]
    pub const fn scale(self) -> u32 {
        (self.0 >> 12) as u32
    }

    /// The largest segment that a client may send; 0 if any will do.
    #[must_use]
    #[inline(always)]
    pub const fn mss(self) -> u32 {
        (self.0 & MSS_BITS) as u32
    }

    /// Whether a segment of so many bytes is too big for the node.
    #[must_use]
    #[inline(always)]
    pub const fn is_too_big(self, bytes: u32) -> bool {
        bytes > self.mss() && self.mss() != 0
    }
}

/// The smallest MSS that the nodes behind a claimed address offered lately, as one word of a map that any processor
/// may write: a lost write is made good by the next SYN-ACK.
///
/// Lately is this epoch and the one before, so what is no longer offered is forgotten after five to ten minutes: a
/// tunnel that was narrow for an hour does not make segments small for ever.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastMss(pub u64);

/// log2 of an epoch, ns: about 4.6 minutes.
const EPOCH_SHIFT: u32 = 38;

impl LeastMss {
    const fn epoch(now_ns: u64) -> u32 {
        (now_ns >> EPOCH_SHIFT) as u32
    }

    /// `(epoch, least of it, least of the one before)`; 0 where nothing was offered.
    const fn parts(self) -> (u32, u16, u16) {
        ((self.0 >> 32) as u32, (self.0 >> 16) as u16, self.0 as u16)
    }

    /// The two epochs that count at `now_ns`.
    #[inline(always)]
    const fn lately(self, now_ns: u64) -> (u16, u16) {
        let (epoch, least, before) = self.parts();
        match Self::epoch(now_ns).wrapping_sub(epoch) {
            0 => (least, before),
            1 => (0, least),
            _ => (0, 0),
        }
    }

    /// With one more offer. The same word if that says nothing new.
    #[must_use]
    #[inline(always)]
    pub const fn with(self, offered: u32, now_ns: u64) -> Self {
        let (least, before) = self.lately(now_ns);
        let offered = if offered > u16::MAX as u32 {
            u16::MAX
        } else {
            offered as u16
        };
        let least = smaller(least, offered);
        Self((Self::epoch(now_ns) as u64) << 32 | (least as u64) << 16 | before as u64)
    }

    /// What clients are told, where `mss` is what the interfaces allow: never less than every host takes.
    #[must_use]
    #[inline(always)]
    pub const fn advertised(self, mss: u16, now_ns: u64) -> u16 {
        let [least, _] = LEAST_MSS;
        let (now, before) = self.lately(now_ns);
        let learnt = smaller(now, before);
        if learnt == 0 || learnt >= mss {
            mss
        } else if learnt as u32 >= least {
            learnt
        } else if (mss as u32) < least {
            mss
        } else {
            least as u16
        }
    }
}

/// The smaller of two, where 0 is none.
const fn smaller(a: u16, b: u16) -> u16 {
    if a == 0 || b != 0 && b < a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1 << EPOCH_SHIFT;

    #[test]
    fn both_fit_a_flow() {
        assert_eq!(
            (NodeOptions::NONE.scale(), NodeOptions::NONE.mss()),
            (NO_SCALE, 0)
        );
        for v6 in [false, true] {
            let least = LEAST_MSS[usize::from(v6)];
            for scale in 0..=NO_SCALE {
                for mss in [
                    0, 1, 535, 536, 1_190, 1_219, 1_220, 1_380, 4_095, 4_096, 65_535,
                ] {
                    let options = NodeOptions::new(scale, mss, v6);
                    assert_eq!(options.scale(), scale);
                    let expected = if mss > 4_095 { 0 } else { mss.max(least) };
                    assert_eq!(options.mss(), expected, "{mss}");
                    assert!(!options.is_too_big(expected.max(1)) || expected == 0);
                    assert_eq!(options.is_too_big(expected + 1), expected != 0);
                    assert!(!NodeOptions::NONE.is_too_big(u32::MAX));
                }
            }
        }
    }

    #[test]
    fn pieces() {
        assert_eq!((piece(0, false), piece(0, true)), (536, 1_220));
        assert_eq!((piece(1, false), piece(1_190, true)), (64, 1_190));
    }

    #[test]
    fn the_smallest_counts_and_is_forgotten() {
        let mut learnt = LeastMss::default();
        let start = 1_000 * EPOCH;
        assert_eq!(learnt.advertised(1_380, start), 1_380);
        for offered in [1_460, 1_300, 1_190, 1_200] {
            learnt = learnt.with(offered, start);
        }
        assert_eq!(learnt.with(1_250, start + 1), learnt, "nothing new");
        assert_eq!(learnt.advertised(1_380, start), 1_190);
        assert_eq!(learnt.advertised(1_100, start), 1_100);
        // In the next epoch both count.
        learnt = learnt.with(1_250, start + EPOCH);
        assert_eq!(learnt.advertised(1_380, start + EPOCH), 1_190);
        learnt = learnt.with(1_280, start + 2 * EPOCH);
        assert_eq!(learnt.advertised(1_380, start + 2 * EPOCH), 1_250);
        assert_eq!(learnt.advertised(1_380, start + 3 * EPOCH), 1_280);
        // Nobody has connected for a while.
        assert_eq!(learnt.advertised(1_380, start + 4 * EPOCH), 1_380);
        assert_eq!(
            learnt.advertised(1_380, start),
            1_380,
            "a clock that went back"
        );
    }

    #[test]
    fn nobody_is_told_less_than_every_host_takes() {
        let learnt = LeastMss::default().with(20, 0);
        assert_eq!(learnt.advertised(1_380, 0), 536);
        assert_eq!(learnt.advertised(500, 0), 500);
        assert_eq!(
            LeastMss::default().with(100_000, 0).advertised(8_960, 0),
            8_960
        );
    }
}
