//! A client segment while we still owe its node something: the node has not answered the SYN, or has not
//! acknowledged the hello. The client's retransmissions are the only timer there is.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, HELLO_CAP, close_reason, link, stage, state};
use forwarder_common::flow::Passing;
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::bounds::forget;
use crate::buffer::{self, Held, Missing};
use crate::failover::{self, Next};
use crate::maps::{FLOWS, NODES, SETTINGS};
use crate::node;
use crate::packet::Packet;
use crate::public::hello::next_held;
use crate::work::Work;
use crate::{answer, clock, count, ends};

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(flow) = FLOWS.get_ptr_mut(work.key) else {
        return count::drop(DropReason::Absorbed);
    };
    // SAFETY: a map value; its fields have one writer each.
    let flow = unsafe { &mut *flow };
    let held = match buffer::find(&work.key) {
        Ok(held) => held,
        Err(Missing::Busy) => return count::drop(DropReason::HelloBusy),
        Err(Missing::Absent) => {
            forget(flow);
            let reason = match flow.state {
                state::SPLICED => return count::drop(DropReason::BeforeNode),
                state::CONNECTING => close_reason::NO_NODE,
                _ => close_reason::UNCONFIRMED,
            };
            // This one cannot be completed: nobody may speak in place of what is no longer kept.
            reset_node(packet, work, flow);
            ends::remove(&work.key, flow, reason);
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
        return connecting(context, packet, work, flow, held);
    }
    if flow.state == state::REPLAYING && work.payload_len > 0 && !work.has(flag::SYN) {
        work.replay_at = 0;
        return next_held(context, stage::REPLAY, held);
    }
    buffer::unlock(held.hello);
    count::drop(DropReason::Absorbed)
}

#[inline(always)]
fn connecting(
    context: &TcContext,
    packet: Packet,
    work: &mut Work,
    flow: &mut Flow,
    held: Held,
) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    let offset = work.seq.wrapping_sub(hello.client_isn.wrapping_add(1));
    if work.has(flag::RST) && offset <= hello.stored {
        // What it is exact for depends on which acknowledgements of ours arrived.
        buffer::release(&work.key, held);
        ends::remove(&work.key, flow, close_reason::CLIENT_RESET);
        return count::drop(DropReason::Absorbed);
    }
    let room = (HELLO_CAP as u32).saturating_sub(hello.stored);
    if offset == hello.stored
        && work.payload_len > 0
        && work.payload_len <= room
        && !work.has(flag::SYN)
    {
        work.skip = 0;
        return next_held(context, stage::STORE, held);
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

/// Tells the node, where a copy finds it without a neighbour's address. Behind other tunnels, and if this gets lost,
/// the node learns it from the answer to its next segment.
#[inline(always)]
fn reset_node(packet: Packet, work: &Work, flow: &Flow) {
    let Some(node) = NODES.get(u32::from(flow.node)) else {
        return;
    };
    if flow.state == state::CONNECTING || node.link != link::L3 || node.ifindex == 0 {
        return;
    }
    let segment = Segment {
        source: if flow.is_transparent() {
            work.key.client
        } else {
            node.local
        },
        destination: node.address,
        source_port_be: flow.source_port_be,
        destination_port_be: node.port_be,
        ..answer::segment(work, flag::RST, flow.client_expected(), 0, 0)
    };
    let sent = if work.v6 == 0 {
        answer::put::<false>(packet, work, &segment)
    } else {
        answer::put::<true>(packet, work, &segment)
    };
    if sent {
        let _ = packet.clone_to(node.ifindex);
    }
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
