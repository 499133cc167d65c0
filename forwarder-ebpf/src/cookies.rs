//! SYN cookies with the keys of `COOKIE_KEYS`.

use forwarder_common::cookie::{self, CookieOptions, Fit, Tuple};
use forwarder_common::segment::pair;

use crate::bounds::opaque;
use crate::maps::COOKIE_KEYS;
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

/// Epochs in which a cookie is accepted: the present one and the last.
const EPOCHS: u32 = 2;

/// How far `cookie` answered a SYN of this connection with this sequence number.
#[inline(always)]
pub fn fit(work: &Work, client_isn: u32, cookie: u32, now_ns: u64) -> Fit {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let mut best = Fit::Nothing;
    let mut age = 0;
    while age < EPOCHS {
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
    best
}

/// Whether the segment acknowledges a cookie that was ours for this connection, with whatever sequence
/// number, and then as many sequence numbers of ours as one of `further` says.
#[inline(always)]
pub fn acknowledged<const N: usize>(work: &Work, further: [u32; N], now_ns: u64) -> bool {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let mut case = 0;
    while case < N as u32 {
        let mut cookie = work.ack.wrapping_sub(1);
        for (i, further) in further.into_iter().enumerate() {
            if case == i as u32 {
                cookie = cookie.wrapping_sub(further);
            }
        }
        let mut age = 0;
        while age < EPOCHS {
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
