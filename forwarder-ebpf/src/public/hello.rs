//! Segments of a connection without a flow: a hello is collected, and everything else is answered so that
//! the client's stack is done with it.
//!
//! Nothing is kept before the first data segment has shown a valid cookie. An incomplete part is
//! acknowledged, because a sender that times out resends only its first unacknowledged segment: were
//! nothing acknowledged, a lost second segment would never come. First bytes win: what is stored is never
//! written again, so what is judged is what the node gets.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{HELLO_CAP, Hello, hello_state, on_refuse, stage};
use forwarder_common::closed::Ended;
use forwarder_common::cookie::{CookieOptions, Fit};
use forwarder_common::hello::Reader;
use forwarder_common::share;
use forwarder_common::tcp::{ENTRANCE_SCALE, NO_SCALE, flag};
use forwarder_common::verdict::DropReason;

use crate::answer::{self, ALERT_LEN};
use crate::buffer::{self, Held, Missing};
use crate::count::PASS;
use crate::maps::{FLOWS, HELLO_LOST, SETTINGS};
use crate::packet::Packet;
use crate::work::{Reply, Work};
use crate::{clock, closed, cookies, count, next, predecessor, sources, verify};

/// What comes of a segment. An answer stands in `work.reply`, so that one place sends it.
enum Outcome {
    /// Of none of our connections, and perhaps one of the programs behind.
    Pass,
    Drop(DropReason),
    Answer(DropReason),
    /// As [`Self::Answer`], of what was counted already.
    Counted,
    /// Rate-limited, and never to a reset.
    Reset,
    Next(u32, Held),
    /// It has a flow by now.
    Pending,
}

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let now = clock::now_ns();
    // What ends a connection must be right; so must what is kept, which is looked at when it is.
    if (work.has(flag::FIN) || work.has(flag::RST)) && !is_right(packet, work) {
        return count::drop(DropReason::BadChecksum);
    }
    let mut found = buffer::find(&work.key);
    let mut routed = false;
    if let Ok(held) = found {
        routed = has_flow(work, held);
        if !routed && is_another(work, held, now) {
            buffer::release(&work.key, held);
            found = Err(Missing::Absent);
        }
    }
    let outcome = match found {
        Ok(held) if routed => {
            buffer::unlock(held.hello);
            Outcome::Pending
        }
        Ok(held) => known(work, held, now),
        Err(Missing::Busy) => Outcome::Drop(DropReason::HelloBusy),
        Err(Missing::Absent) => unknown(work, now),
    };
    match outcome {
        Outcome::Pass => return PASS,
        Outcome::Drop(reason) => return count::drop(reason),
        Outcome::Next(slot, held) => return next_held(context, slot, held),
        Outcome::Pending => return next(context, stage::PENDING),
        Outcome::Answer(reason) => count::reason(reason),
        Outcome::Counted => {}
        Outcome::Reset => {
            if let Err(reason) = answer::reset_unknown(work, now) {
                return count::drop(reason);
            }
            if let Some(reason) = invalid_source(work) {
                return count::drop(reason);
            }
        }
    }
    if work.v6 == 0 {
        answer::reply::<false>(packet, work)
    } else {
        answer::reply::<true>(packet, work)
    }
}

/// Whether another CPU made the flow after this one had looked for it.
#[inline(always)]
fn has_flow(work: &Work, held: Held) -> bool {
    // SAFETY: held.
    let state = unsafe { (*held.hello).state };
    is_routed(state) && FLOWS.get_ptr(work.key).is_some()
}

const fn is_routed(state: u32) -> bool {
    state == hello_state::ROUTED || state == hello_state::ANSWERED
}

#[inline(always)]
fn is_right(packet: Packet, work: &mut Work) -> bool {
    let (client, local) = (work.key.client, work.local);
    if work.v6 == 0 {
        verify::control::<false>(packet, work, client, local)
    } else {
        verify::control::<true>(packet, work, client, local)
    }
}

/// Why nothing is kept or said for whoever sent the segment, if so.
#[inline(always)]
fn invalid_source(work: &Work) -> Option<DropReason> {
    if work.v6 == 0 {
        sources::refused::<false>(&work.key.client, &work.local)
    } else {
        sources::refused::<true>(&work.key.client, &work.local)
    }
}

/// Whether a client that forgot the connection in the buffer has begun another from the same port: its
/// segment then acknowledges another good cookie.
#[inline(always)]
fn is_another(work: &Work, held: Held, now: u64) -> bool {
    // SAFETY: held.
    let known = unsafe { (*held.hello).entrance_isn };
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    cookie != known && work.has(flag::ACK) && cookies::fit(work, isn, cookie, now) == Fit::Whole
}

