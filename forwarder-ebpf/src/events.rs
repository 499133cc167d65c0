//! The event ring.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use forwarder_common::abi::{Event, Flow, FlowKey, Hello, NONE, event_kind, events, tally};

use crate::maps::{EVENT, EVENTS, SETTINGS};
use crate::{clock, count};

#[inline(always)]
fn wanted(kind: u32) -> bool {
    SETTINGS
        .get(0)
        .is_some_and(|settings| settings.events & kind != 0)
}

/// This CPU's event, with what all kinds have.
#[inline(always)]
fn start(kind: u32, reason: u32, key: &FlowKey, now_ns: u64) -> Option<*mut Event> {
    let event = EVENT.get_ptr_mut(0)?;
    // SAFETY: this CPU's.
    unsafe {
        (*event).kind = kind;
        (*event).reason = reason;
        (*event).time_ns = now_ns;
        (*event).flow = *key;
        (*event).name_id = NONE;
        (*event).path = NONE;
        (*event).duration = 0;
        (*event).hello_ms = 0;
        (*event).name_len = 0;
        (*event).up_bytes = 0;
        (*event).down_bytes = 0;
        (*event).hello_segments = 0;
        (*event).syns = 0;
        (*event).unique_id = 0;
    }
    Some(event)
}

#[inline(always)]
fn hello_part(event: *mut Event, hello: *const Hello) {
    // SAFETY: this CPU's event and a held hello.
    unsafe {
        (*event).name_id = (*hello).name;
        (*event).hello_ms = (*hello).touched_ms.wrapping_sub((*hello).started_ms);
        (*event).hello_segments = (*hello).segments;
        (*event).syns = (*hello).syns;
        (*event).name_len = (*hello).reader.name_len();
        let from = (&raw const (*hello).server_name).cast::<u32>();
        let to = (&raw mut (*event).name).cast::<u32>();
        for i in 0..64 {
            core::ptr::write_volatile(to.add(i), core::ptr::read_volatile(from.add(i)));
        }
    }
}

/// A reader that is woken for every event costs more than the connections it is told of. It looks by itself
/// often enough, and is woken when the ring fills faster.
#[inline(always)]
fn send(event: *mut Event) {
    let flags = if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > events::WAKE_BYTES {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: this CPU's event, whole.
    if EVENTS
        .output::<Event>(unsafe { &*event }, u64::from(flags))
        .is_err()
    {
        count::tally(tally::EVENTS_LOST);
    }
}

/// A node accepted the flow, `connect_us` after it was asked.
#[inline(always)]
pub fn opened(key: &FlowKey, flow: &Flow, hello: *const Hello, connect_us: u32, now_ns: u64) {
    if !wanted(events::FLOWS) {
        return;
    }
    let Some(event) = start(event_kind::OPENED, 0, key, now_ns) else {
        return;
    };
    hello_part(event, hello);
    // SAFETY: this CPU's event, and a held hello.
    unsafe {
        (*event).path = u32::from(flow.path);
        (*event).duration = connect_us;
        (*event).up_bytes = u64::from((*hello).stored);
        (*event).unique_id = flow.unique_id();
    }
    send(event);
}

/// The flow is over.
#[inline(always)]
pub fn closed(key: &FlowKey, flow: &Flow, reason: u32, now_ns: u64) {
    if !wanted(events::FLOWS) {
        return;
    }
    let Some(event) = start(event_kind::CLOSED, reason, key, now_ns) else {
        return;
    };
    // SAFETY: this CPU's event.
    unsafe {
        (*event).name_id = flow.name;
        (*event).path = u32::from(flow.path);
        (*event).duration = clock::ms(now_ns).wrapping_sub(flow.opened_ms);
        (*event).unique_id = flow.unique_id();
        // Acknowledged numbers count SYN and, of an end by FIN, the FIN; they are not bytes.
        let up = flow
            .node_acked
            .saturating_sub(1 + u64::from(flow.client_marks & 1));
        let down = flow
            .client_acked
            .saturating_sub(1 + u64::from(flow.node_marks & 1));
        (*event).up_bytes = up;
        (*event).down_bytes = down;
    }
    send(event);
}

/// A connection was refused.
#[inline(always)]
pub fn refused(key: &FlowKey, reason: u32, hello: *const Hello, now_ns: u64) {
    if !wanted(events::REFUSALS) {
        return;
    }
    let Some(event) = start(event_kind::REFUSED, reason, key, now_ns) else {
        return;
    };
    hello_part(event, hello);
    // SAFETY: this CPU's event, and a held hello.
    unsafe {
        (*event).name_id = NONE;
        (*event).up_bytes = u64::from((*hello).stored);
    }
    send(event);
}
