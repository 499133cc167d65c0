//! Segments of a connection without a flow: a hello is collected, and everything else is answered so that
//! the client's stack is done with it.
//!
//! Nothing is kept before the first data segment has shown a valid cookie. An incomplete part is
//! acknowledged, because a sender that times out resends only its first unacknowledged segment: were
//! nothing acknowledged, a lost second segment would never come. First bytes win: what is stored is never
//! written again, so what is judged is what the node gets.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{HELLO_CAP, Hello, hello_state, stage};
use forwarder_common::hello::Reader;
use forwarder_common::tcp::{ENTRANCE_SCALE, NO_SCALE, flag};
use forwarder_common::verdict::DropReason;

use crate::answer::{self, ALERT_LEN};
use crate::buffer::{self, Held, Missing};
use crate::packet::Packet;
use crate::work::Work;
use crate::{clock, cookies, count, next};

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext) -> i32 {
    let packet = Packet::new(context.skb.skb);
    let Some(work) = Work::here() else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: this CPU's.
    let work = unsafe { &mut *work };
    if work.v6 == 0 {
        family::<false>(context, packet, work)
    } else {
        family::<true>(context, packet, work)
    }
}

#[inline(always)]
fn family<const V6: bool>(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    match buffer::find(&work.key) {
        Ok(held) if is_another(work, held) => {
            buffer::release(&work.key, held);
            unknown::<V6>(context, packet, work)
        }
        Ok(held) => known::<V6>(context, packet, work, held),
        Err(Missing::Busy) => count::drop(DropReason::HelloBusy),
        Err(Missing::Absent) => unknown::<V6>(context, packet, work),
    }
}

/// Whether a client that forgot the connection in the buffer has begun another from the same port: its
/// segment then acknowledges another good cookie.
#[inline(always)]
fn is_another(work: &Work, held: Held) -> bool {
    // SAFETY: held.
    let known = unsafe { (*held.hello).entrance_isn };
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    cookie != known && work.has(flag::ACK) && cookies::verify(work, isn, cookie, clock::now_ns())
}

/// No byte of this connection was kept so far.
#[inline(always)]
fn unknown<const V6: bool>(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let now = clock::now_ns();
    if work.has(flag::RST) {
        return count::drop(DropReason::Absorbed);
    }
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    if !work.has(flag::ACK) || !cookies::verify(work, isn, cookie, now) {
        return stray::<V6>(packet, work, now);
    }
    if work.payload_len == 0 {
        // The third packet of the handshake; or the client leaves without a word.
        return if work.has(flag::FIN) {
            close::<V6>(packet, work)
        } else {
            count::drop(DropReason::Absorbed)
        };
    }
    count::add!(LISTENER_STATS, u32::from(work.listener), cookies_valid, 1);
    let held = match buffer::take(&work.key, clock::ms(now)) {
        Ok(held) => held,
        Err(Missing::Busy) => return count::drop(DropReason::HelloBusy),
        Err(Missing::Absent) => {
            count::add!(LISTENER_STATS, u32::from(work.listener), refused, 1);
            count::reason(DropReason::HelloBuffersFull);
            let reset =
                answer::segment(work, flag::RST | flag::ACK, work.ack, answer::end(work), 0);
            return answer::send::<V6>(packet, work, &reset);
        }
    };
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    hello.client_isn = isn;
    hello.entrance_isn = cookie;
    hello.state = hello_state::COLLECTING;
    hello.stored = 0;
    hello.started_ms = clock::ms(now);
    hello.syns = 0;
    hello.node_syns = 0;
    hello.attempt = 0;
    hello.segments = 0;
    hello.header_len = 0;
    hello.refused = 0;
    hello.reader = Reader::START;
    work.slot = held.slot;
    work.skip = 0;
    next_held(context, stage::STORE, held)
}

/// A segment without a buffer and without a cookie that fits its sequence number.
#[inline(always)]
fn stray<const V6: bool>(packet: Packet, work: &mut Work, now: u64) -> i32 {
    count::add!(LISTENER_STATS, u32::from(work.listener), cookies_invalid, 1);
    let ours = cookies::matches(work, work.ack.wrapping_sub(1), now)
        || cookies::matches(work, work.ack.wrapping_sub(2), now)
        || cookies::matches(work, work.ack.wrapping_sub(ALERT_LEN + 2), now);
    if !work.has(flag::ACK) || !ours {
        return answer::reset_unknown::<V6>(packet, work, now);
    }
    // One of our cookies, at its start, or behind a FIN or an alert and FIN of ours: a later segment that
    // overtook the first, or the client's farewell.
    if work.has(flag::FIN) {
        let reply = answer::segment(work, flag::ACK, work.ack, answer::end(work), 0);
        count::reason(DropReason::Absorbed);
        return answer::send::<V6>(packet, work, &reply);
    }
    count::drop(if work.payload_len == 0 {
        DropReason::Absorbed
    } else {
        DropReason::OutOfOrder
    })
}

