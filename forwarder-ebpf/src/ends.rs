//! The end of a flow: its entries go, its source port is free again, and it is told.

use forwarder_common::abi::{Flow, FlowKey, close_reason, state};
use forwarder_common::flow::Outcome;

use crate::bounds::{barrier, forget};
use crate::maps::{FLOWS, NODES, SOURCE_PORTS};
use crate::{buffer, clock, closed, count, events, node};

/// Removes a flow. Two CPUs may want to: whoever removes the entry does the rest.
#[inline(always)]
pub fn remove(key: &FlowKey, flow: &Flow, reason: u32) {
    // Another CPU may have removed it, and others may have taken its place or its key: what is copied is what is found
    // under the key, where this CPU found it. Between the look and the removal nothing is that could be compared.
    let Some(present) = FLOWS.get_ptr(key) else {
        return;
    };
    // Or LLVM drops the test for null as part of the next one, and verifiers before 6.8 do not know that.
    forget(present.cast_mut());
    if !core::ptr::eq(present, flow) {
        return;
    }
    // SAFETY: a map value; copied at once, for the slot of a removed entry may be another flow's.
    let last = unsafe { *present };
    let now = clock::now_ns();
    // First: a hello that is sent again finds the one or the other.
    closed::remember(key, &last, reason, now);
    if FLOWS.remove(key).is_err() {
        return;
    }
    let path = u32::from(last.path);
    let number = u32::from(last.node);
    if !last.is_transparent() {
        let _ = SOURCE_PORTS.push(u32::from(u16::from_be(last.source_port_be)), 0);
    } else if let Some(target) = NODES.get(number) {
        node::leave(key, number, target);
    }
    match reason {
        close_reason::FINISHED => count::add!(PATH_STATS, path, closed, 1),
        close_reason::NO_NODE => count::add!(PATH_STATS, path, failed, 1),
        _ => count::add!(PATH_STATS, path, reset, 1),
    }
    events::closed(key, &last, reason, now);
}

/// Ends a flow if a segment that was handed on has ended it; `reset` is the reason if that was a reset.
#[inline(always)]
pub fn follow(key: &FlowKey, flow: &mut Flow, outcome: Outcome, reset: u32) {
    let reason = match outcome {
        Outcome::Open => {
            if !flow.is_closing() {
                return;
            }
            // The last two acknowledgements may pass at once. Where the barrier is none, the sweeper ends the flow.
            barrier(flow);
            if !flow.is_closed() {
                return;
            }
            close_reason::FINISHED
        }
        Outcome::Finished => close_reason::FINISHED,
        Outcome::Reset => reset,
    };
    remove_with_hello(key, flow, reason);
}

/// As [`remove`], for a flow whose hello may still be kept, by a caller that does not hold it.
#[inline(always)]
pub fn remove_with_hello(key: &FlowKey, flow: &Flow, reason: u32) {
    // Where another CPU holds it, the sweeper frees it, or the client's next segment.
    if flow.state != state::SPLICED
        && let Ok(held) = buffer::find(key)
    {
        buffer::release(key, held);
    }
    remove(key, flow, reason);
}
