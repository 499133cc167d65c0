//! The clock of the data path: `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` reads it.

use std::time::Duration;

/// Time since boot, suspend not counted.
pub fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Milliseconds of that clock modulo 2^32, as flows hold them.
pub fn monotonic_ms() -> u32 {
    monotonic().as_millis() as u32
}

pub use forwarder_common::expiry::elapsed_ms;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_wraps() {
        assert_eq!(elapsed_ms(100, 350), 250);
        assert_eq!(elapsed_ms(u32::MAX - 9, 10), 20);
        assert_eq!(elapsed_ms(105, 100), 0, "seen by another CPU in between");
        let days = 30 * 24 * 3_600 * 1_000;
        assert_eq!(
            elapsed_ms(100, 100 + days),
            days,
            "the longest `idle_timeout`"
        );
    }

    #[test]
    fn the_clock_runs() {
        let then = monotonic();
        assert!(monotonic() >= then);
    }
}
