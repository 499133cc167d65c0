//! Time, as the pure code wants it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// Milliseconds, modulo 2^32.
#[inline(always)]
pub const fn ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

/// Microseconds, modulo 2^32.
#[inline(always)]
pub const fn us(now_ns: u64) -> u32 {
    (now_ns / 1_000) as u32
}
