//! Connections that have ended: entered when a flow is removed, asked when something comes that no flow takes.

use super::store::Store;
use super::work::{Reply, Work};
use super::{ms, reply};
use crate::abi::{Closed, Flow, FlowKey, close_reason, state};
use crate::closed::{Ended, WAYS, digest, set_of};
use crate::tcp::flag;
use crate::verdict::DropReason;

#[inline(always)]
fn digest_of<S: Store>(store: S, key: &FlowKey) -> Option<u64> {
    Some(digest(store.settings()?.name_secret, key))
}

/// Remembers a flow that ends. One that no node had accepted has had no effect: its client may try again.
#[inline(always)]
pub fn remember<S: Store>(store: S, key: &FlowKey, flow: &Flow, reason: u32, now_ns: u64) {
    if flow.state == state::CONNECTING {
        return;
    }
    let Some(digest) = digest_of(store, key) else {
        return;
    };
    let now = ms(now_ns);
    let finished = reason == close_reason::FINISHED;
    let closed = Closed::new(digest, flow.entrance_isn, finished, now);
    store.closed_set(set_of(digest), |set| {
        let place = S::mask::<{ WAYS as i32 - 1 }>(u64::from(set.place(now)));
        S::put(&mut set.ways, place, closed);
    });
}

/// What is known of a connection with this four-tuple and this cookie.
#[inline(always)]
pub fn of_cookie<S: Store>(store: S, key: &FlowKey, cookie: u32, now_ns: u64) -> Ended {
    let Some(digest) = digest_of(store, key) else {
        return Ended::Unknown;
    };
    match store.closed_set(set_of(digest), |set| {
        set.of_cookie(digest, cookie, ms(now_ns))
    }) {
        Some(ended) => ended,
        None => Ended::Unknown,
    }
}

/// What is known of the last connection with this four-tuple.
#[inline(always)]
pub fn last<S: Store>(store: S, key: &FlowKey, now_ns: u64) -> Ended {
    let Some(digest) = digest_of(store, key) else {
        return Ended::Unknown;
    };
    match store.closed_set(set_of(digest), |set| set.last(digest, ms(now_ns))) {
        Some(ended) => ended,
        None => Ended::Unknown,
    }
}

/// A segment of a connection that has ended. Makes the reply of an end that has closed it: none to an
/// acknowledgement or a reset, an acknowledgement to a FIN that comes again (RFC 9293 3.10.7.4, TIME-WAIT), and a reset
/// to everything else. Says why there is none.
#[inline(always)]
pub fn reply<S: Store>(
    store: S,
    work: &mut Work,
    ended: Ended,
    now_ns: u64,
) -> Result<(), DropReason> {
    if work.has(flag::RST) {
        return Err(DropReason::Absorbed);
    }
    if ended == Ended::Finished {
        if work.has(flag::FIN) {
            store.count(DropReason::Absorbed);
            work.reply = Reply::new(flag::ACK, work.ack, reply::end(work));
            return Ok(());
        }
        if work.payload_len == 0 {
            return Err(DropReason::Absorbed);
        }
    }
    reply::reset(store, work, now_ns, DropReason::Absorbed)
}
