//! A SYN of an unknown connection: answered with a cookie, and forgotten. What the answer is, is the same at
//! both hooks.

use aya_ebpf::programs::TcContext;
use forwarder_common::cookie::CookieOptions;
use forwarder_common::segment::Segment;
use forwarder_common::tcp::{
    ENTRANCE_SCALE, NO_SCALE, OPTIONS_MAX, SynOptions, flag, syn_option_words,
};
use forwarder_common::verdict::DropReason;

use crate::bounds::{forget, mask, positive};
use crate::maps::VIP_MSS;
use crate::packet::{Access, Packet};
use crate::work::{Options, Work};
use crate::{answer, cookies, count, sources, verify};

/// The window of a SYN-ACK, which no scale applies to: what is kept of a hello, and no more.
const HELLO_WINDOW: u16 = 16_384;

/// Reads the option block of the segment in `work`.
#[inline(always)]
pub fn read_options<const V6: bool>(packet: impl Access, work: &mut Work) -> bool {
    work.options = SynOptions::START;
    let length = mask::<0x3f>(u64::from(work.header_len.wrapping_sub(20)));
    if length == 0 {
        return true;
    }
    if length > u64::from(OPTIONS_MAX) {
        return false;
    }
    let length = positive::<0x3f>(length);
    // SAFETY: at most 64 bytes into 64.
    if !unsafe { packet.load_options::<V6>(work.l3, work.option_bytes.as_mut_ptr(), length) } {
        return false;
    }
    forget(work);
    // Read back, so that it no longer matters how many words were copied.
    let length = mask::<0x3f>(u64::from(work.header_len.wrapping_sub(20))) as u32;
    let bytes = Options(work.option_bytes.as_ptr());
    for _ in 0..OPTIONS_MAX {
        forget(work);
        if !work.options.step(&bytes, length) {
            break;
        }
    }
    forget(work);
    true
}

/// The stage.
#[inline(always)]
pub fn stage(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    if work.v6 == 0 {
        family::<false>(packet, work)
    } else {
        family::<true>(packet, work)
    }
}

#[inline(always)]
fn family<const V6: bool>(packet: Packet, work: &mut Work) -> i32 {
    let (client, local) = (work.key.client, work.local);
    // A damaged option would be believed for as long as the connection lasts.
    if !verify::checksum::<V6>(packet, work, client, local) {
        return count::drop(DropReason::BadChecksum);
    }
    if let Some(reason) = sources::refused::<V6>(&client, &local) {
        return count::drop(reason);
    }
    match cookie::<V6>(packet, work) {
        Ok(reply) => {
            answered(work);
            answer::send::<V6>(packet, work, &reply)
        }
        Err(reason) => count::drop(reason),
    }
}

/// Counts the answer to a SYN.
#[inline(always)]
pub fn answered(work: &Work) {
    count::add!(
        LISTENER_STATS,
        u32::from(work.listener),
        syns,
        1,
        cookies,
        1
    );
}

/// The SYN-ACK that answers the SYN in `work`.
#[inline(always)]
pub fn cookie<const V6: bool>(packet: impl Access, work: &mut Work) -> Result<Segment, DropReason> {
    if !read_options::<V6>(packet, work) {
        return Err(DropReason::MalformedSegment);
    }
    let offered = CookieOptions::of_syn(
        work.options.mss as u16,
        work.options.scale as u8,
        work.options.sack != 0,
    );
    let now = packet.now_ns();
    let Some(isn) = cookies::mint(work, offered, now) else {
        return Err(DropReason::KernelRefused);
    };
    let scale = if u32::from(offered.window_scale) == NO_SCALE {
        NO_SCALE
    } else {
        ENTRANCE_SCALE
    };
    let learnt = VIP_MSS.get(u32::from(work.key.vip)).copied();
    let mss = learnt.unwrap_or_default().advertised(work.mss, now);
    let (options, option_words) = syn_option_words(u32::from(mss), offered.sack, scale);
    Ok(Segment {
        options,
        option_words,
        ..answer::segment(
            work,
            flag::SYN | flag::ACK,
            isn,
            work.seq.wrapping_add(1),
            HELLO_WINDOW,
        )
    })
}
