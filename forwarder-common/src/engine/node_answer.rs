//! The node's answer to our SYN: learn its sequence numbers and send what we kept; have it forget an older connection
//! and ask again; or go to the next node.

use super::counters::add;
use super::failover::{self, Next};
use super::packet::Packet;
use super::store::Store;
use super::syn::read_options;
use super::work::Work;
use super::{buffer, close, connect, egress, ms, reply, us, verify};
use crate::abi::{Hello, Node, close_reason, hello_state, stage, state};
use crate::cookie::CookieOptions;
use crate::handshake::{self, Answer, CHALLENGES};
use crate::node_options::{NodeOptions, piece};
use crate::segment::Segment;
use crate::tcp::{DEFAULT_MSS, NO_SCALE, flag};
use crate::verdict::{DropReason, Verdict};

/// The bound of the first bucket of connect times, µs; each next one doubles it.
const FIRST_BUCKET_US: u32 = 250;

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let Some(mut flow) = store.flow(&work.key) else {
        return Verdict::Drop(DropReason::NotItsFlow);
    };
    let Some(peer) = store.node(work.node) else {
        return Verdict::Drop(DropReason::NotItsFlow);
    };
    // First, while every path arrives alike: the verifier then walks these loops once.
    let right = if work.v6 == 0 {
        is_right::<S, P, false>(packet, work, &peer)
    } else {
        is_right::<S, P, true>(packet, work, &peer)
    };
    // A repeated SYN-ACK after the hello arrived, or a segment before the SYN-ACK, says nothing new.
    let Ok(mut held) = buffer::find(store, &work.key) else {
        return Verdict::Drop(DropReason::Absorbed);
    };
    work.slot = store.slot(&held);
    let hello = &mut *held;
    if u32::from(flow.node) != work.node {
        // The flow went to the next node before the hello was held.
        store.unlock(held);
        return Verdict::Drop(DropReason::Absorbed);
    }
    let answer = handshake::answer(work.flags as u8, work.ack, connect::node_side_isn(hello));
    if flow.state == state::CONNECTING {
        if !right {
            store.unlock(held);
            return Verdict::Drop(DropReason::BadChecksum);
        }
        if answer == Answer::Refused {
            return refused(store, packet, work, flow, held);
        }
        if answer == Answer::Challenge && hello.challenges < CHALLENGES {
            return challenged(store, packet, work, flow, held);
        }
    }
    if answer != Answer::Accepted || flow.state == state::SPLICED {
        store.unlock(held);
        return Verdict::Drop(DropReason::Absorbed);
    }
    if flow.state == state::CONNECTING {
        let now = store.now_ns();
        flow.delta = flow.entrance_isn.wrapping_sub(work.seq);
        learn(store, work, &mut flow, hello, now);
        flow.node_acked = 1;
        flow.seen_ms = ms(now);
        let connect_us = us(now).wrapping_sub(hello.syn_us);
        count_connect(store, work.node, connect_us);
        add!(store.target_stats(u32::from(flow.path)), opened += 1);
        hello.state = hello_state::ANSWERED;
        // Published last: from here on both sides translate.
        S::clobber(&mut *flow);
        flow.state = state::REPLAYING;
        store.report_opened(&work.key, &flow, &held, connect_us, now);
    }
    work.replay_at = 0;
    Verdict::NextHeld(stage::REPLAY, held)
}

/// Whether the segment's checksum is right, and its options could be read.
#[inline(always)]
fn is_right<S: Store, P: Packet, const V6: bool>(packet: P, work: &mut Work, node: &Node) -> bool {
    verify::checksum::<S, P, V6>(packet, work, node.address, work.local)
        && (!work.has(flag::SYN) || read_options::<S, P, V6>(packet, work))
}

