//! Answers of our own: the packet at hand is rebuilt and goes back where it came from.

use super::ETHERNET;
use super::packet::Packet;
use super::store::{Bucket, Store};
use super::work::{Reply, Work};
use crate::checksum::Sum;
use crate::segment::Segment;
use crate::tcp::flag;
use crate::token_bucket::Limit;
use crate::verdict::{DropReason, Verdict};

/// TLS alert, fatal, unrecognized_name (RFC 6066 3), in a record of TLS 1.2; padded to words.
const ALERT: [u8; 8] = [21, 3, 3, 0, 2, 2, 112, 0];
/// Its length.
pub const ALERT_LEN: u32 = 7;

/// A segment towards the sender of the one in `work`.
#[inline(always)]
#[must_use]
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

/// Sends it.
#[inline(always)]
pub fn send<H, P: Packet, const V6: bool>(packet: P, work: &Work, segment: &Segment) -> Verdict<H> {
    if put_with_options::<P, V6>(packet, work.l3, segment) {
        back(packet, work)
    } else {
        Verdict::Drop(DropReason::KernelRefused)
    }
}

/// Makes the packet a segment without payload, behind `l3` bytes of link-layer header.
#[inline(always)]
fn put_with_options<P: Packet, const V6: bool>(packet: P, l3: u32, segment: &Segment) -> bool {
    let headers = segment.headers::<V6>();
    let fixed = if V6 { 60 } else { 40 };
    let longest = l3
        + if segment.option_words == 0 {
            fixed
        } else {
            fixed + 12
        };
    let length = l3 + headers.len;
    packet.resize(longest)
        && packet.put_headers::<V6>(l3, &headers, Sum::ZERO)
        && (length == longest || packet.resize(length))
}

/// Makes the packet a bare segment without options.
#[inline(always)]
pub fn put<P: Packet>(packet: P, work: &Work, segment: &Segment) -> bool {
    if work.v6 == 0 {
        put_bare::<P, false>(packet, work, segment)
    } else {
        put_bare::<P, true>(packet, work, segment)
    }
}

#[inline(always)]
fn put_bare<P: Packet, const V6: bool>(packet: P, work: &Work, segment: &Segment) -> bool {
    let headers = segment.headers::<V6>();
    let length = if V6 { 60 } else { 40 };
    packet.resize(work.l3 + length) && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
}

/// Sends it with the TLS alert behind it.
#[inline(always)]
pub fn send_alert<H, P: Packet, const V6: bool>(
    packet: P,
    work: &Work,
    segment: &Segment,
) -> Verdict<H> {
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
    if packet.resize(at + ALERT_LEN)
        && packet.put_bytes::<{ ALERT_LEN as usize }, 8>(at, &ALERT)
        && packet.put_headers::<V6>(work.l3, &headers, sum)
    {
        back(packet, work)
    } else {
        Verdict::Drop(DropReason::KernelRefused)
    }
}

/// Sends the finished packet back where it came from.
#[inline(always)]
pub fn back<H, P: Packet>(packet: P, work: &Work) -> Verdict<H> {
    if work.l3 == ETHERNET && !packet.swap_ethernet() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    Verdict::Redirect(packet.ifindex())
}

/// Sends `work.reply`.
#[inline(always)]
pub fn reply<H, P: Packet, const V6: bool>(packet: P, work: &Work) -> Verdict<H> {
    let Reply {
        flags,
        seq,
        ack,
        window,
    } = work.reply;
    send::<H, P, V6>(
        packet,
        work,
        &segment(work, flags as u8, seq, ack, window as u16),
    )
}

/// Makes the reply to a segment that belongs to nothing a reset, as far as the rate limit allows, and never
/// to a reset (RFC 9293 3.10.7.1).
#[inline(always)]
pub fn reset_unknown<S: Store>(store: S, work: &mut Work, now_ns: u64) -> Result<(), DropReason> {
    reset(store, work, now_ns, DropReason::UnknownFlow)
}

/// As [`reset_unknown`], counted for this reason.
#[inline(always)]
pub fn reset<S: Store>(
    store: S,
    work: &mut Work,
    now_ns: u64,
    why: DropReason,
) -> Result<(), DropReason> {
    if work.has(flag::RST) {
        return Err(DropReason::Absorbed);
    }
    if !is_within_rate(store, Bucket::Resets, now_ns) {
        return Err(DropReason::ResetRateLimited);
    }
    store.count(why);
    work.reply = if work.has(flag::ACK) {
        Reply::new(flag::RST, work.ack, 0)
    } else {
        Reply::new(flag::RST | flag::ACK, 0, end(work))
    };
    Ok(())
}

/// The sequence number behind this segment.
#[inline(always)]
#[must_use]
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

/// Whether one more may be sent of what has the rate limit of resets.
#[inline(always)]
pub fn is_within_rate<S: Store>(store: S, bucket: Bucket, now_ns: u64) -> bool {
    store.bucket(bucket, |bucket| {
        let Some(settings) = store.settings() else {
            return false;
        };
        let limit = Limit {
            interval_ns: settings.reset_interval_ns,
            fill_ns: settings.reset_fill_ns,
        };
        bucket.take(now_ns, limit)
    })
}
