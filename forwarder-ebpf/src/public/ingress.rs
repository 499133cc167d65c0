//! Entry of the public side: is it ours, is it spliced already, or which stage has it next?

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, FlowKey, Vip, stage, state};
use forwarder_common::seq::SeqNumber;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::count::{self, PASS};
use crate::header::{Header, Kind};
use crate::maps::{FLOWS, HELLOS, VIPS};
use crate::packet::{Access, Packet};
use crate::public::splice;
use crate::work::Work;
use crate::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, buffer, extended, next, owner, too_big, verify};

/// A packet on a public interface with `L3` bytes of link-layer header.
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
        Kind::Icmp => return crate::icmp::enter::<L3, V6>(context, packet, true),
        Kind::Extended => return extended::enter::<L3, V6>(context, packet, true),
        Kind::Other => return PASS,
    };
    let Some((id, vip)) = owner::vip(&header.destination, header.destination_port_be) else {
        return PASS;
    };
    let key = FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: id as u16,
    };
    if vip.closed != 0 && is_the_hosts(&header, &key) {
        return PASS;
    }
    if L3 != 0 && !packet.untag() {
        return count::drop(DropReason::KernelRefused);
    }
    let listener = u32::from(vip.listener);
    let bytes = u64::from(packet.len() - L3 as u32);
    count::add!(
        LISTENER_STATS,
        listener,
        packets,
        packet.wire_packets(),
        bytes,
        bytes
    );
    if let Some(reason) = unacceptable(&header) {
        return count::drop(reason);
    }
    let syn = header.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        let slot = if syn { stage::SYN } else { stage::HELLO };
        return hand_on::<L3, V6>(context, packet, &header, &key, vip, slot);
    };
    if header.flags & (flag::SYN | flag::FIN | flag::RST) != 0 {
        return hand_on::<L3, V6>(context, packet, &header, &key, vip, stage::CLIENT_CONTROL);
    }
    // SAFETY: a map value; its fields have one writer each.
    let flow: &mut Flow = unsafe { &mut *flow };
    of_flow::<L3, V6>(context, packet, &header, &key, vip, flow)
}

/// The stage of segments that begin or end connections: acts on them only if their checksum is right. A wrong one is
/// dropped, because behind WireGuard, which marks all that it decrypts as verified, nobody would notice.
#[inline(always)]
pub fn control(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let (client, local) = (work.key.client, work.local);
    // First, while every path arrives alike: the verifier then walks the loop once for each family.
    let right = if work.v6 == 0 {
        verify::control::<false>(packet, work, client, local)
    } else {
        verify::control::<true>(packet, work, client, local)
    };
    if !right {
        return count::drop(DropReason::BadChecksum);
    }
    match (work.l3, work.v6) {
        (0, 0) => again::<0, false>(context, packet, work),
        (0, _) => again::<0, true>(context, packet, work),
        (_, 0) => again::<14, false>(context, packet, work),
        _ => again::<14, true>(context, packet, work),
    }
}

#[inline(always)]
fn again<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    work: &mut Work,
) -> i32 {
    let key = work.key;
    let Kind::Tcp(header) = Header::read::<L3, V6>(packet) else {
        return count::drop(DropReason::MalformedSegment);
    };
    let (Some(vip), Some(flow)) = (VIPS.get(u32::from(key.vip)), FLOWS.get_ptr_mut(key)) else {
        return count::drop(DropReason::Absorbed);
    };
    // SAFETY: a map value; its fields have one writer each.
    let flow: &mut Flow = unsafe { &mut *flow };
    of_flow::<L3, V6>(context, packet, &header, &key, vip, flow)
}

