//! SYN cookies with the keys of `COOKIE_KEYS`.

use forwarder_common::cookie::{self, CookieOptions, Fit, Tuple};
use forwarder_common::segment::pair;
use forwarder_common::token_bucket::Limit;

use crate::bounds::opaque;
use crate::maps::{COOKIE_KEYS, GUESSES};
use crate::work::Work;

#[inline(always)]
fn key(epoch: u32) -> Option<[u64; 2]> {
    COOKIE_KEYS.get(cookie::key_slot(epoch)).copied()
}

#[inline(always)]
fn tuple(work: &Work) -> Tuple {
    Tuple {
        client: work.key.client,
        local: work.local,
        ports: pair(work.key.port_be, work.local_port_be),
    }
}

/// The sequence number that answers the SYN in `work`.
#[inline(always)]
pub fn mint(work: &Work, options: CookieOptions, now_ns: u64) -> Option<u32> {
    let epoch = cookie::epoch(now_ns);
    Some(cookie::mint(
        key(epoch)?,
        &tuple(work),
        work.seq,
        options,
        epoch,
    ))
}

/// Wrong cookies on one CPU: 200 a second, and a thousand at once, are those of clients that were slow.
const GUESSED: Limit = Limit::per_second(200, 2_000);

/// How many epochs there are in which a cookie is accepted: the present one, and the last while it is fresh.
#[inline(always)]
fn epochs(now_ns: u64) -> u32 {
    let guesses = GUESSES.get_ptr(0);
    // SAFETY: this CPU's bucket.
    let guessed = guesses.is_some_and(|bucket| unsafe { (*bucket).is_low(now_ns, GUESSED) });
    1 + u32::from(cookie::accepts_previous(now_ns, guessed))
}

#[inline(always)]
fn wrong(now_ns: u64) {
    if let Some(bucket) = GUESSES.get_ptr_mut(0) {
        // SAFETY: this CPU's bucket.
        let _ = unsafe { (*bucket).take(now_ns, GUESSED) };
    }
}

/// How far `cookie` answered a SYN of this connection with this sequence number.
#[inline(always)]
pub fn fit(work: &Work, client_isn: u32, cookie: u32, now_ns: u64) -> Fit {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let mut best = Fit::Nothing;
    let accepted = epochs(now_ns);
    let mut age = 0;
    while age < accepted {
        let epoch = present.wrapping_sub(age);
        let Some(key) = key(epoch) else {
            break;
        };
        match cookie::fit(key, &tuple, client_isn, cookie, epoch) {
            Fit::Whole => return Fit::Whole,
            Fit::Ends => best = Fit::Ends,
            Fit::Nothing => {}
        }
        age = opaque(age) + 1;
    }
    if best == Fit::Nothing {
        wrong(now_ns);
    }
    best
}

/// Whether the segment acknowledges a cookie that was ours for this connection, with whatever sequence
/// number, and then as many sequence numbers of ours as one of `further` says.
#[inline(always)]
pub fn acknowledged<const N: usize>(work: &Work, further: [u32; N], now_ns: u64) -> bool {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let accepted = epochs(now_ns);
    let mut case = 0;
    while case < N as u32 {
        let mut cookie = work.ack.wrapping_sub(1);
        for (i, further) in further.into_iter().enumerate() {
            if case == i as u32 {
                cookie = cookie.wrapping_sub(further);
            }
        }
        let mut age = 0;
        while age < accepted {
            let epoch = present.wrapping_sub(age);
            if key(epoch).is_some_and(|key| cookie::tuple_matches(key, &tuple, cookie, epoch)) {
                return true;
            }
            age = opaque(age) + 1;
        }
        case = opaque(case) + 1;
    }
    false
}
