//! Node → client of a spliced flow.

use forwarder_common::abi::{Flow, FlowKey, close_reason, state};
use forwarder_common::flow::Passing;
use forwarder_common::verdict::DropReason;

use crate::buffer;
use crate::header::Header;
use crate::maps::VIPS;
use crate::packet::{Access, Packet};
use crate::rewrite::{self, Rewrite};
use crate::{clock, count, ends, node};

/// Sends a node's segment on. Returns the action.
#[inline(always)]
pub fn down<const L3: usize, const V6: bool>(
    packet: Packet,
    header: &Header,
    key: &FlowKey,
    flow: &mut Flow,
) -> i32 {
    let Some(vip) = VIPS.get(u32::from(key.vip)) else {
        return count::drop(DropReason::LinkDown);
    };
    if header.ttl <= 1 {
        return count::drop(DropReason::TtlExpired);
    }
    let seq = header.seq.wrapping_add(flow.delta);
    let rewrite = Rewrite {
        source: vip.address,
        destination: key.client,
        source_port_be: vip.port_be,
        destination_port_be: key.port_be,
        seq,
        ack: header.ack,
        window: flow.window_for_client(header.window),
        // Nothing that a node sends is judged, so what it calls urgent goes on.
        flags: header.flags,
    };
    let wire_packets = packet.wire_packets();
    let bytes = u64::from(packet.len() - L3 as u32);
    let Some(change) = rewrite::in_place::<L3, V6>(packet, header, &rewrite) else {
        return count::drop(DropReason::KernelRefused);
    };
    rewrite::checksum::<L3, V6>(packet, &change);
    let path = u32::from(flow.path);
    flow.seen_ms = clock::ms(clock::now_ns());
    count::add!(
        PATH_STATS,
        path,
        down_packets,
        wire_packets,
        down_bytes,
        bytes
    );
    let passing = Passing {
        seq,
        ack: header.ack,
        flags: header.flags,
        payload_len: header.payload_len,
    };
    let outcome = flow.node_segment(&passing);
    if flow.state == state::REPLAYING {
        acknowledged(key, flow);
    }
    ends::follow(key, flow, outcome, close_reason::NODE_RESET);
    node::send_to_client(packet, flow.public_link, &vip.address, &key.client, L3 != 0)
}

/// Once the node has acknowledged everything we kept, the flow is its own.
#[inline(always)]
fn acknowledged(key: &FlowKey, flow: &mut Flow) {
    let Ok(held) = buffer::find(key) else {
        return;
    };
    // SAFETY: held.
    let stored = unsafe { (*held.hello).stored };
    if flow.node_acked > u64::from(stored) {
        flow.state = state::SPLICED;
        buffer::release(key, held);
    } else {
        buffer::unlock(held.hello);
    }
}
