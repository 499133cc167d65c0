//! Connections that have ended: entered when a flow is removed, asked when something comes that no flow takes.

use forwarder_common::abi::{Closed, ClosedSet, Flow, FlowKey, close_reason, state};
use forwarder_common::closed::{Ended, WAYS, digest, set_of};
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::bounds::mask;
use crate::maps::{CLOSED, SETTINGS};
use crate::work::{Reply, Work};
use crate::{answer, clock, count};

#[inline(always)]
fn find(key: &FlowKey) -> Option<(u64, *mut ClosedSet)> {
    let digest = digest(SETTINGS.get(0)?.name_secret, key);
    Some((digest, CLOSED.get_ptr_mut(set_of(digest))?))
}

/// Remembers a flow that ends. One that no node had accepted has had no effect: its client may try again.
#[inline(always)]
pub fn remember(key: &FlowKey, flow: &Flow, reason: u32, now_ns: u64) {
    if flow.state == state::CONNECTING {
        return;
    }
    let Some((digest, set)) = find(key) else {
        return;
    };
    let now = clock::ms(now_ns);
    let finished = reason == close_reason::FINISHED;
    // SAFETY: a map value; what another processor changes meanwhile only makes the choice worse. The place is one of
    // four.
    unsafe {
        let place = mask::<{ WAYS as i32 - 1 }>(u64::from((*set).place(now))) as usize;
        let way = (&raw mut (*set).ways).cast::<Closed>().add(place);
        *way = Closed::new(digest, flow.entrance_isn, finished, now);
    }
}

/// What is known of a connection with these ends and this cookie.
#[inline(always)]
pub fn of_cookie(key: &FlowKey, cookie: u32, now_ns: u64) -> Ended {
    match find(key) {
        // SAFETY: a map value.
        Some((digest, set)) => unsafe { (*set).of_cookie(digest, cookie, clock::ms(now_ns)) },
        None => Ended::Unknown,
    }
}

/// What is known of the last connection with these ends.
#[inline(always)]
pub fn last(key: &FlowKey, now_ns: u64) -> Ended {
    match find(key) {
        // SAFETY: a map value.
        Some((digest, set)) => unsafe { (*set).last(digest, clock::ms(now_ns)) },
        None => Ended::Unknown,
    }
}

/// A segment of a connection that has ended. Makes the reply that an end gives which has closed it: none to an
/// acknowledgement or a reset, an acknowledgement to a FIN that comes again (RFC 9293 3.10.7.4, TIME-WAIT), and a reset
/// to everything else. Says why there is none.
#[inline(always)]
pub fn reply(work: &mut Work, ended: Ended, now_ns: u64) -> Result<(), DropReason> {
    if work.has(flag::RST) {
        return Err(DropReason::Absorbed);
    }
    if ended == Ended::Finished {
        if work.has(flag::FIN) {
            count::reason(DropReason::Absorbed);
            work.reply = Reply::new(flag::ACK, work.ack, answer::end(work));
            return Ok(());
        }
        if work.payload_len == 0 {
            return Err(DropReason::Absorbed);
        }
    }
    answer::reset(work, now_ns, DropReason::Absorbed)
}