/// What the node offered, for this flow and for the clients that come next.
#[inline(always)]
fn learn<S: Store>(store: S, work: &Work, flow: &mut S::Flow, hello: &mut Hello, now: u64) {
    let asked = u32::from(CookieOptions::of_cookie(flow.entrance_isn).window_scale);
    let scale = if asked == NO_SCALE {
        NO_SCALE
    } else {
        work.options.scale
    };
    let v6 = work.v6 != 0;
    // What a header without the option means is another number in IPv6.
    let mss = match work.options.mss {
        DEFAULT_MSS if v6 => 0,
        mss => mss,
    };
    flow.node_options = NodeOptions::new(scale, mss, v6).0;
    hello.piece = piece(mss, v6);
    let vip = u32::from(work.key.vip);
    if let Some(known) = store.least_mss(vip) {
        // A lost write is harmless.
        let with = known.with(mss, now);
        if with != known {
            store.set_least_mss(vip, with);
        }
    }
}

/// The node still knows another connection of this four-tuple: it is told to forget that one, by a copy, and the packet
/// becomes the SYN once more. What came is a sign of life, so the SYNs before count for nothing.
#[inline(always)]
fn challenged<S: Store, P: Packet>(
    store: S,
    packet: P,
    work: &Work,
    mut flow: S::Flow,
    mut held: S::Held,
) -> Verdict<S::Held> {
    let hello = &mut *held;
    hello.challenges = hello.challenges.wrapping_add(1);
    hello.node_syns = 0;
    let Next::Node(choice) = failover::again(store, work, &mut flow, hello) else {
        store.unlock(held);
        return Verdict::Drop(DropReason::Absorbed);
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
    let made = reply::put(packet, work, &reset)
        // A copy finds no neighbour for itself; the node's own frame tells where it came from.
        && (work.l3 == 0 || packet.swap_ethernet());
    if made && u32::from(flow.node) == work.node {
        let _ = packet.clone_to(choice.node.ifindex);
    }
    let now = store.now_ns();
    let port_be = flow.source_port_be;
    let verdict = connect::send_syn(store, packet, work, hello, &choice, port_be, now);
    store.unlock(held);
    verdict
}

/// The node answered with a reset: its packet becomes the SYN to the next node, or the client's reset.
#[inline(always)]
fn refused<S: Store, P: Packet>(
    store: S,
    packet: P,
    work: &mut Work,
    mut flow: S::Flow,
    mut held: S::Held,
) -> Verdict<S::Held> {
    let hello = &mut *held;
    if let Next::Node(choice) = failover::next(store, work, &mut flow, hello, false) {
        let verdict = connect::send_syn(
            store,
            packet,
            work,
            hello,
            &choice,
            flow.source_port_be,
            store.now_ns(),
        );
        store.unlock(held);
        return verdict;
    }
    store.count(DropReason::NodesUnreachable);
    let segment = store.vip(u32::from(work.key.vip)).map(|vip| Segment {
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
    buffer::release(store, &work.key, held);
    close::remove(store, &work.key, &flow, close_reason::NO_NODE);
    let Some(segment) = segment else {
        return Verdict::Drop(DropReason::LinkDown);
    };
    if !reply::put(packet, work, &segment) {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    egress::to_client(
        packet,
        work.public_link,
        &segment.source,
        &work.key.client,
        work.l3 != 0,
    )
}

#[inline(always)]
fn count_connect<S: Store>(store: S, number: u32, connect_us: u32) {
    let mut bucket = 0_u32;
    let mut bound = FIRST_BUCKET_US;
    for _ in 0..15 {
        if connect_us <= bound {
            break;
        }
        bucket += 1;
        bound <<= 1;
    }
    store.node_stats(number, |stats| {
        stats.accepted = stats.accepted.wrapping_add(1);
        stats.connect_us = stats.connect_us.wrapping_add(u64::from(connect_us));
        S::increment(
            &mut stats.connect_buckets,
            S::mask::<0xf>(u64::from(bucket)),
        );
    });
}
