//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Every word is taken *as loaded from memory*: network bytes, native load
//! order, no byte swap. The one's-complement sum does not care about byte order
//! (RFC 1071 section 2 (B)) as long as all words and the stored result agree.
//! A 32-bit word counts as its two 16-bit halves, because 2^16 is congruent to
//! 1 modulo 2^16 - 1; hence words must start at an even offset of the summed
//! region.
//!
//! Two types keep two numbers apart that are easily mixed up: [`Sum`] is a
//! running sum, [`Stored`] is the complement of one as a header carries it.
//! What the kernel's checksum helpers call a difference is a [`Sum`] folded by
//! [`Sum::fold32`].

use core::ops::{Add, AddAssign};

/// IP protocol number of TCP.
const PROTOCOL_TCP: u16 = 6;

/// A running one's-complement sum.
///
/// The 64-bit accumulator takes 2^32 words before it could overflow, more than
/// any packet has; folding is left to the end. Compare folded values, never the
/// accumulators: many of them stand for one sum.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit word as loaded from memory.
    #[inline(always)]
    pub const fn add_u16_raw(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word as u64))
    }

    /// Adds a 32-bit word as loaded from memory.
    #[inline(always)]
    pub const fn add_u32_raw(self, word: u32) -> Self {
        Self(self.0.wrapping_add(word as u64))
    }

    /// The change that replacing the word `old` by `new` makes to a sum
    /// (RFC 1624 equation 3 without the outer complements).
    #[inline(always)]
    pub const fn diff(old: u32, new: u32) -> Self {
        Self((!old as u64).wrapping_add(new as u64))
    }

    /// The change that replacing the 16-bit word `old` by `new` makes.
    #[inline(always)]
    pub const fn diff_u16(old: u16, new: u16) -> Self {
        Self((!old as u64).wrapping_add(new as u64))
    }

    /// Reduces the sum to 32 bits, the form in which the kernel's helpers take
    /// and return it (`__wsum`).
    #[inline(always)]
    pub const fn fold32(self) -> u32 {
        let once = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        (once as u32).wrapping_add((once >> 32) as u32)
    }

    /// Reduces the sum to 16 bits, without the complement. This is what a
    /// segment with a partial checksum holds of its pseudo-header.
    #[inline(always)]
    pub const fn fold16(self) -> u16 {
        let sum = self.fold32();
        let once = (sum & 0xffff).wrapping_add(sum >> 16);
        (once as u16).wrapping_add((once >> 16) as u16)
    }

    /// The checksum field for a region with this sum, as stored in memory.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold16()
    }

    /// Sums a byte string that starts at an even offset; an odd last byte is
    /// padded with zero. For tests and the daemon: BPF programs let the kernel
    /// sum packet memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<2>();
        let sum = words.iter().fold(Self::ZERO, |sum, word| {
            sum.add_u16_raw(u16::from_ne_bytes(*word))
        });
        match tail {
            [last] => sum.add_u16_raw(u16::from_ne_bytes([*last, 0])),
            _ => sum,
        }
    }

    /// The IPv4 pseudo-header of a TCP segment of `tcp_len` octets, header
    /// included (RFC 9293 section 3.1). Addresses are raw words.
    #[inline(always)]
    pub const fn tcp_pseudo_v4(src: [u32; 1], dst: [u32; 1], tcp_len: u16) -> Self {
        let [src] = src;
        let [dst] = dst;
        Self::ZERO
            .add_u32_raw(src)
            .add_u32_raw(dst)
            .add_u16_raw(PROTOCOL_TCP.to_be())
            .add_u16_raw(tcp_len.to_be())
    }

    /// The IPv6 pseudo-header of a TCP segment of `tcp_len` octets, header
    /// included (RFC 8200 section 8.1). Addresses are raw words.
    #[inline(always)]
    pub const fn tcp_pseudo_v6(src: [u32; 4], dst: [u32; 4], tcp_len: u32) -> Self {
        let [s0, s1, s2, s3] = src;
        let [d0, d1, d2, d3] = dst;
        Self::ZERO
            .add_u32_raw(s0)
            .add_u32_raw(s1)
            .add_u32_raw(s2)
            .add_u32_raw(s3)
            .add_u32_raw(d0)
            .add_u32_raw(d1)
            .add_u32_raw(d2)
            .add_u32_raw(d3)
            .add_u16_raw(PROTOCOL_TCP.to_be())
            .add_u32_raw(tcp_len.to_be())
    }
}

impl Add for Sum {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl AddAssign for Sum {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// A checksum field as a header carries it: the complement of a folded sum, as
/// loaded from memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Stored(pub u16);

impl Stored {
    /// The field after the summed region changed by `diff` (RFC 1624
    /// equation 3). A field that was wrong stays wrong.
    #[inline(always)]
    pub const fn patched(self, diff: Sum) -> Self {
        Self(diff.add_u16_raw(!self.0).checksum())
    }

    /// Whether the field fits a region whose sum, *the field included*, is
    /// `sum`: the sum of a correct region is all ones.
    #[inline(always)]
    pub const fn verifies(sum: Sum) -> bool {
        sum.fold16() == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of RFC 1071 section 3.
    #[test]
    fn rfc1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of_bytes(&bytes).fold16().to_ne_bytes(), [0xdd, 0xf2]);
    }

    /// The worked example of RFC 1624 section 4, where equation 2 of RFC 1141
    /// yields the wrong zero.
    #[test]
    fn rfc1624_example() {
        let diff = Sum::diff_u16(0x5555, 0x3285);
        assert_eq!(Stored(0xdd2f).patched(diff), Stored(0x0000));
    }

    #[test]
    fn odd_tail_is_padded_on_the_right() {
        assert_eq!(
            Sum::of_bytes(&[1, 2, 3]).fold16(),
            Sum::of_bytes(&[1, 2, 3, 0]).fold16()
        );
        assert_ne!(
            Sum::of_bytes(&[1, 2, 3]).fold16(),
            Sum::of_bytes(&[1, 2, 0, 3]).fold16()
        );
    }

    #[test]
    fn folding_carries_out_of_every_width() {
        assert_eq!(Sum(u64::MAX).fold32(), u32::MAX);
        assert_eq!(Sum(0xffff_ffff_0000_0001).fold32(), 1);
        assert_eq!(Sum(0x1_0000_ffff).fold16(), 1);
        assert_eq!(Sum::ZERO.checksum(), 0xffff);
    }
}
