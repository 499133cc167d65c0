//! Numbers whose bounds the verifier sees, and memory that is indexed by them.
//!
//! LLVM removes a mask or a comparison whose result it already knows. The verifier, which sees a number come back from
//! memory, does not know it. So a bound is a type: only [`Bounds`] makes one, in the kernel by inline assembly, and only
//! such a number reaches memory.

use core::hint;
use core::sync::atomic::{Ordering, compiler_fence};

/// A number in `0..=MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtMost<const MAX: i32>(u64);

/// A number in `1..=MASK + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MASK: i32>(u64);

impl AtMost<0> {
    /// Nothing.
    pub const ZERO: Self = Self(0);
}

impl<const MAX: i32> AtMost<MAX> {
    /// `value`, or `MAX` if that is less.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(if value < MAX as u64 {
            value
        } else {
            MAX as u64
        })
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const MASK: i32> Count<MASK> {
    /// `value`, or the closest number that is allowed.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        let most = MASK as u64 + 1;
        Self(if value == 0 {
            1
        } else if value < most {
            value
        } else {
            most
        })
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Bounds and barriers. What is provided here is plain Rust, for the host; the kernel programs do the same in inline
/// assembly, which is opaque to LLVM and plain to the verifier.
pub trait Bounds {
    /// `value & MASK`.
    #[inline(always)]
    #[must_use]
    fn mask<const MASK: i32>(value: u64) -> AtMost<MASK> {
        AtMost::new(value & MASK as u64)
    }

    /// `value` where it is at most `MAX`, else `MAX`.
    #[inline(always)]
    #[must_use]
    fn at_most<const MAX: i32>(value: u64) -> AtMost<MAX> {
        AtMost::new(value)
    }

    /// `value` in `1..=MASK + 1` (`MASK` one less than a power of two), in a form that verifiers before 6.8 understand:
    /// they do not raise the minimum on `!= 0`.
    #[inline(always)]
    #[must_use]
    fn positive<const MASK: i32>(value: u64) -> Count<MASK> {
        Count::new((value.wrapping_sub(1) & MASK as u64) + 1)
    }

    /// The same number, of which the optimiser no longer knows what it is, though the verifier does. A loop whose counter
    /// goes through this is not unrolled.
    #[inline(always)]
    #[must_use]
    fn black_box(value: u32) -> u32 {
        hint::black_box(value)
    }

    /// Makes the optimiser write back and forget what it holds of a value of the store. A loop whose state is all in such
    /// a value then has one verifier state a round, whatever path the round took.
    #[inline(always)]
    fn clobber<T>(value: &mut T) {
        hint::black_box(value);
    }

    /// What was written before is visible before anything is read after this. The first word of `value` is written by
    /// nobody meanwhile but by atomic additions.
    #[inline(always)]
    fn barrier<T>(_value: &mut T) {
        compiler_fence(Ordering::SeqCst);
    }

    /// `from[BASE + at]`.
    #[inline(always)]
    #[must_use]
    fn get<T: Copy + Default, const BASE: usize, const MAX: i32, const N: usize>(
        from: &[T; N],
        at: AtMost<MAX>,
    ) -> T {
        const { assert!(BASE + (MAX as usize) < N) };
        from.get(BASE + at.get() as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Four bytes from `from[BASE + at]` on, the first in the highest place.
    #[inline(always)]
    #[must_use]
    fn word<const BASE: usize, const MAX: i32, const N: usize>(
        from: &[u8; N],
        at: AtMost<MAX>,
    ) -> u32 {
        const { assert!(BASE + (MAX as usize) + 3 < N) };
        let at = BASE + at.get() as usize;
        from.get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// `to[at] = value`.
    #[inline(always)]
    fn put<T, const MAX: i32, const N: usize>(to: &mut [T; N], at: AtMost<MAX>, value: T) {
        const { assert!((MAX as usize) < N) };
        if let Some(place) = to.get_mut(at.get() as usize) {
            *place = value;
        }
    }

    /// Adds one to `to[at]`.
    #[inline(always)]
    fn increment<const MAX: i32, const N: usize>(to: &mut [u64; N], at: AtMost<MAX>) {
        const { assert!((MAX as usize) < N) };
        if let Some(place) = to.get_mut(at.get() as usize) {
            *place = place.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;
    impl Bounds for Plain {}

    #[test]
    fn bounds_hold_for_any_number() {
        for value in [
            0,
            1,
            2,
            39,
            40,
            41,
            63,
            64,
            65,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            assert!(Plain::mask::<0x3f>(value).get() <= 0x3f);
            assert!(Plain::at_most::<40>(value).get() <= 40);
            assert!((1..=64).contains(&Plain::positive::<0x3f>(value).get()));
            assert!((1..=64).contains(&Count::<0x3f>::new(value).get()));
        }
        for value in 1..=64 {
            assert_eq!(Plain::positive::<0x3f>(value).get(), value);
        }
        for (value, closest) in [(0, 1), (1, 1), (5, 5), (64, 64), (65, 64)] {
            assert_eq!(Count::<0x3f>::new(value).get(), closest);
        }
    }

    #[test]
    fn memory_is_read_and_written_where_the_number_says() {
        let mut bytes = [0_u8, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(Plain::get::<_, 2, 3, 8>(&bytes, Plain::at_most::<3>(9)), 5);
        assert_eq!(
            Plain::word::<1, 3, 8>(&bytes, Plain::at_most::<3>(2)),
            0x0304_0506
        );
        Plain::put(&mut bytes, Plain::mask::<7>(12), 40);
        assert_eq!(bytes[4], 40);
        let mut counts = [0_u64; 2];
        Plain::increment(&mut counts, Plain::mask::<1>(3));
        assert_eq!(counts, [0, 1]);
    }
}