/// FIN is answered with FIN: both ends are done.
#[inline(always)]
fn close<const V6: bool>(packet: Packet, work: &Work) -> i32 {
    count::reason(DropReason::Absorbed);
    let reply = answer::segment(work, flag::FIN | flag::ACK, work.ack, answer::end(work), 0);
    answer::send::<V6>(packet, work, &reply)
}

/// A connection whose hello was begun, or refused.
#[inline(always)]
fn known<const V6: bool>(context: &TcContext, packet: Packet, work: &mut Work, held: Held) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    work.slot = held.slot;
    let first = hello.client_isn.wrapping_add(1);
    let offset = work.seq.wrapping_sub(first);
    let edge = hello.stored;
    if hello.state == hello_state::ROUTED {
        // Its flow is over: a client that still sends learns it from a reset.
        buffer::release(&work.key, held);
        return answer::reset_unknown::<V6>(packet, work, clock::now_ns());
    }
    if work.has(flag::RST) {
        // Only the exact number ends it (RFC 5961 3.2).
        if offset == edge {
            buffer::release(&work.key, held);
        } else {
            buffer::unlock(held.hello);
        }
        return count::drop(DropReason::Absorbed);
    }
    if hello.state == hello_state::REFUSED {
        return refused::<V6>(context, packet, work, held, offset, edge);
    }
    if work.ack != hello.entrance_isn.wrapping_add(1) {
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    if work.payload_len == 0 {
        if work.has(flag::FIN) && offset == edge {
            buffer::release(&work.key, held);
            return close::<V6>(packet, work);
        }
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    let skip = edge.wrapping_sub(offset);
    // Ahead of what is stored (then `skip` wraps), or nothing new.
    if skip >= work.payload_len {
        if skip < 1 << 31 && hello.reader.position() < edge {
            return next_held(context, stage::PARSE, held);
        }
        count::reason(if skip < 1 << 31 {
            DropReason::Absorbed
        } else {
            DropReason::OutOfOrder
        });
        let action = acknowledge::<V6>(packet, work, hello);
        buffer::unlock(held.hello);
        return action;
    }
    work.skip = skip;
    next_held(context, stage::STORE, held)
}

/// The client of a refused hello still sends.
#[inline(always)]
fn refused<const V6: bool>(
    context: &TcContext,
    packet: Packet,
    work: &mut Work,
    held: Held,
    offset: u32,
    edge: u32,
) -> i32 {
    if work.has(flag::FIN) {
        buffer::release(&work.key, held);
        count::reason(DropReason::Absorbed);
        let reply = answer::segment(work, flag::ACK, work.ack, answer::end(work), 0);
        return answer::send::<V6>(packet, work, &reply);
    }
    if work.payload_len > 0 && offset < edge {
        return next_held(context, stage::REFUSE, held);
    }
    buffer::unlock(held.hello);
    count::drop(DropReason::AlreadyRefused)
}

/// Hands a held buffer to another stage; if that fails the hold ends here.
#[inline(always)]
pub fn next_held(context: &TcContext, slot: u32, held: Held) -> i32 {
    let action = next(context, slot);
    buffer::unlock(held.hello);
    action
}

/// Acknowledges what is stored, with a window of the room that is left.
#[inline(always)]
pub fn acknowledge<const V6: bool>(packet: Packet, work: &Work, hello: &Hello) -> i32 {
    let stored = hello.stored;
    let room = (HELLO_CAP as u32).saturating_sub(stored);
    let scaled = u32::from(
        forwarder_common::cookie::CookieOptions::of_cookie(hello.entrance_isn).window_scale,
    );
    let window = if scaled == NO_SCALE {
        room
    } else {
        room >> ENTRANCE_SCALE
    };
    let ack = hello.client_isn.wrapping_add(1).wrapping_add(stored);
    let reply = answer::segment(
        work,
        flag::ACK,
        hello.entrance_isn.wrapping_add(1),
        ack,
        window as u16,
    );
    answer::send::<V6>(packet, work, &reply)
}
