//! ICMP errors about segments of our flows: "fragmentation needed" (RFC 1191) and "packet too big"
//! (RFC 8201) are translated like the segment they quote, or path-MTU discovery ends in a black hole.
//!
//! The quoted segment names the flow, and must be one that may be under way: from the last acknowledgement on, and not
//! further ahead than a window. Its sender knows whether it was sent, and checks, if it follows RFC 5927 4.1; with 2^32
//! sequence numbers and [`admit::may_be_quoted`], of guesses only one in 256 comes so far.

use super::header::TCP;
use super::packet::Packet;
use super::store::Store;
use super::work::Work;
use super::{egress, lookup, reverse};
use crate::abi::{Address, FlowKey, V4_MAPPED, stage, state};
use crate::admit;
use crate::checksum::{Stored, Sum};
use crate::segment::pair;
use crate::verdict::{DropReason, Verdict};

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TOO_BIG_V6: u8 = 2;
/// Bytes of ICMP header.
const ICMP: u32 = 8;

/// From an entry point: is it such an error at all?
#[inline(always)]
pub fn enter<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    public: bool,
) -> Verdict<S::Held> {
    let Some((plain, [kind, code])) = packet.icmp::<L3, V6>() else {
        return Verdict::Pass;
    };
    let ours = if V6 {
        kind == TOO_BIG_V6
    } else {
        plain && kind == UNREACHABLE && code == FRAGMENTATION_NEEDED
    };
    let Some(mut work) = store.work() else {
        return Verdict::Pass;
    };
    if !ours {
        return Verdict::Pass;
    }
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.from_node = u32::from(!public);
    work.public_link = packet.link::<L3>();
    Verdict::Next(stage::ICMP)
}

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    if work.v6 == 0 {
        family::<S, P, false>(store, packet, work)
    } else {
        family::<S, P, true>(store, packet, work)
    }
}

/// The four-tuple of a segment, and its sequence number.
#[derive(Clone, Copy)]
struct Quoted {
    source: Address,
    destination: Address,
    source_port_be: u16,
    destination_port_be: u16,
    seq: u32,
}

#[inline(always)]
fn family<S: Store, P: Packet, const V6: bool>(
    store: S,
    packet: P,
    work: &Work,
) -> Verdict<S::Held> {
    let quote_at = work.l3 + ICMP + if V6 { 40 } else { 20 };
    let Some((words, quoted)) = read::<P, V6>(packet, quote_at) else {
        return Verdict::Pass;
    };
    let quote = Quote {
        at: quote_at,
        words,
        segment: quoted,
    };
    if work.from_node == 0 {
        towards_node::<S, P, V6>(store, packet, work, &quote)
    } else {
        towards_client::<S, P, V6>(store, packet, work, &quote)
    }
}

/// The quoted headers, and where they stand.
struct Quote {
    at: u32,
    words: [u32; 12],
    segment: Quoted,
}

/// The quoted IP header and the first eight bytes of the quoted segment.
#[inline(always)]
fn read<P: Packet, const V6: bool>(packet: P, at: u32) -> Option<([u32; 12], Quoted)> {
    let words = if V6 {
        packet.words::<12>(at)?
    } else {
        let [a, b, c, d, e, f, g] = packet.words::<7>(at)?;
        [a, b, c, d, e, f, g, 0, 0, 0, 0, 0]
    };
    let (protocol, plain, source, destination, ports, seq_be) = if V6 {
        let [_, second, s0, s1, s2, s3, d0, d1, d2, d3, ports, seq_be] = words;
        (
            second.to_ne_bytes()[2],
            true,
            [s0, s1, s2, s3],
            [d0, d1, d2, d3],
            ports,
            seq_be,
        )
    } else {
        let [first, _, third, source, destination, ports, seq_be, ..] = words;
        let plain = first.to_ne_bytes()[0] == 0x45;
        (
            third.to_ne_bytes()[1],
            plain,
            [0, 0, V4_MAPPED, source],
            [0, 0, V4_MAPPED, destination],
            ports,
            seq_be,
        )
    };
    if !plain || protocol != TCP {
        return None;
    }
    let [a, b, c, d] = ports.to_ne_bytes();
    let segment = Quoted {
        source,
        destination,
        source_port_be: u16::from_ne_bytes([a, b]),
        destination_port_be: u16::from_ne_bytes([c, d]),
        seq: u32::from_be(seq_be),
    };
    Some((words, segment))
}

