//! The fast path: segments of a spliced flow. Addresses, ports, sequence and acknowledgement numbers, window and SACK
//! blocks are translated in place, whatever the size of the packet.

use super::buffer;
use super::close;
use super::counters::add;
use super::header::{Change, Header, Rewrite};
use super::packet::Packet;
use super::store::Store;
use super::{egress, ms};
use crate::abi::{FlowKey, close_reason, state};
use crate::flow::Passing;
use crate::tcp::flag;
use crate::verdict::{DropReason, Verdict};

/// Makes the TCP checksum right.
#[inline(always)]
fn patch_checksum<P: Packet, const L3: usize, const V6: bool>(packet: P, change: &Change) {
    let field = L3 as u32 + if V6 { 56 } else { 36 };
    packet.patch_checksum(field, change.pseudo, change.tcp);
}

/// Sends a client's segment on to its node.
#[inline(always)]
pub fn up<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    header: &Header,
    key: &FlowKey,
    mut flow: S::Flow,
) -> Verdict<S::Held> {
    let target = u32::from(flow.path);
    let Some(node) = store.node(u32::from(flow.node)) else {
        return Verdict::Drop(DropReason::LinkDown);
    };
    if header.ttl <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
    }
    if node.ifindex == 0 {
        return Verdict::Drop(DropReason::LinkDown);
    }
    let delta = flow.delta;
    let transparent = flow.is_transparent();
    let has_ack = header.flags & flag::ACK != 0;
    let rewrite = Rewrite {
        source: if transparent {
            header.source
        } else {
            node.local
        },
        destination: node.address,
        source_port_be: if transparent {
            header.source_port_be
        } else {
            flow.source_port_be
        },
        destination_port_be: node.port_be,
        seq: header.seq,
        ack: if has_ack {
            header.ack.wrapping_sub(delta)
        } else {
            header.ack
        },
        window: flow.window_for_node(header.window),
        // Linux takes the byte that an urgent pointer names out of the stream, unless the application asked for it
        // there. The node would then read another hello than was judged.
        flags: header.flags & !flag::URG,
    };
    let wire_packets = packet.wire_packets();
    let bytes = u64::from(packet.len() - L3 as u32);
    let Some(mut change) = packet.rewrite::<L3, V6>(header, &rewrite) else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    if header.header_len > 20 {
        change.tcp += packet.shift_selective_acks::<L3, V6>(header.header_len, delta);
    }
    patch_checksum::<P, L3, V6>(packet, &change);
    let passing = Passing {
        seq: header.seq,
        ack: header.ack,
        flags: header.flags,
        payload_len: header.payload_len,
    };
    let now = ms(store.now_ns());
    add!(
        store.target_stats(target),
        up_packets += wire_packets,
        up_bytes += bytes
    );
    flow.seen_ms = now;
    let link = packet.link::<L3>();
    if flow.public_link != link && flow.is_current(&passing) {
        flow.public_link = link;
    }
    let outcome = flow.client_segment(&passing);
    close::follow(store, key, &mut flow, outcome, close_reason::CLIENT_RESET);
    egress::to_node(packet, &node, &rewrite.source, L3 != 0)
}

/// Sends a node's segment on to its client.
#[inline(always)]
pub fn down<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    header: &Header,
    key: &FlowKey,
    mut flow: S::Flow,
) -> Verdict<S::Held> {
    let Some(vip) = store.vip(u32::from(key.vip)) else {
        return Verdict::Drop(DropReason::LinkDown);
    };
    if header.ttl <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
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
        // Nothing that a node sends is judged, so its urgent pointer goes on.
        flags: header.flags,
    };
    let wire_packets = packet.wire_packets();
    let bytes = u64::from(packet.len() - L3 as u32);
    let Some(change) = packet.rewrite::<L3, V6>(header, &rewrite) else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    patch_checksum::<P, L3, V6>(packet, &change);
    let target = u32::from(flow.path);
    flow.seen_ms = ms(store.now_ns());
    add!(
        store.target_stats(target),
        down_packets += wire_packets,
        down_bytes += bytes
    );
    let passing = Passing {
        seq,
        ack: header.ack,
        flags: header.flags,
        payload_len: header.payload_len,
    };
    let outcome = flow.node_segment(&passing);
    if flow.state == state::REPLAYING {
        acknowledged(store, key, &mut flow);
    }
    close::follow(store, key, &mut flow, outcome, close_reason::NODE_RESET);
    egress::to_client(packet, flow.public_link, &vip.address, &key.client, L3 != 0)
}

/// Once the node has acknowledged everything we kept, the flow is its own.
#[inline(always)]
fn acknowledged<S: Store>(store: S, key: &FlowKey, flow: &mut S::Flow) {
    let Ok(held) = buffer::find(store, key) else {
        return;
    };
    let stored = held.stored;
    if flow.node_acked > u64::from(stored) {
        flow.state = state::SPLICED;
        buffer::release(store, key, held);
    } else {
        store.unlock(held);
    }
}
