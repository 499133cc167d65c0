//! Entry of the public side: is it ours, is it spliced already, or which stage has it next?

use super::counters::add;
use super::header::{Header, Kind};
use super::packet::Packet;
use super::store::Store;
use super::work::Work;
use super::{admit, buffer, extended, icmp, lookup, too_big, translate, verify};
use crate::abi::{FlowKey, Vip, stage, state};
use crate::seq::SeqNumber;
use crate::tcp::flag;
use crate::verdict::{DropReason, Verdict};

/// A packet on a public interface with `L3` bytes of link-layer header.
#[inline(always)]
pub fn ingress<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
) -> Verdict<S::Held> {
    let header = match Header::read::<P, L3, V6>(packet) {
        Kind::Tcp(header) => header,
        Kind::Icmp => return icmp::enter::<S, P, L3, V6>(store, packet, true),
        Kind::Extended => return extended::enter::<S, P, L3, V6>(store, packet, true),
        Kind::Other => return Verdict::Pass,
    };
    let Some((number, vip)) = lookup::vip(store, &header.destination, header.destination_port_be)
    else {
        return Verdict::Pass;
    };
    let key = FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: number as u16,
    };
    if vip.closed != 0 && is_the_hosts(store, &header, &key) {
        return Verdict::Pass;
    }
    if L3 != 0 && !packet.untag() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    let bytes = u64::from(packet.len() - L3 as u32);
    let wire_packets = packet.wire_packets();
    add!(
        store.listener_stats(u32::from(vip.listener)),
        packets += wire_packets,
        bytes += bytes
    );
    if let Some(reason) = admit::segment(&header) {
        return Verdict::Drop(reason);
    }
    let syn = header.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
    let Some(flow) = store.flow(&key) else {
        let stage = if syn { stage::SYN } else { stage::HELLO };
        return hand_on::<S, P, L3, V6>(store, packet, &header, &key, &vip, stage);
    };
    if header.flags & (flag::SYN | flag::FIN | flag::RST) != 0 {
        return hand_on::<S, P, L3, V6>(store, packet, &header, &key, &vip, stage::CLIENT_CONTROL);
    }
    of_flow::<S, P, L3, V6>(store, packet, &header, &key, &vip, flow)
}

/// The stage of segments that begin or end connections: acts on them only if their checksum is right. A wrong one is
/// dropped, because behind WireGuard, which marks all that it decrypts as verified, nobody would notice.
#[inline(always)]
pub fn control<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let (client, local) = (work.key.client, work.local);
    // First, while every path arrives alike: the verifier then walks the loop once for each family.
    let right = if work.v6 == 0 {
        verify::control::<S, P, false>(packet, work, client, local)
    } else {
        verify::control::<S, P, true>(packet, work, client, local)
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
    let (Some(vip), Some(flow)) = (store.vip(u32::from(key.vip)), store.flow(&key)) else {
        return Verdict::Drop(DropReason::Absorbed);
    };
    of_flow::<S, P, L3, V6>(store, packet, &header, &key, &vip, flow)
}

/// A segment of a flow.
#[inline(always)]
fn of_flow<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    header: &Header,
    key: &FlowKey,
    vip: &Vip,
    mut flow: S::Flow,
) -> Verdict<S::Held> {
    let syn = header.flags & flag::SYN != 0;
    let spliced = flow.state == state::SPLICED;
    let mut stage = stage::PENDING;
    if syn && spliced {
        stage = stage::PROBE;
    } else if !syn
        && (spliced || flow.state == state::REPLAYING && !overlaps(store, &mut flow, key, header))
    {
        if !too_big::is_too_big::<P, L3, V6>(packet, header, &flow) {
            return translate::up::<S, P, L3, V6>(store, packet, header, key, flow);
        }
        stage = stage::TOO_BIG;
    }
    hand_on::<S, P, L3, V6>(store, packet, header, key, vip, stage)
}

/// Whether a segment to a closed VIP is none of ours: of no open flow, or the first of a new connection.
#[inline(always)]
fn is_the_hosts<S: Store>(store: S, header: &Header, key: &FlowKey) -> bool {
    let syn = header.flags & (flag::SYN | flag::ACK) == flag::SYN;
    syn || store.flow(key).is_none()
}

/// Whether a segment carries anything of what we answer for and the node may still be missing: the hello, or
/// bytes before it. The node must get those from us: in their place it would take a forged PROXY header or
/// another hello from the client, if ours were lost on the way. Everything does when the hello is no longer kept.
#[inline(always)]
fn overlaps<S: Store>(store: S, flow: &mut S::Flow, key: &FlowKey, header: &Header) -> bool {
    if header.payload_len == 0 {
        return false;
    }
    let Some((stored, owner)) = store.hello_slot(key).and_then(|slot| store.peek(slot)) else {
        return is_replaying::<S>(flow);
    };
    if !buffer::same(&owner, key) {
        return is_replaying::<S>(flow);
    }
    let end = flow.client_isn.wrapping_add(1).wrapping_add(stored);
    SeqNumber(header.seq).before(SeqNumber(end))
}

/// Whether it still is, now that it has no buffer: the node's acknowledgement may just have come.
#[inline(always)]
fn is_replaying<S: Store>(flow: &mut S::Flow) -> bool {
    S::clobber(&mut **flow);
    flow.state == state::REPLAYING
}

/// Leaves the fast path.
#[inline(always)]
fn hand_on<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    header: &Header,
    key: &FlowKey,
    vip: &Vip,
    stage: u32,
) -> Verdict<S::Held> {
    let Some(mut work) = store.work() else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    fill::<L3, V6>(&mut work, header, key, vip);
    work.public_link = packet.link::<L3>();
    Verdict::Next(stage)
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
