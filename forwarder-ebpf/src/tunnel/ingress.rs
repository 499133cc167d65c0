//! Entry of the tunnel side: only a node's own segments of its own flows go on to clients.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{FlowKey, same, stage, state};
use forwarder_common::closed::Ended;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::count::{self, PASS};
use crate::header::{Header, Kind};
use crate::maps::{FLOWS, NODES};
use crate::packet::Packet;
use crate::tunnel::splice;
use crate::work::Work;
use crate::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, answer, clock, closed, extended, fib, next, node, owner,
    predecessor, verify,
};

/// A packet on a tunnel interface with `L3` bytes of link-layer header.
#[inline(always)]
pub fn ingress<const L3: usize>(context: &TcContext) -> i32 {
    let packet = Packet::new(context.skb.skb);
    if L3 != 0 && !packet.is_for_this_host() {
        return PASS;
    }
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
        Kind::Extended => return extended::enter::<L3, V6>(context, packet, false),
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
        if predecessor::is_behind()
            || same(&node.local, &header.destination)
            || node.transparent == 0
        {
            return PASS;
        }
        return hand_on::<L3, V6>(
            context,
            packet,
            &header,
            node_key(&header),
            number,
            stage::STRAY,
        );
    };
    if packet.ifindex() != node.ifindex {
        // Another tunnel's peer speaks in this node's name.
        count::add!(NODE_STATS, number, strays, 1);
        return count::drop(DropReason::NotItsFlow);
    }
    if header.malformed {
        return count::drop(DropReason::MalformedSegment);
    }
    if L3 != 0 && !packet.untag() {
        return count::drop(DropReason::KernelRefused);
    }
    if flow.state == state::CONNECTING || header.flags & flag::SYN != 0 {
        let Some(work) = crate::maps::work() else {
            return count::drop(DropReason::KernelRefused);
        };
        fill::<L3, V6>(work, &header, &key, number, flow.public_link);
        return next(context, stage::NODE_ANSWER);
    }
    if header.flags & (flag::FIN | flag::RST) != 0 {
        return hand_on::<L3, V6>(context, packet, &header, key, number, stage::NODE_CONTROL);
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

/// A node as [`answer`] sees a peer.
#[inline(always)]
fn node_key(header: &Header) -> FlowKey {
    FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: 0,
    }
}

#[inline(always)]
fn hand_on<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    header: &Header,
    key: FlowKey,
    number: u32,
    slot: u32,
) -> i32 {
    let Some(work) = crate::maps::work() else {
        return count::drop(DropReason::KernelRefused);
    };
    fill::<L3, V6>(work, header, &key, number, packet.ifindex());
    next(context, slot)
}

/// The stage of a node's FINs and resets: acts on them only if their checksum is right.
#[inline(always)]
pub fn control(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(node) = NODES.get(work.node) else {
        return count::drop(DropReason::NotItsFlow);
    };
    let local = work.local;
    // First, while every path arrives alike: the verifier then walks the loop once for each family.
    let right = if work.v6 == 0 {
        verify::control::<false>(packet, work, node.address, local)
    } else {
        verify::control::<true>(packet, work, node.address, local)
    };
    if !right {
        return count::drop(DropReason::BadChecksum);
    }
    match (work.l3, work.v6) {
        (0, 0) => again::<0, false>(packet, work),
        (0, _) => again::<0, true>(packet, work),
        (_, 0) => again::<14, false>(packet, work),
        _ => again::<14, true>(packet, work),
    }
}

#[inline(always)]
fn again<const L3: usize, const V6: bool>(packet: Packet, work: &mut Work) -> i32 {
    let key = work.key;
    let Kind::Tcp(header) = Header::read::<L3, V6>(packet) else {
        return count::drop(DropReason::MalformedSegment);
    };
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        return count::drop(DropReason::NotItsFlow);
    };
    // SAFETY: a map value; its fields have one writer each.
    splice::down::<L3, V6>(packet, &header, &key, unsafe { &mut *flow })
}

/// The stage of a node's segments of no flow, where it sees the addresses of clients. The host has a use for those to one
/// of its sockets, and for those that it forwards for somebody else: a laptop that opens the node's port by way of the
/// tunnel. What it would send to the internet is answered here: it is the rest of a connection of ours, in clear.
#[inline(always)]
pub fn stray(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    if work.v6 == 0 {
        stray_of::<false>(packet, work)
    } else {
        stray_of::<true>(packet, work)
    }
}

#[inline(always)]
fn stray_of<const V6: bool>(packet: Packet, work: &mut Work) -> i32 {
    let (source, destination) = (work.key.client, work.local);
    if has_socket::<V6>(packet, work) || !fib::leaves_in_clear(packet, work, &source, &destination)
    {
        return PASS;
    }
    let Some(node) = NODES.get(work.node) else {
        return PASS;
    };
    if node.ifindex != packet.ifindex() {
        count::add!(NODE_STATS, work.node, strays, 1);
        return PASS;
    }
    if work.l3 != 0 && !packet.untag() {
        return count::drop(DropReason::KernelRefused);
    }
    let now = clock::now_ns();
    let ended = node::ended(node, &destination, work.local_port_be, now);
    if ended == Ended::Unknown {
        count::add!(NODE_STATS, work.node, strays, 1);
        count::reason(DropReason::NotItsFlow);
    }
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
fn has_socket<const V6: bool>(packet: Packet, work: &Work) -> bool {
    // SAFETY: a tuple of plain integers, of which the family's part is read.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let length = if V6 {
            let ends = &mut tuple.__bindgen_anon_1.ipv6;
            ends.saddr = work.key.client;
            ends.daddr = work.local;
            ends.sport = work.key.port_be;
            ends.dport = work.local_port_be;
            36
        } else {
            let ends = &mut tuple.__bindgen_anon_1.ipv4;
            ends.saddr = work.key.client[3];
            ends.daddr = work.local[3];
            ends.sport = work.key.port_be;
            ends.dport = work.local_port_be;
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
