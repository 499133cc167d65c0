//! Answers of our own: the packet at hand is rebuilt and goes back where it came from.

use aya_ebpf::bindings::TC_ACT_SHOT;
use forwarder_common::abi::Settings;
use forwarder_common::checksum::Sum;
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::token_bucket::Limit;
use forwarder_common::verdict::DropReason;

use crate::count;
use crate::maps::{RESETS, SETTINGS};
use crate::packet::{ETHERNET, Packet};
use crate::work::{Reply, Work};

/// TLS alert, fatal, unrecognized_name (RFC 6066 3), in a record of TLS 1.2; padded to words.
const ALERT: [u8; 8] = [21, 3, 3, 0, 2, 2, 112, 0];
/// Its length.
pub const ALERT_LEN: u32 = 7;

/// A segment towards the sender of the one in `work`.
#[inline(always)]
pub fn segment(work: &Work, flags: u8, seq: u32, ack: u32, window: u16) -> Segment {
    Segment {
        source: work.local,
        destination: work.key.client,
        source_port_be: work.local_port_be,
        destination_port_be: work.key.port_be,
        seq,
        ack,
        flags,
        window,
        options: [0; 3],
        option_words: 0,
        payload_len: 0,
    }
}

/// Sends it. Returns the action.
#[inline(always)]
pub fn send<const V6: bool>(packet: Packet, work: &Work, segment: &Segment) -> i32 {
    let headers = segment.headers::<V6>();
    let fixed = if V6 { 60 } else { 40 };
    let longest = work.l3
        + if segment.option_words == 0 {
            fixed
        } else {
            fixed + 12
        };
    let length = work.l3 + headers.len;
    if !packet.resize(longest) || !packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO) {
        return count::drop(DropReason::KernelRefused);
    }
    if length != longest && !packet.resize(length) {
        return count::drop(DropReason::KernelRefused);
    }
    finish(packet, work)
}

/// Makes the packet a bare segment without options.
#[inline(always)]
pub fn put<const V6: bool>(packet: Packet, work: &Work, segment: &Segment) -> bool {
    let headers = segment.headers::<V6>();
    let length = if V6 { 60 } else { 40 };
    packet.resize(work.l3 + length) && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
}

/// Sends it with the TLS alert behind it.
#[inline(always)]
pub fn send_alert<const V6: bool>(packet: Packet, work: &Work, segment: &Segment) -> i32 {
    let segment = Segment {
        payload_len: ALERT_LEN,
        ..*segment
    };
    let headers = segment.headers::<V6>();
    let at = work.l3 + headers.len;
    let [a, b, c, d, e, f, g, h] = ALERT;
    let sum = Sum::ZERO
        .add_u32_raw(u32::from_ne_bytes([a, b, c, d]))
        .add_u32_raw(u32::from_ne_bytes([e, f, g, h]));
    // SAFETY: `ALERT` is longer than what is read of it.
    let stored = packet.resize(at + ALERT_LEN)
        && unsafe { packet.store(at, ALERT.as_ptr(), u64::from(ALERT_LEN)) }
        && packet.put_headers::<V6>(work.l3, &headers, sum);
    if stored {
        finish(packet, work)
    } else {
        count::drop(DropReason::KernelRefused)
    }
}

/// Sends the finished packet back where it came from. Returns the action.
#[inline(always)]
pub fn finish(packet: Packet, work: &Work) -> i32 {
    if work.l3 == ETHERNET && !packet.swap_ethernet() {
        return count::drop(DropReason::KernelRefused);
    }
    packet.redirect(packet.ifindex())
}

/// Sends `work.reply`. Returns the action.
#[inline(always)]
pub fn reply<const V6: bool>(packet: Packet, work: &Work) -> i32 {
    let Reply {
        flags,
        seq,
        ack,
        window,
    } = work.reply;
    send::<V6>(
        packet,
        work,
        &segment(work, flags as u8, seq, ack, window as u16),
    )
}

/// Makes the reply to a segment that belongs to nothing a reset, as far as the rate limit allows, and never
/// to a reset (RFC 9293 3.10.7.1).
#[inline(always)]
pub fn reset_unknown(work: &mut Work, now_ns: u64) -> Result<(), DropReason> {
    reset(work, now_ns, DropReason::UnknownFlow)
}

/// As [`reset_unknown`], counted for this reason.
#[inline(always)]
pub fn reset(work: &mut Work, now_ns: u64, why: DropReason) -> Result<(), DropReason> {
    if work.has(flag::RST) {
        return Err(DropReason::Absorbed);
    }
    if !reset_allowed(now_ns) {
        return Err(DropReason::ResetRateLimited);
    }
    count::reason(why);
    work.reply = if work.has(flag::ACK) {
        Reply::new(flag::RST, work.ack, 0)
    } else {
        Reply::new(flag::RST | flag::ACK, 0, end(work))
    };
    Ok(())
}

/// The sequence number behind this segment.
#[inline(always)]
pub fn end(work: &Work) -> u32 {
    let mut end = work.seq.wrapping_add(work.payload_len);
    if work.has(flag::SYN) {
        end = end.wrapping_add(1);
    }
    if work.has(flag::FIN) {
        end = end.wrapping_add(1);
    }
    end
}

#[inline(always)]
fn reset_allowed(now_ns: u64) -> bool {
    let (Some(bucket), Some(settings)) = (RESETS.get_ptr_mut(0), SETTINGS.get(0)) else {
        return false;
    };
    let Settings {
        reset_interval_ns,
        reset_fill_ns,
        ..
    } = *settings;
    let limit = Limit {
        interval_ns: reset_interval_ns,
        fill_ns: reset_fill_ns,
    };
    // SAFETY: this CPU's bucket.
    unsafe { (*bucket).take(now_ns, limit) }
}

/// Drops without a count of its own: the reason was counted already.
pub const COUNTED: i32 = TC_ACT_SHOT;
