//! The node's answer to our SYN: learn its sequence numbers and send what we kept; have it forget an older connection
//! and ask again; or go to the next node.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, Hello, close_reason, hello_state, stage, state};
use forwarder_common::checksum::Sum;
use forwarder_common::cookie::CookieOptions;
use forwarder_common::handshake;
use forwarder_common::handshake::{Answer, CHALLENGES};
use forwarder_common::node_options::{NodeOptions, piece};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::{DEFAULT_MSS, NO_SCALE, flag};
use forwarder_common::verdict::DropReason;

use crate::buffer::{self, Held};
use crate::failover::{self, Next};
use crate::maps::{FLOWS, NODES, VIP_MSS, VIPS};
use crate::packet::Packet;
use crate::public::hello::next_held;
use crate::public::syn::read_options;
use crate::work::Work;
use crate::{clock, count, ends, events, node, verify};

/// The bound of the first bucket of connect times, µs; each next one doubles it.
const FIRST_BUCKET_US: u32 = 250;

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    if work.v6 == 0 {
        family::<false>(context, packet, work)
    } else {
        family::<true>(context, packet, work)
    }
}

#[inline(always)]
fn family<const V6: bool>(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(flow) = FLOWS.get_ptr_mut(work.key) else {
        return count::drop(DropReason::NotItsFlow);
    };
    // SAFETY: a map value; its fields have one writer each.
    let flow = unsafe { &mut *flow };
    let Some(peer) = NODES.get(work.node) else {
        return count::drop(DropReason::NotItsFlow);
    };
    // First, while every path arrives alike: the verifier then walks these loops once.
    let right = verify::checksum::<V6>(packet, work, peer.address, work.local)
        && (!work.has(flag::SYN) || read_options::<V6>(packet, work));
    // A repeated SYN-ACK after the hello arrived, or a segment before the SYN-ACK, says nothing new.
    let Ok(held) = buffer::find(&work.key) else {
        return count::drop(DropReason::Absorbed);
    };
    work.slot = held.slot;
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    if u32::from(flow.node) != work.node {
        // The flow went to the next node before the hello was held.
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    let answer = handshake::answer(work.flags as u8, work.ack, node::node_side_isn(hello));
    if flow.state == state::CONNECTING {
        if !right {
            buffer::unlock(held.hello);
            return count::drop(DropReason::BadChecksum);
        }
        if answer == Answer::Refused {
            return refused::<V6>(packet, work, flow, held);
        }
        if answer == Answer::Challenge && hello.challenges < CHALLENGES {
            return challenged::<V6>(packet, work, flow, held);
        }
    }
    if answer != Answer::Accepted || flow.state == state::SPLICED {
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    if flow.state == state::CONNECTING {
        let now = clock::now_ns();
        flow.delta = flow.entrance_isn.wrapping_sub(work.seq);
        learn::<V6>(work, flow, hello, now);
        flow.node_acked = 1;
        flow.seen_ms = clock::ms(now);
        let connect_us = clock::us(now).wrapping_sub(hello.syn_us);
        count_connect(work.node, connect_us);
        count::add!(PATH_STATS, u32::from(flow.path), opened, 1);
        hello.state = hello_state::ANSWERED;
        // Published last: from here on both sides translate.
        crate::bounds::forget(flow);
        flow.state = state::REPLAYING;
        events::opened(&work.key, flow, held.hello, connect_us, now);
    }
    work.replay_at = 0;
    next_held(context, stage::REPLAY, held)
}

/// What the node offered, for this flow and for the clients that come next.
#[inline(always)]
fn learn<const V6: bool>(work: &Work, flow: &mut Flow, hello: &mut Hello, now: u64) {
    let asked = u32::from(CookieOptions::of_cookie(flow.entrance_isn).window_scale);
    let scale = if asked == NO_SCALE {
        NO_SCALE
    } else {
        work.options.scale
    };
    // What a header without the option means is another number in IPv6.
    let mss = match work.options.mss {
        DEFAULT_MSS if V6 => 0,
        mss => mss,
    };
    flow.node_options = NodeOptions::new(scale, mss, V6).0;
    hello.piece = piece(mss, V6);
    if let Some(least) = VIP_MSS.get_ptr_mut(u32::from(work.key.vip)) {
        // SAFETY: one word of a map, for which a lost write is harmless.
        unsafe {
            let known = *least;
            let with = known.with(mss, now);
            if with != known {
                *least = with;
            }
        }
    }
}

/// The node still knows another connection of these ends: it is told to forget that one, by a copy, and the packet
/// becomes the SYN once more. What came is a sign of life, so the SYNs before count for nothing.
#[inline(always)]
fn challenged<const V6: bool>(packet: Packet, work: &Work, flow: &mut Flow, held: Held) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    hello.challenges = hello.challenges.wrapping_add(1);
    hello.node_syns = 0;
    let Next::Node(choice) = failover::again(work, flow, hello) else {
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    };
    let reset = Segment {
        source: work.local,
        destination: choice.node.address,
        source_port_be: work.local_port_be,
        destination_port_be: choice.node.port_be,
        seq: work.ack,
        ack: 0,
        flags: flag::RST,
        window: 0,
        options: [0; 3],
        option_words: 0,
        payload_len: 0,
    };
    let headers = reset.headers::<V6>();
    let made = packet.resize(work.l3 + headers.len)
        && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
        // A copy finds no neighbour for itself; the node's own frame tells where it came from.
        && (work.l3 == 0 || packet.swap_ethernet());
    if made && u32::from(flow.node) == work.node {
        let _ = packet.clone_to(choice.node.ifindex);
    }
    let now = clock::now_ns();
    let port_be = flow.source_port_be;
    let action = node::send_syn::<V6>(packet, work, hello, &choice, port_be, now);
    buffer::unlock(held.hello);
    action
}

/// The node answered with a reset: its packet becomes the SYN to the next node, or the client's reset.
#[inline(always)]
fn refused<const V6: bool>(packet: Packet, work: &mut Work, flow: &mut Flow, held: Held) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    if let Next::Node(choice) = failover::next(work, flow, hello, false) {
        let action = node::send_syn::<V6>(
            packet,
            work,
            hello,
            &choice,
            flow.source_port_be,
            clock::now_ns(),
        );
        buffer::unlock(held.hello);
        return action;
    }
    count::reason(DropReason::NodesUnreachable);
    let segment = VIPS.get(u32::from(work.key.vip)).map(|vip| Segment {
        source: vip.address,
        destination: work.key.client,
        source_port_be: vip.port_be,
        destination_port_be: work.key.port_be,
        seq: hello.entrance_isn.wrapping_add(1),
        ack: hello.client_isn.wrapping_add(1).wrapping_add(hello.stored),
        flags: flag::RST | flag::ACK,
        window: 0,
        options: [0; 3],
        option_words: 0,
        payload_len: 0,
    });
    buffer::release(&work.key, held);
    ends::remove(&work.key, flow, close_reason::NO_NODE);
    let Some(segment) = segment else {
        return count::drop(DropReason::LinkDown);
    };
    let headers = segment.headers::<V6>();
    if !packet.resize(work.l3 + headers.len)
        || !packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
    {
        return count::drop(DropReason::KernelRefused);
    }
    node::send_to_client(
        packet,
        work.public_link,
        &segment.source,
        &work.key.client,
        work.l3 != 0,
    )
}

#[inline(always)]
fn count_connect(number: u32, connect_us: u32) {
    count::add!(NODE_STATS, number, accepted, 1);
    count::add!(NODE_STATS, number, connect_us, u64::from(connect_us));
    let mut bucket = 0_u32;
    let mut bound = FIRST_BUCKET_US;
    for _ in 0..15 {
        if connect_us <= bound {
            break;
        }
        bucket += 1;
        bound <<= 1;
    }
    if let Some(stats) = crate::maps::NODE_STATS.get_ptr_mut(number) {
        let at = crate::bounds::mask::<0xf>(u64::from(bucket)) as usize;
        // SAFETY: this CPU's record; 16 buckets.
        unsafe {
            let cell = (&raw mut (*stats).connect_buckets).cast::<u64>().add(at);
            *cell = (*cell).wrapping_add(1);
        }
    }
}
