//! Client → node of a spliced flow: addresses, ports, the acknowledgement and SACK blocks are translated in
//! place, whatever the size of the packet.

use forwarder_common::abi::{Flow, FlowKey, close_reason};
use forwarder_common::flow::Passing;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::header::Header;
use crate::maps::NODES;
use crate::packet::{Access, Packet};
use crate::rewrite::{self, Rewrite};
use crate::{clock, count, ends, node};

/// Sends a client's segment on. Returns the action.
#[inline(always)]
pub fn up<const L3: usize, const V6: bool>(
    packet: Packet,
    header: &Header,
    key: &FlowKey,
    flow: &mut Flow,
) -> i32 {
    let path = u32::from(flow.path);
    let Some(target) = NODES.get(u32::from(flow.node)) else {
        return count::drop(DropReason::LinkDown);
    };
    if header.ttl <= 1 {
        return count::drop(DropReason::TtlExpired);
    }
    if target.ifindex == 0 {
        return count::drop(DropReason::LinkDown);
    }
    let delta = flow.delta;
    let transparent = flow.is_transparent();
    let has_ack = header.flags & flag::ACK != 0;
    let rewrite = Rewrite {
        source: if transparent {
            header.source
        } else {
            target.local
        },
        destination: target.address,
        source_port_be: if transparent {
            header.source_port_be
        } else {
            flow.source_port_be
        },
        destination_port_be: target.port_be,
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
    let Some(mut segment) = rewrite::in_place::<L3, V6>(packet, header, &rewrite) else {
        return count::drop(DropReason::KernelRefused);
    };
    if header.header_len > 20 {
        segment.tcp += rewrite::selective_acks::<L3, V6>(packet, header.header_len, delta);
    }
    rewrite::checksum::<L3, V6>(packet, &segment);
    let passing = Passing {
        seq: header.seq,
        ack: header.ack,
        flags: header.flags,
        payload_len: header.payload_len,
    };
    let now = clock::ms(clock::now_ns());
    count::add!(PATH_STATS, path, up_packets, wire_packets, up_bytes, bytes);
    flow.seen_ms = now;
    let link = packet.link::<L3>();
    if flow.public_link != link && flow.is_current(&passing) {
        flow.public_link = link;
    }
    let outcome = flow.client_segment(&passing);
    ends::follow(key, flow, outcome, close_reason::CLIENT_RESET);
    node::send_to(packet, target, &rewrite.source, L3 != 0)
}