/// No byte of this connection was kept so far.
#[inline(always)]
fn unknown(work: &mut Work, now: u64) -> Outcome {
    if work.has(flag::RST) {
        return if predecessor::is_behind() {
            Outcome::Pass
        } else {
            Outcome::Drop(DropReason::Absorbed)
        };
    }
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    let fit = if work.has(flag::ACK) {
        cookies::fit(work, isn, cookie, now)
    } else {
        Fit::Nothing
    };
    if fit != Fit::Whole {
        return stray(work, fit, now);
    }
    if work.payload_len == 0 {
        // The third packet of the handshake; or the client leaves without a word.
        return if work.has(flag::FIN) {
            close(work)
        } else {
            Outcome::Drop(DropReason::Absorbed)
        };
    }
    if let Some(reason) = invalid_source(work) {
        return Outcome::Drop(reason);
    }
    if lost(work) {
        return Outcome::Answer(DropReason::HelloDisplaced);
    }
    let ended = closed::of_cookie(&work.key, cookie, now);
    if ended != Ended::Unknown {
        // The hello of a connection that has ended, once more.
        return late(work, ended, now);
    }
    count::add!(LISTENER_STATS, u32::from(work.listener), cookies_valid, 1);
    let held = match buffer::take(&work.key, clock::ms(now)) {
        Ok(held) => held,
        Err(Missing::Busy) => return Outcome::Drop(DropReason::HelloBusy),
        // Its client repeats it, and finds one then: that takes longer, but loses nothing.
        Err(Missing::Absent) => return Outcome::Drop(DropReason::HelloBuffersFull),
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
    Outcome::Next(stage::STORE, held)
}

/// A segment without a buffer and without a cookie that fits its sequence number.
#[inline(always)]
fn stray(work: &mut Work, fit: Fit, now: u64) -> Outcome {
    let ended = closed::last(&work.key, now);
    if ended != Ended::Unknown {
        return late(work, ended, now);
    }
    if predecessor::is_behind() {
        // One flow in fifty looks by chance as if it acknowledged a cookie of ours. It would wait until it is entered here.
        return Outcome::Pass;
    }
    // Nothing more of ours, a FIN, or an alert and a FIN.
    let ours = fit == Fit::Ends
        || work.has(flag::ACK) && cookies::acknowledged(work, [1, ALERT_LEN + 1], now);
    count::add!(LISTENER_STATS, u32::from(work.listener), cookies_invalid, 1);
    if !ours {
        return Outcome::Reset;
    }
    if fit == Fit::Ends && lost(work) {
        return Outcome::Answer(DropReason::HelloDisplaced);
    }
    // One of our cookies, at its start, or behind a FIN or an alert and FIN of ours: a later segment that
    // overtook the first, or the client's farewell.
    if work.has(flag::FIN) {
        work.reply = Reply::new(flag::ACK, work.ack, answer::end(work));
        return Outcome::Answer(DropReason::Absorbed);
    }
    if work.payload_len == 0 {
        return Outcome::Drop(DropReason::Absorbed);
    }
    if fit == Fit::Ends {
        // So looks one in 128 of those that write on behind our alert, too. They are told when their cookie has expired.
        return Outcome::Drop(DropReason::OutOfOrder);
    }
    // It has our alert, and writes on.
    still_sends(work)
}

/// Whether the connection had a buffer and lost it. Then its client cannot go on, and is told.
#[inline(always)]
fn lost(work: &mut Work) -> bool {
    // SAFETY: the number is copied at once.
    let cookie = unsafe { HELLO_LOST.get(work.key) }.copied();
    if work.payload_len == 0 || cookie != Some(work.ack.wrapping_sub(1)) {
        return false;
    }
    work.reply = Reply::new(flag::RST, work.ack, 0);
    true
}

/// A segment of a connection that has ended.
#[inline(always)]
fn late(work: &mut Work, ended: Ended, now: u64) -> Outcome {
    match closed::reply(work, ended, now) {
        Ok(()) => Outcome::Counted,
        Err(reason) => Outcome::Drop(reason),
    }
}

/// FIN is answered with FIN: both ends are done.
#[inline(always)]
fn close(work: &mut Work) -> Outcome {
    work.reply = Reply::new(flag::FIN | flag::ACK, work.ack, answer::end(work));
    Outcome::Answer(DropReason::Absorbed)
}

/// A connection whose hello was begun, or refused.
#[inline(always)]
fn known(work: &mut Work, held: Held, now: u64) -> Outcome {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    work.slot = held.slot;
    let first = hello.client_isn.wrapping_add(1);
    let offset = work.seq.wrapping_sub(first);
    let edge = hello.stored;
    if is_routed(hello.state) {
        // Its flow is over: a client that still sends learns it from a reset.
        buffer::release(&work.key, held);
        return Outcome::Reset;
    }
    if work.has(flag::RST) {
        // Only the exact number ends it (RFC 5961 3.2).
        if offset == edge {
            buffer::release(&work.key, held);
        } else {
            buffer::unlock(held.hello);
        }
        return Outcome::Drop(DropReason::Absorbed);
    }
    if is_late(hello, now) {
        buffer::release(&work.key, held);
        work.reply = Reply::new(flag::RST, work.ack, 0);
        return if work.has(flag::ACK) {
            Outcome::Answer(DropReason::HelloTimeout)
        } else {
            Outcome::Drop(DropReason::HelloTimeout)
        };
    }
    if hello.state == hello_state::REFUSED {
        return refused(work, held, offset, edge);
    }
    if work.ack != hello.entrance_isn.wrapping_add(1) {
        buffer::unlock(held.hello);
        return Outcome::Drop(DropReason::Absorbed);
    }
    if work.payload_len == 0 {
        if work.has(flag::FIN) && offset == edge {
            buffer::release(&work.key, held);
            return close(work);
        }
        // A keep-alive, or a probe of the window (RFC 9293 3.8.4, 3.8.6.1).
        let probe = offset == edge.wrapping_sub(1);
        if probe {
            acknowledge(work, hello);
        }
        buffer::unlock(held.hello);
        return if probe {
            Outcome::Answer(DropReason::Absorbed)
        } else {
            Outcome::Drop(DropReason::Absorbed)
        };
    }
    let skip = edge.wrapping_sub(offset);
    // Ahead of what is stored (then `skip` wraps), or nothing new.
    if skip >= work.payload_len {
        if skip < 1 << 31 && hello.reader.can_go_on(edge) {
            return Outcome::Next(stage::PARSE, held);
        }
        acknowledge(work, hello);
        buffer::unlock(held.hello);
        return Outcome::Answer(if skip < 1 << 31 {
            DropReason::Absorbed
        } else {
            DropReason::OutOfOrder
        });
    }
    work.skip = skip;
    Outcome::Next(stage::STORE, held)
}

/// Whether its client has had its time.
#[inline(always)]
fn is_late(hello: &Hello, now: u64) -> bool {
    SETTINGS.get(0).is_some_and(|settings| {
        share::age_ms(hello.started_ms, clock::ms(now)) >= settings.hello_timeout_ms
    })
}

/// Data of a client that was told already that its connection is over. A reset that came before it had read the alert
/// would make some stacks throw that away, so only an acknowledgement of the alert draws one.
#[inline(always)]
fn still_sends(work: &mut Work) -> Outcome {
    work.reply = Reply::new(flag::RST, work.ack, 0);
    Outcome::Answer(DropReason::AlreadyRefused)
}

/// The client of a refused hello still sends.
#[inline(always)]
fn refused(work: &mut Work, held: Held, offset: u32, edge: u32) -> Outcome {
    if work.has(flag::FIN) {
        buffer::release(&work.key, held);
        work.reply = Reply::new(flag::ACK, work.ack, answer::end(work));
        return Outcome::Answer(DropReason::Absorbed);
    }
    if work.payload_len > 0 && offset < edge {
        return Outcome::Next(stage::REFUSE, held);
    }
    // SAFETY: held.
    let cookie = unsafe { (*held.hello).entrance_isn };
    let told = match work.on_refuse as u8 {
        on_refuse::ALERT => work.ack.wrapping_sub(cookie) == 1 + ALERT_LEN + 1,
        on_refuse::RESET => true,
        _ => false,
    };
    if work.payload_len > 0 && told {
        buffer::release(&work.key, held);
        return still_sends(work);
    }
    buffer::unlock(held.hello);
    Outcome::Drop(DropReason::AlreadyRefused)
}

/// Hands a held buffer to another stage; if that fails the hold ends here.
#[inline(always)]
pub fn next_held(context: &TcContext, slot: u32, held: Held) -> i32 {
    let action = next(context, slot);
    buffer::unlock(held.hello);
    action
}

/// Makes the reply that acknowledges what is stored, with a window of the room that is left.
#[inline(always)]
pub fn acknowledge(work: &mut Work, hello: &Hello) {
    let ack = hello.client_isn.wrapping_add(1).wrapping_add(hello.stored);
    work.reply = Reply::new(flag::ACK, hello.entrance_isn.wrapping_add(1), ack);
    work.reply.window = window(hello);
}

/// The room that is left, as a window.
#[inline(always)]
pub fn window(hello: &Hello) -> u32 {
    let room = (HELLO_CAP as u32).saturating_sub(hello.stored);
    let scale = u32::from(CookieOptions::of_cookie(hello.entrance_isn).window_scale);
    if scale == NO_SCALE {
        room
    } else {
        // Rounded up: a sender that could not come to the end would never be judged.
        (room + (1 << ENTRANCE_SCALE) - 1) >> ENTRANCE_SCALE
    }
}
