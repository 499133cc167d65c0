//! Counters. All are per CPU, so an increment is a plain addition.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use forwarder_common::verdict::DropReason;

use crate::maps::{DROPS, TALLIES};

/// Lets other programs and the stack have the packet: `TCX_NEXT`, and for clsact "no verdict".
pub const PASS: i32 = TC_ACT_UNSPEC;

/// Adds to fields of a per-CPU record.
macro_rules! add {
    ($map:ident, $index:expr, $($field:ident, $amount:expr),+) => {
        if let Some(record) = $crate::maps::$map.get_ptr_mut($index) {
            // SAFETY: this CPU's record, and nothing else runs on this CPU meanwhile.
            unsafe { $((*record).$field = (*record).$field.wrapping_add($amount);)+ };
        }
    };
}
pub(crate) use add;

/// Counts a packet as dropped or refused for a reason.
#[inline(always)]
pub fn reason(reason: DropReason) {
    number(reason as u32);
}

/// As [`reason`], for a reason that was handed on as a number.
#[inline(always)]
pub fn number(reason: u32) {
    if let Some(count) = DROPS.get_ptr_mut(reason) {
        // SAFETY: as above.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

/// Counts in a slot of [`forwarder_common::abi::tally`].
#[inline(always)]
pub fn tally(slot: u32) {
    if let Some(count) = TALLIES.get_ptr_mut(slot) {
        // SAFETY: as above.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

/// Counts and drops.
#[inline(always)]
pub fn drop(why: DropReason) -> i32 {
    reason(why);
    TC_ACT_SHOT
}
