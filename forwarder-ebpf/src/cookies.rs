//! SYN cookies with the keys of `COOKIE_KEYS`.

use forwarder_common::cookie::{self, CookieOptions, Tuple};
use forwarder_common::segment::pair;

use crate::bounds::opaque;
use crate::maps::COOKIE_KEYS;
use crate::work::Work;

#[inline(always)]
fn key(epoch: u32) -> Option<[u64; 2]> {
    COOKIE_KEYS.get(cookie::key_slot(epoch)).copied()
}

#[inline(always)]
const fn wide(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[inline(always)]
fn tuple(work: &Work) -> Tuple {
    let [c0, c1, c2, c3] = work.key.client;
    let [l0, l1, l2, l3] = work.local;
    Tuple {
        client: [wide(c0, c1), wide(c2, c3)],
        local: [wide(l0, l1), wide(l2, l3)],
        ports: u64::from(pair(work.key.port_be, work.local_port_be)),
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

/// Whether `cookie` answered a SYN of this connection with this sequence number.
#[inline(always)]
pub fn verify(work: &Work, client_isn: u32, cookie: u32, now_ns: u64) -> bool {
    let tuple = tuple(work);
    let present = cookie::epoch(now_ns);
    let mut age = 0;
    while age < EPOCHS {
        let epoch = present.wrapping_sub(age);
        if key(epoch).is_some_and(|key| cookie::verify(key, &tuple, client_isn, cookie, epoch)) {
            return true;
        }
        age = opaque(age) + 1;
    }
    false
}

/// Whether the segment acknowledges a cookie that was ours for this connection, with whatever sequence
/// number, and then as many sequence numbers of ours as `further` lists.
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
