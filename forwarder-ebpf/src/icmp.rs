//! ICMP errors about segments of our flows: "fragmentation needed" (RFC 1191) and "packet too big"
//! (RFC 8201) are translated like the segment they quote, or path-MTU discovery ends in a black hole.
//!
//! The quoted segment names the flow. Whether its sequence number is one that was sent is for the endpoint
//! to judge (RFC 5927 4.1), which knows.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{
    Address, Endpoint, Flow, FlowKey, Node, Path, ReverseEntry, ReverseKey, V4_MAPPED,
    client_address, link, stage, state,
};
use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::segment::pair;
use forwarder_common::verdict::DropReason;

use crate::count::{self, PASS};
use crate::maps::{FLOWS, NODE_INDEX, NODES, PATHS, REVERSE, VIP_INDEX, VIPS};
use crate::packet::Packet;
use crate::work::Work;
use crate::{next, node};

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
    let data = match (L3 == 0, V6) {
        (true, false) => packet.linear::<28>(),
        (false, false) => packet.linear::<42>(),
        (true, true) => packet.linear::<48>(),
        (false, true) => packet.linear::<62>(),
    };
    let Some(data) = data else {
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
    let Some(work) = Work::here() else {
        return PASS;
    };
    if !ours {
        return PASS;
    }
    // SAFETY: this CPU's.
    let work = unsafe { &mut *work };
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.from_node = u32::from(!public);
    work.public_link = packet.ifindex() | if L3 == 0 { link::NO_HEADER } else { 0 };
    next(context, stage::ICMP)
}

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext) -> i32 {
    let packet = Packet::new(context.skb.skb);
    let Some(work) = Work::here() else {
        return PASS;
    };
    // SAFETY: this CPU's.
    let work = unsafe { &*work };
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

/// What the error is turned into.
struct Translation {
    /// The quoted segment as the receiver of the error sent it.
    quoted: Ends,
    /// Source of the error: `None` keeps the router's.
    source: Option<Address>,
    way: Way,
}

enum Way {
    Node(&'static Node),
    Client(u32),
}

#[inline(always)]
fn family<const V6: bool>(packet: Packet, work: &Work) -> i32 {
    let quote_at = work.l3 + ICMP + if V6 { 40 } else { 20 };
    let Some((words, quoted)) = read::<V6>(packet, quote_at) else {
        return PASS;
    };
    let found = if work.from_node == 0 {
        towards_node(&quoted)
    } else {
        towards_client(packet, &quoted)
    };
    let Some(translation) = found else {
        return PASS;
    };
    if !write::<V6>(packet, work.l3, quote_at, words, &quoted, &translation) {
        return count::drop(DropReason::KernelRefused);
    }
    match translation.way {
        Way::Node(target) => node::send_to(packet, target, work.l3 != 0),
        Way::Client(public_link) => node::send_to_client(packet, public_link, work.l3 != 0),
    }
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
fn towards_node(quoted: &Ends) -> Option<Translation> {
    // SAFETY: the number is copied at once.
    let id =
        unsafe { VIP_INDEX.get(Endpoint::new(quoted.source, quoted.source_port_be)) }.copied()?;
    let key = FlowKey {
        client: quoted.destination,
        port_be: quoted.destination_port_be,
        vip: id as u16,
    };
    // SAFETY: copied at once.
    let flow: Flow = unsafe { FLOWS.get(key) }.copied()?;
    if flow.state == state::CONNECTING {
        return None;
    }
    let path: Path = PATHS.get(u32::from(flow.path)).copied()?;
    let target = NODES.get(u32::from(path.node))?;
    let transparent = path.client_address == client_address::TRANSPARENT;
    Some(Translation {
        quoted: Ends {
            source: target.address,
            destination: if transparent {
                key.client
            } else {
                target.local
            },
            source_port_be: target.port_be,
            destination_port_be: flow.source_port_be,
            seq: quoted.seq.wrapping_sub(flow.delta),
        },
        source: if transparent {
            None
        } else {
            Some(target.local)
        },
        way: Way::Node(target),
    })
}

/// Says a router on the way to the node: the quoted segment is one we sent in a client's place.
#[inline(always)]
fn towards_client(packet: Packet, quoted: &Ends) -> Option<Translation> {
    // SAFETY: the number is copied at once.
    let number = unsafe {
        NODE_INDEX.get(Endpoint::new(
            quoted.destination,
            quoted.destination_port_be,
        ))
    }
    .copied()?;
    let target = NODES.get(number)?;
    if packet.ifindex() != target.ifindex {
        return None;
    }
    let reverse = ReverseKey {
        peer: quoted.source,
        port_be: quoted.source_port_be,
        node: number as u16,
    };
    // SAFETY: copied at once.
    let entry: ReverseEntry = unsafe { REVERSE.get(reverse) }.copied()?;
    let vip = VIPS.get(u32::from(entry.flow.vip))?;
    Some(Translation {
        quoted: Ends {
            source: entry.flow.client,
            destination: vip.address,
            source_port_be: entry.flow.port_be,
            destination_port_be: vip.port_be,
            seq: quoted.seq,
        },
        source: Some(vip.address),
        way: Way::Client(entry.public_link),
    })
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

/// Writes the quoted headers, then the outer addresses, and patches the sums.
#[inline(always)]
fn write<const V6: bool>(
    packet: Packet,
    l3: u32,
    quote_at: u32,
    words: [u32; 12],
    old: &Ends,
    to: &Translation,
) -> bool {
    let new = &to.quoted;
    let ports = pair(new.source_port_be, new.destination_port_be);
    let addresses = difference::<V6>(&old.source, &new.source)
        + difference::<V6>(&old.destination, &new.destination);
    let mut change = Sum::diff(pair(old.source_port_be, old.destination_port_be), ports)
        + Sum::diff(old.seq.to_be(), new.seq.to_be());
    let mut quote = words;
    let length = if V6 {
        [quote[2], quote[3], quote[4], quote[5]] = new.source;
        [quote[6], quote[7], quote[8], quote[9]] = new.destination;
        quote[10] = ports;
        quote[11] = new.seq.to_be();
        change += addresses;
        48
    } else {
        // The quoted header's own checksum balances its addresses.
        let [a, b, c, d] = words[2].to_ne_bytes();
        let stored = Stored(u16::from_ne_bytes([c, d])).patched(addresses).0;
        quote[2] = pair(u16::from_ne_bytes([a, b]), stored);
        quote[3] = new.source[3];
        quote[4] = new.destination[3];
        quote[5] = ports;
        quote[6] = new.seq.to_be();
        28
    };
    // SAFETY: 48 bytes.
    if !unsafe { packet.store(quote_at, quote.as_ptr().cast(), length) } {
        return false;
    }
    // The error goes to whoever sent the quoted segment.
    let field = quote_at - ICMP + 2;
    let Some(outer) = put_outer::<V6>(packet, l3, to.source, &new.source) else {
        return false;
    };
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
    source: Option<Address>,
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
        if let Some(source) = source {
            [new[0], new[1], new[2], new[3]] = source;
        }
        [new[4], new[5], new[6], new[7]] = *destination;
    } else {
        if let Some(source) = source {
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
