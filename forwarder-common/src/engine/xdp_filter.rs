//! The XDP filter: what needs no memory, done by a native XDP program in front of everything else, while a
//! flood lasts. SYNs are answered with the same cookies, ACKs that fit no cookie are dropped; open flows,
//! hellos and foreign traffic go on to the next hook, which does all it always did.
//!
//! Attaching or detaching the program changes nothing for anybody but who floods.

use super::admit::{self, Admission};
use super::counters::add;
use super::header::{Header, Kind};
use super::packet::Frame;
use super::reply::is_within_rate;
use super::store::{Bucket, Store};
use super::work::Work;
use super::{ETHERNET, cookies, extended, lookup, public, syn};
use crate::abi::{FlowKey, tally};
use crate::cookie::Fit;
use crate::tcp::flag;
use crate::verdict::DropReason;

const L3: usize = ETHERNET as usize;

/// What becomes of a frame.
#[must_use]
pub enum Filtered {
    /// The next hook has it; counted in this slot of [`tally`].
    Pass(u32),
    /// It is dropped, and counted for this reason.
    Drop(DropReason),
    /// It is the answer to what it was, and goes back.
    Answer,
}

/// A frame on a public Ethernet interface.
#[inline(always)]
pub fn filter<S: Store, F: Frame, const V6: bool>(store: S, frame: F) -> Filtered {
    let header = match Header::read::<F, L3, V6>(frame) {
        Kind::Tcp(header) => header,
        Kind::Extended if !V6 => {
            return match extended::claimed_v4(store, frame) {
                Some(reason) if frame.is_for_this_host() => Filtered::Drop(reason),
                _ => Filtered::Pass(tally::XDP_FOREIGN),
            };
        }
        _ => return Filtered::Pass(tally::XDP_FOREIGN),
    };
    let Some((number, vip)) = lookup::vip(store, &header.destination, header.destination_port_be)
    else {
        return Filtered::Pass(tally::XDP_FOREIGN);
    };
    let key = FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: number as u16,
    };
    if vip.closed != 0 {
        return Filtered::Pass(tally::XDP_FOREIGN);
    }
    // A SYN of an open flow too: its node is asked about it, and a cookie would answer for nobody.
    if store.flow(&key).is_some() {
        return Filtered::Pass(tally::XDP_FLOW);
    }
    if !frame.is_for_this_host() {
        return Filtered::Pass(tally::XDP_FOREIGN);
    }
    // A frame in several buffers looks shorter here than it is; the next hook sees it whole.
    if header.malformed {
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    let Some(mut work) = store.work() else {
        return Filtered::Pass(tally::XDP_HANDED_ON);
    };
    let work = &mut *work;
    public::fill::<L3, V6>(work, &header, &key, &vip);
    if let Some(reason) = admit::segment(&header) {
        return drop(store, frame, work, reason);
    }
    if let Some(reason) = crate::admit::impossible::<V6>(&header.source, &vip.address) {
        return drop(store, frame, work, reason);
    }
    // From here on everything is read back from `work`: what follows is then verified in one state.
    S::clobber(work);
    if work.has(flag::SYN) {
        return answer::<S, F, V6>(store, frame, work);
    }
    if store.hello_slot(&work.key).is_some() {
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    stranger(store, frame, work)
}

#[inline(always)]
fn answer<S: Store, F: Frame, const V6: bool>(store: S, frame: F, work: &mut Work) -> Filtered {
    let reply = match admit::syn::<S, F, V6>(store, frame, work) {
        Admission::Answer(reply) => reply,
        Admission::Refuse(reason) => return drop(store, frame, work, reason),
        Admission::Undecided => return Filtered::Pass(tally::XDP_HANDED_ON),
    };
    let bytes = u64::from(frame.len() - ETHERNET);
    if !frame.answer::<V6>(&reply.headers::<V6>()) {
        // The driver leaves no room for the four bytes of an MSS: the next hook makes its own.
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    count_arrival(store, work, bytes);
    syn::count(store, work);
    Filtered::Answer
}

/// A segment of a connection of which nothing is kept: only data behind a good cookie, and now and then one that may
/// deserve a reset, are worth the next hook's time.
#[inline(always)]
fn stranger<S: Store, F: Frame>(store: S, frame: F, work: &Work) -> Filtered {
    if admit::has_predecessor(store) {
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    if work.has(flag::RST) {
        return drop(store, frame, work, DropReason::Absorbed);
    }
    let now = frame.now_ns();
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    let fit = if work.has(flag::ACK) {
        cookies::fit(store, work, isn, cookie, now)
    } else {
        Fit::Nothing
    };
    if fit == Fit::Whole {
        if work.payload_len == 0 && !work.has(flag::FIN) {
            return drop(store, frame, work, DropReason::Absorbed);
        }
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    // The second segment of a hello: all frames of a batch come by here before the next hook sees the first.
    let later = fit == Fit::Ends && work.payload_len != 0;
    // As many more as may be answered with a reset.
    if later || is_within_rate(store, Bucket::Strays, now) {
        return Filtered::Pass(tally::XDP_HANDED_ON);
    }
    add!(
        store.listener_stats(u32::from(work.listener)),
        cookies_invalid += 1
    );
    drop(store, frame, work, DropReason::ResetRateLimited)
}

/// What ends here is counted as the next hook would have.
#[inline(always)]
fn drop<S: Store, F: Frame>(store: S, frame: F, work: &Work, reason: DropReason) -> Filtered {
    count_arrival(store, work, u64::from(frame.len() - ETHERNET));
    Filtered::Drop(reason)
}

#[inline(always)]
fn count_arrival<S: Store>(store: S, work: &Work, bytes: u64) {
    add!(
        store.listener_stats(u32::from(work.listener)),
        packets += 1,
        bytes += bytes
    );
}
