//! Entry of the tunnel side: only a node's own segments of its own flows go on to clients.

use super::counters::add;
use super::header::{Header, Kind};
use super::packet::Packet;
use super::store::Store;
use super::work::Work;
use super::{admit, closed, extended, icmp, lookup, reply, reverse, translate, verify};
use crate::abi::{FlowKey, same, stage, state};
use crate::closed::Ended;
use crate::tcp::flag;
use crate::verdict::{DropReason, Verdict};

/// A packet on a tunnel interface with `L3` bytes of link-layer header.
#[inline(always)]
pub fn ingress<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
) -> Verdict<S::Held> {
    let header = match Header::read::<P, L3, V6>(packet) {
        Kind::Tcp(header) => header,
        Kind::Icmp => return icmp::enter::<S, P, L3, V6>(store, packet, false),
        Kind::Extended => return extended::enter::<S, P, L3, V6>(store, packet, false),
        Kind::Other => return Verdict::Pass,
    };
    let Some((number, node)) = lookup::node(store, &header.source, header.source_port_be) else {
        return Verdict::Pass;
    };
    let flow = reverse::flow(
        store,
        number,
        &node,
        &header.destination,
        header.destination_port_be,
    );
    let Some((key, flow)) = flow else {
        if admit::has_predecessor(store)
            || same(&node.local, &header.destination)
            || node.transparent == 0
        {
            return Verdict::Pass;
        }
        // The node as `reply` sees a peer.
        let key = FlowKey {
            client: header.source,
            port_be: header.source_port_be,
            vip: 0,
        };
        let link = packet.ifindex();
        return hand_on::<S, L3, V6>(store, &header, &key, number, link, stage::STRAY);
    };
    if packet.ifindex() != node.ifindex {
        // Another tunnel's peer speaks in this node's name.
        add!(store.node_stats(number), strays += 1);
        return Verdict::Drop(DropReason::NotItsFlow);
    }
    if header.malformed {
        return Verdict::Drop(DropReason::MalformedSegment);
    }
    if L3 != 0 && !packet.untag() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    if flow.state == state::CONNECTING || header.flags & flag::SYN != 0 {
        let link = flow.public_link;
        return hand_on::<S, L3, V6>(store, &header, &key, number, link, stage::NODE_ANSWER);
    }
    if header.flags & (flag::FIN | flag::RST) != 0 {
        let link = packet.ifindex();
        return hand_on::<S, L3, V6>(store, &header, &key, number, link, stage::NODE_CONTROL);
    }
    translate::down::<S, P, L3, V6>(store, packet, &header, &key, flow)
}

/// Leaves the fast path.
#[inline(always)]
fn hand_on<S: Store, const L3: usize, const V6: bool>(
    store: S,
    header: &Header,
    key: &FlowKey,
    number: u32,
    public_link: u32,
    stage: u32,
) -> Verdict<S::Held> {
    let Some(mut work) = store.work() else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    fill::<L3, V6>(&mut work, header, key, number, public_link);
    Verdict::Next(stage)
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
    // As `reply` sees it: the node is the peer, and what it talks to is us.
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

/// The stage of a node's FINs and resets: acts on them only if their checksum is right.
#[inline(always)]
pub fn control<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let Some(node) = store.node(work.node) else {
        return Verdict::Drop(DropReason::NotItsFlow);
    };
    let local = work.local;
    // First, while every path arrives alike: the verifier then walks the loop once for each family.
    let right = if work.v6 == 0 {
        verify::control::<S, P, false>(packet, work, node.address, local)
    } else {
        verify::control::<S, P, true>(packet, work, node.address, local)
    };
    if !right {
        return Verdict::Drop(DropReason::BadChecksum);
    }
    match (work.l3, work.v6) {
        (0, 0) => again::<S, P, 0, false>(store, packet, work),
        (0, _) => again::<S, P, 0, true>(store, packet, work),
        (_, 0) => again::<S, P, 14, false>(store, packet, work),
        _ => again::<S, P, 14, true>(store, packet, work),
    }
}

#[inline(always)]
fn again<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    work: &mut Work,
) -> Verdict<S::Held> {
    let key = work.key;
    let Kind::Tcp(header) = Header::read::<P, L3, V6>(packet) else {
        return Verdict::Drop(DropReason::MalformedSegment);
    };
    let Some(flow) = store.flow(&key) else {
        return Verdict::Drop(DropReason::NotItsFlow);
    };
    translate::down::<S, P, L3, V6>(store, packet, &header, &key, flow)
}

/// The stage of a node's segments of no flow, where it sees the addresses of clients. The host has a use for those to one
/// of its sockets, and for those that it forwards for somebody else: a laptop that opens the node's port through the
/// tunnel. What it would send to the internet is answered here: it is the rest of a connection of ours, in clear.
#[inline(always)]
pub fn stray<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    if work.v6 == 0 {
        stray_of::<S, P, false>(store, packet, work)
    } else {
        stray_of::<S, P, true>(store, packet, work)
    }
}

#[inline(always)]
fn stray_of<S: Store, P: Packet, const V6: bool>(
    store: S,
    packet: P,
    work: &mut Work,
) -> Verdict<S::Held> {
    let (source, destination) = (work.key.client, work.local);
    if packet.has_socket::<V6>(work) || !packet.leaves_in_clear(work, &source, &destination) {
        return Verdict::Pass;
    }
    let Some(node) = store.node(work.node) else {
        return Verdict::Pass;
    };
    if node.ifindex != packet.ifindex() {
        add!(store.node_stats(work.node), strays += 1);
        return Verdict::Pass;
    }
    if work.l3 != 0 && !packet.untag() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    let now = store.now_ns();
    let ended = reverse::ended(store, &node, &destination, work.local_port_be, now);
    if ended == Ended::Unknown {
        add!(store.node_stats(work.node), strays += 1);
        store.count(DropReason::NotItsFlow);
    }
    let answer = match ended {
        Ended::Unknown => reply::reset_unknown(store, work, now),
        ended => closed::reply(store, work, ended, now),
    };
    match answer {
        Ok(()) => reply::reply::<S::Held, P, V6>(packet, work),
        Err(reason) => Verdict::Drop(reason),
    }
}
