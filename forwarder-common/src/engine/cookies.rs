//! SYN cookies with the keys of the store.

use super::store::{Bucket, Store};
use super::work::Work;
use crate::cookie::{self, CookieOptions, Fit, Tuple};
use crate::segment::pair;
use crate::token_bucket::Limit;

/// Wrong cookies on one processor: 200 a second, and a thousand at once, are those of clients that were slow.
const GUESSED: Limit = Limit::per_second(200, 2_000);

#[inline(always)]
fn key<S: Store>(store: S, epoch: u32) -> Option<[u64; 2]> {
    store.cookie_key(cookie::key_slot(epoch))
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
pub fn mint<S: Store>(store: S, work: &Work, options: CookieOptions, now_ns: u64) -> Option<u32> {
    let epoch = cookie::epoch(now_ns);
    Some(cookie::mint(
        key(store, epoch)?,
        &tuple(work),
        work.seq,
        options,
        epoch,
    ))
}

/// How many epochs there are in which a cookie is accepted: the present one, and the last while it is fresh.
#[inline(always)]
fn epochs<S: Store>(store: S, now_ns: u64) -> u32 {
    let guessed = store.bucket(Bucket::Guesses, |bucket| bucket.is_low(now_ns, GUESSED));
    1 + u32::from(cookie::accepts_previous(now_ns, guessed))
}

#[inline(always)]
fn wrong<S: Store>(store: S, now_ns: u64) {
    store.bucket(Bucket::Guesses, |bucket| bucket.take(now_ns, GUESSED));
}

/// How far `cookie` answered a SYN of this connection with this sequence number.
#[inline(always)]
pub fn fit<S: Store>(store: S, work: &Work, client_isn: u32, cookie: u32, now_ns: u64) -> Fit {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let mut best = Fit::Nothing;
    let accepted = epochs(store, now_ns);
    let mut age = 0;
    while age < accepted {
        let epoch = present.wrapping_sub(age);
        let Some(key) = key(store, epoch) else {
            break;
        };
        match cookie::fit(key, &tuple, client_isn, cookie, epoch) {
            Fit::Whole => return Fit::Whole,
            Fit::Ends => best = Fit::Ends,
            Fit::Nothing => {}
        }
        age = S::black_box(age) + 1;
    }
    if best == Fit::Nothing {
        wrong(store, now_ns);
    }
    best
}

/// Whether the segment acknowledges a cookie that was ours for this connection, with whatever sequence
/// number, and then as many sequence numbers of ours as one of `further` says.
#[inline(always)]
pub fn acknowledged<S: Store, const N: usize>(
    store: S,
    work: &Work,
    further: [u32; N],
    now_ns: u64,
) -> bool {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let accepted = epochs(store, now_ns);
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
            if key(store, epoch)
                .is_some_and(|key| cookie::tuple_matches(key, &tuple, cookie, epoch))
            {
                return true;
            }
            age = S::black_box(age) + 1;
        }
        case = S::black_box(case) + 1;
    }
    false
}
