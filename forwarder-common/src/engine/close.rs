//! The end of a flow: its entries go, its source port is free again, and an event says so.

use super::counters::add;
use super::store::Store;
use super::{buffer, closed, reverse};
use crate::abi::{Flow, FlowKey, close_reason, state};
use crate::flow::Outcome;

/// Removes a flow. Two processors may want to: whoever removes the entry does the rest.
#[inline(always)]
pub fn remove<S: Store>(store: S, key: &FlowKey, flow: &S::Flow, reason: u32) {
    // Another processor may have removed it, and others may have taken its place or its key: what is copied is what is
    // found under the key, where this one found it. Nothing that could be compared lies between the look and the removal.
    let Some(present) = store.flow(key) else {
        return;
    };
    if !store.is_same_flow(&present, flow) {
        return;
    }
    // Copied at once, for the place of a removed entry may be another flow's.
    let last: Flow = *present;
    let now = store.now_ns();
    // First: a hello that is sent again finds the one or the other.
    closed::remember(store, key, &last, reason, now);
    if !store.remove_flow(key) {
        return;
    }
    let target = u32::from(last.path);
    let number = u32::from(last.node);
    if !last.is_transparent() {
        store.push_port(u16::from_be(last.source_port_be));
    } else if let Some(node) = store.node(number) {
        reverse::leave(store, key, number, &node);
    }
    match reason {
        close_reason::FINISHED => add!(store.target_stats(target), closed += 1),
        close_reason::NO_NODE => add!(store.target_stats(target), failed += 1),
        _ => add!(store.target_stats(target), reset += 1),
    }
    store.report_closed(key, &last, reason, now);
}

/// Ends a flow if a segment that was handed on has ended it; `reset` is the reason if that was a reset.
#[inline(always)]
pub fn follow<S: Store>(store: S, key: &FlowKey, flow: &mut S::Flow, outcome: Outcome, reset: u32) {
    let reason = match outcome {
        Outcome::Open => {
            if !flow.is_closing() {
                return;
            }
            // The last two acknowledgements may pass at once. Where the barrier is none, the sweeper ends the flow.
            S::barrier(&mut **flow);
            if !flow.is_closed() {
                return;
            }
            close_reason::FINISHED
        }
        Outcome::Finished => close_reason::FINISHED,
        Outcome::Reset => reset,
    };
    remove_with_hello(store, key, flow, reason);
}

/// As [`remove`], for a flow whose hello may still be kept, by a caller that does not hold it.
#[inline(always)]
pub fn remove_with_hello<S: Store>(store: S, key: &FlowKey, flow: &S::Flow, reason: u32) {
    // Where another processor holds it, the sweeper frees it, or the client's next segment.
    if flow.state != state::SPLICED
        && let Ok(held) = buffer::find(store, key)
    {
        buffer::release(store, key, held);
    }
    remove(store, key, flow, reason);
}
