//! A client segment while we still owe its node something: the node has not answered the SYN, or has not
//! acknowledged the hello. The client's retransmissions are the only timer there is.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, close_reason, stage, state};
use forwarder_common::flow::Passing;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::buffer::{self, Held, Missing};
use crate::failover::{self, Next};
use crate::maps::{FLOWS, SETTINGS};
use crate::node;
use crate::packet::Packet;
use crate::public::hello::next_held;
use crate::work::Work;
use crate::{answer, clock, count, ends, next};

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(flow) = FLOWS.get_ptr_mut(work.key) else {
        return count::drop(DropReason::Absorbed);
    };
    // SAFETY: a map value; its fields have one writer each.
    let flow = unsafe { &mut *flow };
    // Spliced and not abandoned: the node's acknowledgement came between the entry and this stage.
    let now = clock::ms(clock::now_ns());
    if flow.state == state::SPLICED && work.has(flag::SYN) && flow.is_abandoned(now) {
        ends::remove(&work.key, flow, close_reason::ABANDONED);
        return next(context, stage::SYN);
    }
    let held = match buffer::find(&work.key) {
        Ok(held) => held,
        Err(Missing::Busy) => return count::drop(DropReason::HelloBusy),
        Err(Missing::Absent) => {
            if flow.state != state::CONNECTING {
                return count::drop(DropReason::BeforeNode);
            }
            // Another connection took the buffer over: this one cannot be completed.
            ends::remove(&work.key, flow, close_reason::NO_NODE);
            return reset(packet, work);
        }
    };
    work.slot = held.slot;
    let passing = Passing {
        seq: work.seq,
        ack: work.ack,
        flags: work.flags as u8,
        payload_len: work.payload_len,
    };
    if flow.public_link != work.public_link && flow.is_current(&passing) {
        flow.public_link = work.public_link;
    }
    if flow.state == state::CONNECTING {
        return connecting(packet, work, flow, held);
    }
    if flow.state == state::REPLAYING && work.payload_len > 0 {
        work.replay_at = 0;
        return next_held(context, stage::REPLAY, held);
    }
    buffer::unlock(held.hello);
    count::drop(DropReason::Absorbed)
}

#[inline(always)]
fn connecting(packet: Packet, work: &Work, flow: &mut Flow, held: Held) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    let offset = work.seq.wrapping_sub(hello.client_isn.wrapping_add(1));
    if work.has(flag::RST) && offset <= hello.stored {
        // What it is exact for depends on which acknowledgements of ours arrived.
        buffer::release(&work.key, held);
        ends::remove(&work.key, flow, close_reason::CLIENT_RESET);
        return count::drop(DropReason::Absorbed);
    }
    if work.payload_len == 0 || offset >= hello.stored || work.has(flag::SYN) {
        buffer::unlock(held.hello);
        return count::drop(if work.payload_len == 0 {
            DropReason::Absorbed
        } else {
            DropReason::BeforeNode
        });
    }
    let now = clock::now_ns();
    let (interval, per_node) = SETTINGS
        .get(0)
        .map_or((0, 1), |s| (s.syn_interval_us, s.syns_per_node));
    if clock::us(now).wrapping_sub(hello.syn_us) < interval {
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    hello.challenges = 0;
    let silent = hello.node_syns >= per_node;
    let next = if silent {
        failover::next(work, flow, hello, true)
    } else {
        failover::again(work, flow, hello)
    };
    let Next::Node(choice) = next else {
        buffer::release(&work.key, held);
        ends::remove(&work.key, flow, close_reason::NO_NODE);
        count::reason(DropReason::NodesUnreachable);
        return reset(packet, work);
    };
    let port_be = flow.source_port_be;
    let action = if work.v6 == 0 {
        node::send_syn::<false>(packet, work, hello, &choice, port_be, now)
    } else {
        node::send_syn::<true>(packet, work, hello, &choice, port_be, now)
    };
    buffer::unlock(held.hello);
    action
}

/// Tells the client that its connection is over.
#[inline(always)]
fn reset(packet: Packet, work: &Work) -> i32 {
    if work.has(flag::RST) {
        return count::drop(DropReason::Absorbed);
    }
    let reply = answer::segment(work, flag::RST | flag::ACK, work.ack, answer::end(work), 0);
    if work.v6 == 0 {
        answer::send::<false>(packet, work, &reply)
    } else {
        answer::send::<true>(packet, work, &reply)
    }
}