/// Says a router on the way to the client: the quoted segment is one we sent in a node's place.
#[inline(always)]
fn towards_node<S: Store, P: Packet, const V6: bool>(
    store: S,
    packet: P,
    work: &Work,
    quote: &Quote,
) -> Verdict<S::Held> {
    let quoted = &quote.segment;
    let Some((id, _)) = lookup::vip(store, &quoted.source, quoted.source_port_be) else {
        return Verdict::Pass;
    };
    let key = FlowKey {
        client: quoted.destination,
        port_be: quoted.destination_port_be,
        vip: id as u16,
    };
    let Some(flow) = store.flow(&key) else {
        return Verdict::Pass;
    };
    if flow.state == state::CONNECTING {
        return Verdict::Pass;
    }
    if !admit::may_be_quoted(quoted.seq, flow.node_expected()) {
        return Verdict::Drop(DropReason::NotUnderWay);
    }
    let Some(node) = store.node(u32::from(flow.node)) else {
        return Verdict::Pass;
    };
    let transparent = flow.is_transparent();
    let peer = if transparent { key.client } else { node.local };
    let as_sent = Quoted {
        source: node.address,
        destination: peer,
        source_port_be: node.port_be,
        destination_port_be: flow.source_port_be,
        seq: quoted.seq.wrapping_sub(flow.delta),
    };
    // A pool that hides the client hides the routers before it, too.
    if !write::<P, V6>(packet, work.l3, quote, &as_sent, !transparent, &node.local) {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    egress::to_node(packet, &node, &as_sent.destination, work.l3 != 0)
}

/// Says a router on the way to the node: the quoted segment is one we sent in a client's place.
#[inline(always)]
fn towards_client<S: Store, P: Packet, const V6: bool>(
    store: S,
    packet: P,
    work: &Work,
    quote: &Quote,
) -> Verdict<S::Held> {
    let quoted = &quote.segment;
    let Some((number, node)) = lookup::node(store, &quoted.destination, quoted.destination_port_be)
    else {
        return Verdict::Pass;
    };
    if packet.ifindex() != node.ifindex {
        return Verdict::Pass;
    }
    let flow = reverse::flow(store, number, &node, &quoted.source, quoted.source_port_be);
    let Some((key, flow)) = flow else {
        return Verdict::Pass;
    };
    // By the node's interface (above), but another peer of the same tunnel may send it.
    if !admit::may_be_quoted(quoted.seq, flow.client_expected()) {
        return Verdict::Drop(DropReason::NotUnderWay);
    }
    let Some(vip) = store.vip(u32::from(key.vip)) else {
        return Verdict::Pass;
    };
    let as_sent = Quoted {
        source: key.client,
        destination: vip.address,
        source_port_be: key.port_be,
        destination_port_be: vip.port_be,
        seq: quoted.seq,
    };
    if !write::<P, V6>(packet, work.l3, quote, &as_sent, true, &vip.address) {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    egress::to_client(
        packet,
        flow.public_link,
        &vip.address,
        &key.client,
        work.l3 != 0,
    )
}

#[inline(always)]
fn difference<const V6: bool>(old: &Address, new: &Address) -> Sum {
    let ([a, b, c, d], [e, f, g, h]) = (*old, *new);
    if V6 {
        Sum::diff(a, e) + Sum::diff(b, f) + Sum::diff(c, g) + Sum::diff(d, h)
    } else {
        Sum::diff(d, h)
    }
}

/// Writes the quoted headers as their sender sent them, then the outer addresses, and patches the sums. With
/// `ours` the error comes from `source`, else from the router still.
#[inline(always)]
fn write<P: Packet, const V6: bool>(
    packet: P,
    l3: u32,
    quote: &Quote,
    new: &Quoted,
    ours: bool,
    source: &Address,
) -> bool {
    let old = &quote.segment;
    let ports = pair(new.source_port_be, new.destination_port_be);
    let addresses = difference::<V6>(&old.source, &new.source)
        + difference::<V6>(&old.destination, &new.destination);
    let mut change = Sum::diff(pair(old.source_port_be, old.destination_port_be), ports)
        + Sum::diff(old.seq.to_be(), new.seq.to_be());
    let mut words = quote.words;
    let written = if V6 {
        [words[2], words[3], words[4], words[5]] = new.source;
        [words[6], words[7], words[8], words[9]] = new.destination;
        words[10] = ports;
        words[11] = new.seq.to_be();
        change += addresses;
        packet.put_words(quote.at, &words)
    } else {
        // The quoted header's own checksum balances its addresses.
        let [a, b, c, d] = words[2].to_ne_bytes();
        let stored = Stored(u16::from_ne_bytes([c, d])).patched(addresses).0;
        words[2] = pair(u16::from_ne_bytes([a, b]), stored);
        words[3] = new.source[3];
        words[4] = new.destination[3];
        words[5] = ports;
        words[6] = new.seq.to_be();
        let [a, b, c, d, e, f, g, ..] = words;
        packet.put_words(quote.at, &[a, b, c, d, e, f, g])
    };
    if !written {
        return false;
    }
    // The error goes to whoever sent the quoted segment.
    let Some(outer) = put_outer::<P, V6>(packet, l3, ours, source, &new.source) else {
        return false;
    };
    let field = quote.at - ICMP + 2;
    if V6 {
        packet.patch_checksum(field, outer, change);
    } else {
        packet.patch_plain_checksum(field, change);
    }
    true
}

/// Writes the outer addresses; returns what that means for a pseudo-header.
#[inline(always)]
fn put_outer<P: Packet, const V6: bool>(
    packet: P,
    l3: u32,
    ours: bool,
    source: &Address,
    destination: &Address,
) -> Option<Sum> {
    let at = l3 + if V6 { 8 } else { 12 };
    let mut sum = Sum::ZERO;
    if V6 {
        let old = packet.words::<8>(at)?;
        let mut new = old;
        if ours {
            [new[0], new[1], new[2], new[3]] = *source;
        }
        [new[4], new[5], new[6], new[7]] = *destination;
        for (old, new) in old.into_iter().zip(new) {
            sum += Sum::diff(old, new);
        }
        packet.put_words(at, &new).then_some(sum)
    } else {
        let [router, receiver] = packet.words::<2>(at)?;
        let new = [if ours { source[3] } else { router }, destination[3]];
        sum += Sum::diff(router, new[0]) + Sum::diff(receiver, new[1]);
        if !packet.put_words(at, &new) {
            return None;
        }
        packet.patch_ip_checksum(l3 + 10, sum);
        Some(sum)
    }
}
