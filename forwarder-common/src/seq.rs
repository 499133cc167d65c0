//! TCP sequence numbers: 32-bit values on a circle.
//!
//! Everything here wraps and nothing panics. Comparison is the serial-number
//! arithmetic of RFC 1982 as TCP uses it (RFC 9293 section 3.4): of two numbers
//! less than 2^31 apart, the one that reaches the other by going forward is
//! *before* it. Two numbers exactly 2^31 apart have no order (RFC 1982 leaves
//! it undefined); here each is then before the other, and callers that care
//! bound the distance first with [`SeqNumber::in_window`].

use core::ops::{Add, AddAssign, Sub, SubAssign};

/// A sequence or acknowledgement number, in host byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number in a TCP header's sequence or acknowledgement field.
    #[inline(always)]
    pub const fn from_be_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }

    /// The bytes of a TCP header's sequence or acknowledgement field.
    #[inline(always)]
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Signed distance from `other` to `self`, in octets: positive when `self`
    /// is after `other`.
    #[inline(always)]
    pub const fn offset_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` comes strictly before `other`.
    #[inline(always)]
    pub const fn before(self, other: Self) -> bool {
        self.offset_from(other) < 0
    }

    /// Whether `self` comes strictly after `other`.
    #[inline(always)]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether `self` is one of the `len` numbers that begin at `start`.
    ///
    /// An empty window contains nothing, not even its own start.
    #[inline(always)]
    pub const fn in_window(self, start: Self, len: u32) -> bool {
        self.0.wrapping_sub(start.0) < len
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    #[inline(always)]
    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl AddAssign<u32> for SeqNumber {
    #[inline(always)]
    fn add_assign(&mut self, octets: u32) {
        *self = *self + octets;
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;

    #[inline(always)]
    fn sub(self, octets: u32) -> Self {
        Self(self.0.wrapping_sub(octets))
    }
}

impl SubAssign<u32> for SeqNumber {
    #[inline(always)]
    fn sub_assign(&mut self, octets: u32) {
        *self = *self - octets;
    }
}

/// Moves the 64-bit stream position `total` forward to the acknowledgement
/// number `ack`, and returns the new position.
///
/// The low 32 bits of `total` are the last number taken into account, so a
/// stream starts with `total = first sequence number`, and the octets
/// acknowledged since are `total - first`. An `ack` that repeats, that lies
/// behind, or that would leap 2^31 or more leaves `total` as it is.
#[inline(always)]
pub const fn extend(total: u64, ack: SeqNumber) -> u64 {
    let forward = ack.0.wrapping_sub(total as u32);
    if forward < 1 << 31 {
        total.wrapping_add(forward as u64)
    } else {
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_wraps_at_the_top() {
        assert_eq!(SeqNumber(u32::MAX) + 1, SeqNumber(0));
        assert_eq!(SeqNumber(0) - 1, SeqNumber(u32::MAX));
        let mut seq = SeqNumber(0xffff_fff0);
        seq += 0x20;
        assert_eq!(seq, SeqNumber(0x10));
        seq -= 0x20;
        assert_eq!(seq, SeqNumber(0xffff_fff0));
    }

    #[test]
    fn order_holds_across_the_wrap() {
        let (old, new) = (SeqNumber(0xffff_ff00), SeqNumber(0x100));
        assert!(old.before(new) && new.after(old));
        assert!(!new.before(old) && !old.after(new));
        assert_eq!(new.offset_from(old), 0x200);
        assert_eq!(old.offset_from(new), -0x200);
        assert!(!old.before(old) && !old.after(old));
    }

    #[test]
    fn window_has_an_inclusive_start_and_an_exclusive_end() {
        let start = SeqNumber(0xffff_fffe);
        assert!(start.in_window(start, 4));
        assert!(SeqNumber(1).in_window(start, 4));
        assert!(!SeqNumber(2).in_window(start, 4));
        assert!(!SeqNumber(0xffff_fffd).in_window(start, 4));
        assert!(!start.in_window(start, 0));
    }

    #[test]
    fn running_count_survives_many_wraps() {
        let first = 0xffff_0000u32;
        let mut total = u64::from(first);
        let mut ack = SeqNumber(first);
        for _ in 0..10_000 {
            ack += 0x7fff_fff0;
            total = extend(total, ack);
        }
        assert_eq!(total - u64::from(first), 10_000 * 0x7fff_fff0);
    }

    #[test]
    fn running_count_ignores_old_and_absurd_numbers() {
        let total = 0x5_0000_1000u64;
        assert_eq!(extend(total, SeqNumber(0x1000)), total);
        assert_eq!(extend(total, SeqNumber(0x0fff)), total);
        assert_eq!(extend(total, SeqNumber(0x8000_1000)), total);
        assert_eq!(extend(total, SeqNumber(0x8000_0fff)), total + 0x7fff_ffff);
    }

    #[test]
    fn wire_order_is_big_endian() {
        assert_eq!(
            SeqNumber::from_be_bytes([1, 2, 3, 4]),
            SeqNumber(0x0102_0304)
        );
        assert_eq!(SeqNumber(0x0102_0304).to_be_bytes(), [1, 2, 3, 4]);
    }
}
