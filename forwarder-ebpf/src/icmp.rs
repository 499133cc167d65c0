//! ICMP errors about segments of our flows: "fragmentation needed" (RFC 1191) and "packet too big"
//! (RFC 8201) are translated like the segment they quote, or path-MTU discovery ends in a black hole.
//!
//! The quoted segment names the flow, and must be one that may be under way: from the last acknowledgement on, and not
//! further ahead than a window. Whether it was sent, its sender knows, and looks, if it follows RFC 5927 4.1; with 2^32
//! sequence numbers and [`admit::may_be_quoted`], of guesses only one in 256 comes so far.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Address, FlowKey, V4_MAPPED, link, stage, state};
use forwarder_common::admit;
use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::segment::pair;
use forwarder_common::verdict::DropReason;

use crate::count::{self, PASS};
use crate::maps::{FLOWS, NODES, VIPS};
use crate::packet::{Access, Packet};
use crate::work::Work;
use crate::{next, node, owner};

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TOO_BIG_V6: u8 = 2;
const TCP: u8 = 6;
/// Bytes of ICMP header.
const ICMP: u32 = 8;

/// From an entry point: is it such an error at all?
#[inline(always)]
pub fn enter<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    public: bool,
) -> i32 {
    let Some(data) = packet.linear(L3 + if V6 { 48 } else { 28 }) else {
        return PASS;
    };
    // SAFETY: link-layer, IP and ICMP header were compared with data_end.
    let (version_length, kind, code) = unsafe {
        let icmp = data.add(L3 + if V6 { 40 } else { 20 });
        (*data.add(L3), *icmp, *icmp.add(1))
    };
    let ours = if V6 {
        kind == TOO_BIG_V6
    } else {
        version_length == 0x45 && kind == UNREACHABLE && code == FRAGMENTATION_NEEDED
    };
    let Some(work) = crate::maps::work() else {
        return PASS;
    };
    if !ours {
        return PASS;
    }
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.from_node = u32::from(!public);
    work.public_link = packet.ifindex() | if L3 == 0 { link::NO_HEADER } else { 0 };
    next(context, stage::ICMP)
}

/// The stage.
#[inline(always)]
pub fn stage(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    if work.v6 == 0 {
        family::<false>(packet, work)
    } else {
        family::<true>(packet, work)
    }
}

/// The ends of a segment, and its sequence number.
#[derive(Clone, Copy)]
struct Ends {
    source: Address,
    destination: Address,
    source_port_be: u16,
    destination_port_be: u16,
    seq: u32,
}

#[inline(always)]
fn family<const V6: bool>(packet: Packet, work: &Work) -> i32 {
    let quote_at = work.l3 + ICMP + if V6 { 40 } else { 20 };
    let Some((words, quoted)) = read::<V6>(packet, quote_at) else {
        return PASS;
    };
    let quote = Quote {
        at: quote_at,
        words,
        ends: quoted,
    };
    if work.from_node == 0 {
        towards_node::<V6>(packet, work, &quote)
    } else {
        towards_client::<V6>(packet, work, &quote)
    }
}

/// The quoted headers, and where they stand.
struct Quote {
    at: u32,
    words: [u32; 12],
    ends: Ends,
}

/// The quoted IP header and the first eight bytes of the quoted segment.
#[inline(always)]
fn read<const V6: bool>(packet: Packet, at: u32) -> Option<([u32; 12], Ends)> {
    let mut words = [0_u32; 12];
    let length = if V6 { 48 } else { 28 };
    // SAFETY: 48 bytes.
    if !unsafe { packet.load(at, words.as_mut_ptr().cast(), length) } {
        return None;
    }
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
    let ends = Ends {
        source,
        destination,
        source_port_be: u16::from_ne_bytes([a, b]),
        destination_port_be: u16::from_ne_bytes([c, d]),
        seq: u32::from_be(seq_be),
    };
    Some((words, ends))
}

/// Says a router on the way to the client: the quoted segment is one we sent in a node's place.
#[inline(always)]
fn towards_node<const V6: bool>(packet: Packet, work: &Work, quote: &Quote) -> i32 {
    let quoted = &quote.ends;
    let Some((id, _)) = owner::vip(&quoted.source, quoted.source_port_be) else {
        return PASS;
    };
    let key = FlowKey {
        client: quoted.destination,
        port_be: quoted.destination_port_be,
        vip: id as u16,
    };
    let Some(flow) = FLOWS.get_ptr(key) else {
        return PASS;
    };
    // SAFETY: a map value; what is read does not change once the state says so.
    let flow = unsafe { &*flow };
    if flow.state == state::CONNECTING {
        return PASS;
    }
    if !admit::may_be_quoted(quoted.seq, flow.node_expected()) {
        return count::drop(DropReason::NotUnderWay);
    }
    let Some(target) = NODES.get(u32::from(flow.node)) else {
        return PASS;
    };
    let transparent = flow.is_transparent();
    let peer = if transparent {
        key.client
    } else {
        target.local
    };
    let as_sent = Ends {
        source: target.address,
        destination: peer,
        source_port_be: target.port_be,
        destination_port_be: flow.source_port_be,
        seq: quoted.seq.wrapping_sub(flow.delta),
    };
    // A pool that hides the client hides the routers before it, too.
    if !write::<V6>(
        packet,
        work.l3,
        quote,
        &as_sent,
        !transparent,
        &target.local,
    ) {
        return count::drop(DropReason::KernelRefused);
    }
    node::send_to(packet, target, &as_sent.destination, work.l3 != 0)
}

