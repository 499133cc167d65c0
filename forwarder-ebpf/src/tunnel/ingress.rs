//! Entry of the tunnel side: only a node's own segments of its own flows go on to clients.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{FlowKey, Node, link, same, stage, state};
use forwarder_common::closed::Ended;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::count::{self, PASS};
use crate::header::{Header, Kind};
use crate::packet::Packet;
use crate::tunnel::splice;
use crate::work::Work;
use crate::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, answer, clock, closed, next, node, owner, predecessor,
};

/// A packet on a tunnel interface with `L3` bytes of link-layer header.
#[inline(always)]
pub fn ingress<const L3: usize>(context: &TcContext) -> i32 {
    let packet = Packet::new(context.skb.skb);
    match packet.protocol_be() {
        ETHERTYPE_IPV4 => family::<L3, false>(context, packet),
        ETHERTYPE_IPV6 => family::<L3, true>(context, packet),
        _ => PASS,
    }
}

#[inline(always)]
fn family<const L3: usize, const V6: bool>(context: &TcContext, packet: Packet) -> i32 {
    let header = match Header::read::<L3, V6>(packet) {
        Kind::Tcp(header) => header,
        Kind::Icmp => return crate::icmp::enter::<L3, V6>(context, packet, false),
        Kind::Other => return PASS,
    };
    let Some((number, node)) = owner::node(&header.source, header.source_port_be) else {
        return PASS;
    };
    let flow = node::flow_of(
        number,
        node,
        &header.destination,
        header.destination_port_be,
    );
    let Some((key, flow)) = flow else {
        return stray::<L3, V6>(packet, &header, node, number);
    };
    if packet.ifindex() != node.ifindex {
        // Another tunnel's peer speaks in this node's name.
        count::add!(NODE_STATS, number, strays, 1);
        return count::drop(DropReason::NotItsFlow);
    }
    if header.malformed || header.fragment || header.ip_options {
        return count::drop(DropReason::MalformedSegment);
    }
    if flow.state == state::CONNECTING || header.flags & flag::SYN != 0 {
        let Some(work) = crate::maps::work() else {
            return count::drop(DropReason::KernelRefused);
        };
        fill::<L3, V6>(work, &header, &key, number, flow.public_link);
        return next(context, stage::NODE_ANSWER);
    }
    splice::down::<L3, V6>(packet, &header, &key, flow)
}

#[inline(always)]
fn fill<const L3: usize, const V6: bool>(
    work: &mut Work,
    header: &Header,
    key: &FlowKey,
    number: u32,
    public_link: u32,
) {
    work.key = *key;
    // As `answer` sees it: the node is the peer, and what it talks to is us.
    work.local = header.destination;
    work.local_port_be = header.destination_port_be;
    work.from_node = 1;
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.header_len = header.header_len;
    work.payload_len = header.payload_len;
    work.seq = header.seq;
    work.ack = header.ack;
    work.flags = u32::from(header.flags);
    work.window = u32::from(header.window);
    work.node = number;
    work.public_link = public_link;
}

/// A node's segment of no flow. In `proxy-v2` and `masquerade` pools the host's stack has the address and
/// knows what to do (it may be a health check's); what is addressed to a client is answered here, for the
/// stack would route it to the internet in clear.
#[inline(always)]
fn stray<const L3: usize, const V6: bool>(
    packet: Packet,
    header: &Header,
    node: &Node,
    number: u32,
) -> i32 {
    if predecessor::is_behind()
        || same(&node.local, &header.destination)
        || has_socket::<V6>(packet, header)
    {
        return PASS;
    }
    if packet.ifindex() != node.ifindex {
        count::add!(NODE_STATS, number, strays, 1);
        return PASS;
    }
    let now = clock::now_ns();
    let ended = node::ended(node, &header.destination, header.destination_port_be, now);
    if ended == Ended::Unknown {
        count::add!(NODE_STATS, number, strays, 1);
        count::reason(DropReason::NotItsFlow);
    }
    let Some(work) = crate::maps::work() else {
        return count::drop(DropReason::KernelRefused);
    };
    let key = FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: 0,
    };
    fill::<L3, V6>(work, header, &key, number, link::NO_HEADER);
    let reply = match ended {
        Ended::Unknown => answer::reset_unknown(work, now),
        ended => closed::reply(work, ended, now),
    };
    match reply {
        Ok(()) => answer::reply::<V6>(packet, work),
        Err(reason) => count::drop(reason),
    }
}

/// Whether a socket of this host has these ends.
#[inline(always)]
fn has_socket<const V6: bool>(packet: Packet, header: &Header) -> bool {
    // SAFETY: a tuple of plain integers, of which the family's part is read.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let length = if V6 {
            let ends = &mut tuple.__bindgen_anon_1.ipv6;
            ends.saddr = header.source;
            ends.daddr = header.destination;
            ends.sport = header.source_port_be;
            ends.dport = header.destination_port_be;
            36
        } else {
            let ends = &mut tuple.__bindgen_anon_1.ipv4;
            ends.saddr = header.source[3];
            ends.daddr = header.destination[3];
            ends.sport = header.source_port_be;
            ends.dport = header.destination_port_be;
            12
        };
        let socket = bpf_skc_lookup_tcp(
            packet.context(),
            &raw mut tuple,
            length,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        );
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
