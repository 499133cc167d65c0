//! A SYN of an unknown connection: answered with a cookie, and forgotten.

use super::admit::{self, Admission};
use super::counters::add;
use super::packet::{Packet, Source};
use super::store::Store;
use super::work::{Options, Work};
use super::{cookies, reply};
use crate::cookie::CookieOptions;
use crate::segment::Segment;
use crate::tcp::{ENTRANCE_SCALE, NO_SCALE, OPTIONS_MAX, SynOptions, flag, syn_option_words};
use crate::verdict::{DropReason, Verdict};

/// The window of a SYN-ACK, which no scale applies to: what is kept of a hello, and no more.
const HELLO_WINDOW: u16 = 16_384;

/// Reads the option block of the segment in `work`.
#[inline(always)]
pub fn read_options<S: Store, P: Source, const V6: bool>(packet: P, work: &mut Work) -> bool {
    work.options = SynOptions::START;
    let length = S::mask::<0x3f>(u64::from(work.header_len.wrapping_sub(20))).get();
    if length == 0 {
        return true;
    }
    if length > u64::from(OPTIONS_MAX) {
        return false;
    }
    let length = S::positive::<0x3f>(length);
    if !packet.load_options::<V6>(work.l3, &mut work.option_bytes, length) {
        return false;
    }
    S::clobber(work);
    // Read back, so that it no longer matters how many words were copied.
    let length = S::mask::<0x3f>(u64::from(work.header_len.wrapping_sub(20))).get() as u32;
    for _ in 0..OPTIONS_MAX {
        S::clobber(work);
        let Work {
            options,
            option_bytes,
            ..
        } = &mut *work;
        if !options.step(&Options::<S>::new(option_bytes), length) {
            break;
        }
    }
    S::clobber(work);
    true
}

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    if work.v6 == 0 {
        family::<S, P, false>(store, packet, work)
    } else {
        family::<S, P, true>(store, packet, work)
    }
}

#[inline(always)]
fn family<S: Store, P: Packet, const V6: bool>(
    store: S,
    packet: P,
    work: &mut Work,
) -> Verdict<S::Held> {
    match admit::syn::<S, P, V6>(store, packet, work) {
        Admission::Answer(answer) => {
            count(store, work);
            reply::send::<S::Held, P, V6>(packet, work, &answer)
        }
        Admission::Refuse(reason) => Verdict::Drop(reason),
        Admission::Undecided => Verdict::Drop(DropReason::BadChecksum),
    }
}

/// Counts the answer to a SYN.
#[inline(always)]
pub fn count<S: Store>(store: S, work: &Work) {
    add!(
        store.listener_stats(u32::from(work.listener)),
        syns += 1,
        cookies += 1
    );
}

/// The SYN-ACK that answers the SYN in `work`.
#[inline(always)]
pub fn answer<S: Store, P: Source, const V6: bool>(
    store: S,
    packet: P,
    work: &mut Work,
) -> Result<Segment, DropReason> {
    if !read_options::<S, P, V6>(packet, work) {
        return Err(DropReason::MalformedSegment);
    }
    let offered = CookieOptions::of_syn(
        work.options.mss as u16,
        work.options.scale as u8,
        work.options.sack != 0,
    );
    let now = packet.now_ns();
    let Some(isn) = cookies::mint(store, work, offered, now) else {
        return Err(DropReason::KernelRefused);
    };
    let scale = if u32::from(offered.window_scale) == NO_SCALE {
        NO_SCALE
    } else {
        ENTRANCE_SCALE
    };
    let learnt = store.least_mss(u32::from(work.key.vip)).unwrap_or_default();
    let mss = learnt.advertised(work.mss, now);
    let (options, option_words) = syn_option_words(u32::from(mss), offered.sack, scale);
    Ok(Segment {
        options,
        option_words,
        ..reply::segment(
            work,
            flag::SYN | flag::ACK,
            isn,
            work.seq.wrapping_add(1),
            HELLO_WINDOW,
        )
    })
}