/// Says a router on the way to the node: the quoted segment is one we sent in a client's place.
#[inline(always)]
fn towards_client<const V6: bool>(packet: Packet, work: &Work, quote: &Quote) -> i32 {
    let quoted = &quote.ends;
    let Some((number, target)) = owner::node(&quoted.destination, quoted.destination_port_be)
    else {
        return PASS;
    };
    if packet.ifindex() != target.ifindex {
        return PASS;
    }
    let flow = node::flow_of(number, target, &quoted.source, quoted.source_port_be);
    let Some((key, flow)) = flow else {
        return PASS;
    };
    // By the node's interface (above), but another peer of the same tunnel may send it.
    if !admit::may_be_quoted(quoted.seq, flow.client_expected()) {
        return count::drop(DropReason::NotUnderWay);
    }
    let Some(vip) = VIPS.get(u32::from(key.vip)) else {
        return PASS;
    };
    let as_sent = Ends {
        source: key.client,
        destination: vip.address,
        source_port_be: key.port_be,
        destination_port_be: vip.port_be,
        seq: quoted.seq,
    };
    if !write::<V6>(packet, work.l3, quote, &as_sent, true, &vip.address) {
        return count::drop(DropReason::KernelRefused);
    }
    node::send_to_client(
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
fn write<const V6: bool>(
    packet: Packet,
    l3: u32,
    quote: &Quote,
    new: &Ends,
    ours: bool,
    source: &Address,
) -> bool {
    let old = &quote.ends;
    let ports = pair(new.source_port_be, new.destination_port_be);
    let addresses = difference::<V6>(&old.source, &new.source)
        + difference::<V6>(&old.destination, &new.destination);
    let mut change = Sum::diff(pair(old.source_port_be, old.destination_port_be), ports)
        + Sum::diff(old.seq.to_be(), new.seq.to_be());
    let mut words = quote.words;
    let length = if V6 {
        [words[2], words[3], words[4], words[5]] = new.source;
        [words[6], words[7], words[8], words[9]] = new.destination;
        words[10] = ports;
        words[11] = new.seq.to_be();
        change += addresses;
        48
    } else {
        // The quoted header's own checksum balances its addresses.
        let [a, b, c, d] = words[2].to_ne_bytes();
        let stored = Stored(u16::from_ne_bytes([c, d])).patched(addresses).0;
        words[2] = pair(u16::from_ne_bytes([a, b]), stored);
        words[3] = new.source[3];
        words[4] = new.destination[3];
        words[5] = ports;
        words[6] = new.seq.to_be();
        28
    };
    // SAFETY: 48 bytes.
    if !unsafe { packet.store(quote.at, words.as_ptr().cast(), length) } {
        return false;
    }
    // The error goes to whoever sent the quoted segment.
    let Some(outer) = put_outer::<V6>(packet, l3, ours, source, &new.source) else {
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
fn put_outer<const V6: bool>(
    packet: Packet,
    l3: u32,
    ours: bool,
    source: &Address,
    destination: &Address,
) -> Option<Sum> {
    let mut old = [0_u32; 8];
    let (at, length) = if V6 { (l3 + 8, 32) } else { (l3 + 12, 8) };
    // SAFETY: 32 bytes.
    if !unsafe { packet.load(at, old.as_mut_ptr().cast(), length) } {
        return None;
    }
    let mut new = old;
    if V6 {
        if ours {
            [new[0], new[1], new[2], new[3]] = *source;
        }
        [new[4], new[5], new[6], new[7]] = *destination;
    } else {
        if ours {
            new[0] = source[3];
        }
        new[1] = destination[3];
    }
    let mut sum = Sum::ZERO;
    for i in 0..8 {
        sum += Sum::diff(old[i], new[i]);
    }
    // SAFETY: 32 bytes.
    if !unsafe { packet.store(at, new.as_ptr().cast(), length) } {
        return None;
    }
    if !V6 {
        packet.patch_ip_checksum(l3 + 10, sum);
    }
    Some(sum)
}
