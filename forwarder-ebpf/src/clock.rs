//! Time, as the pure code wants it.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
pub use forwarder_common::engine::{ms, us};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// The same as of the last timer tick, at most 10 ms ago, without asking the hardware (Linux 5.11).
#[inline(always)]
pub fn coarse_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_coarse_ns() }
}