/// A segment of a flow.
#[inline(always)]
fn of_flow<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    header: &Header,
    key: &FlowKey,
    vip: &Vip,
    flow: &mut Flow,
) -> i32 {
    let syn = header.flags & flag::SYN != 0;
    let spliced = flow.state == state::SPLICED;
    let mut slot = stage::PENDING;
    if syn && spliced {
        slot = stage::PROBE;
    } else if !syn && (spliced || flow.state == state::REPLAYING && !overlaps(flow, key, header)) {
        if !too_big::is_too_big::<L3, V6>(packet, header, flow) {
            return splice::up::<L3, V6>(packet, header, key, flow);
        }
        slot = stage::TOO_BIG;
    }
    hand_on::<L3, V6>(context, packet, header, key, vip, slot)
}

/// Whether a segment to a claimed address that is closed is none of ours: of no open flow, or the first of a new
/// connection.
#[inline(always)]
pub fn is_the_hosts(header: &Header, key: &FlowKey) -> bool {
    let syn = header.flags & (flag::SYN | flag::ACK) == flag::SYN;
    syn || FLOWS.get_ptr(key).is_none()
}

/// Why a segment is not even looked up.
#[inline(always)]
pub fn unacceptable(header: &Header) -> Option<DropReason> {
    let flags = header.flags & (flag::SYN | flag::FIN | flag::RST | flag::ACK);
    // No stack sends SYN with FIN, RST or (to a server) ACK, nor a segment without any of the four.
    if header.malformed || flags == 0 || flags & flag::SYN != 0 && flags != flag::SYN {
        return Some(DropReason::MalformedSegment);
    }
    None
}

/// Whether a segment carries anything of what we answer for and the node may still be missing: the hello, or
/// bytes before it. The node must get those from us: in their place it would take a forged PROXY header or
/// another hello from the client, if ours were lost on the way. Everything does when the hello is no longer kept.
#[inline(always)]
fn overlaps(flow: &Flow, key: &FlowKey, header: &Header) -> bool {
    if header.payload_len == 0 {
        return false;
    }
    let Some(hello) = buffer::slot_of(key).and_then(|slot| HELLOS.get_ptr(slot)) else {
        return is_replaying(flow);
    };
    // SAFETY: words of a map value that do not change in this state. Who has the buffer is asked last.
    let (stored, own) = unsafe {
        let stored = core::ptr::read_volatile(&raw const (*hello).stored);
        (stored, buffer::same(&(*hello).owner, key))
    };
    if !own {
        return is_replaying(flow);
    }
    let end = flow.client_isn.wrapping_add(1).wrapping_add(stored);
    SeqNumber(header.seq).before(SeqNumber(end))
}

/// Whether it still is, now that it has no buffer: the node's acknowledgement may just have come.
#[inline(always)]
fn is_replaying(flow: &Flow) -> bool {
    // SAFETY: a byte of a map value.
    unsafe { core::ptr::read_volatile(&raw const flow.state) == state::REPLAYING }
}

/// Leaves the fast path.
#[inline(always)]
fn hand_on<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    header: &Header,
    key: &FlowKey,
    vip: &Vip,
    slot: u32,
) -> i32 {
    let Some(work) = crate::maps::work() else {
        return count::drop(DropReason::KernelRefused);
    };
    fill::<L3, V6>(work, header, key, vip);
    work.public_link = packet.link::<L3>();
    next(context, slot)
}

/// Puts down what is known of a segment.
#[inline(always)]
pub fn fill<const L3: usize, const V6: bool>(
    work: &mut Work,
    header: &Header,
    key: &FlowKey,
    vip: &Vip,
) {
    work.key = *key;
    work.local = vip.address;
    work.local_port_be = vip.port_be;
    work.table = vip.table;
    work.listener = vip.listener;
    work.mss = vip.mss;
    work.on_refuse = u32::from(vip.on_refuse);
    work.from_node = 0;
    work.runs = 0;
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.header_len = header.header_len;
    work.payload_len = header.payload_len;
    work.seq = header.seq;
    work.ack = header.ack;
    work.flags = u32::from(header.flags);
    work.window = u32::from(header.window);
}
