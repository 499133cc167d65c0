//! A client's segment that is larger than its node takes: "fragmentation needed" (RFC 1191) or "packet too big"
//! (RFC 8201) goes back in its place, as from a router, and the client sends smaller ones.
//!
//! A client of today is told at its SYN what the smallest node takes. But a node may have offered less for the first
//! time, and a pod behind another tunnel does so without anybody near the entrance knowing. What is dropped on the
//! way from there would be a black hole: the errors about it quote addresses that only the node knows.
//!
//! **Checksums.** The packet that becomes the error may say that its TCP checksum is yet to be filled in, by a device
//! that sums up from where the TCP header stood and stores the result sixteen bytes further on (`CHECKSUM_PARTIAL`: all
//! that GRO has merged, and everything of a veth). So the message is laid before that place, and zeros from there on:
//! their sum is zero with the checksum of zeros among them, and without it. Whether it is filled in or not, the
//! message's own checksum is right.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::Flow;
use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::node_options;
use forwarder_common::token_bucket::Limit;
use forwarder_common::verdict::DropReason;

use crate::header::Header;
use crate::maps::{ERRORS, FLOWS, SETTINGS};
use crate::packet::{Access, Packet};
use crate::work::Work;
use crate::{answer, clock, count};

/// Bytes of ICMP header.
const ICMP: u32 = 8;
/// Bytes of zeros, where the TCP header stood.
const ZEROS: u32 = 20;
/// *Don't fragment* in the second byte pair of an IPv4 header's second word.
const DONT_FRAGMENT: u16 = 0x4000;
const ICMP_V6: u32 = 58;

/// Whether a client's segment is too big for its node, and the client can be told: a sender that lets routers cut its
/// packets expects no such answer. Of several merged into one, each counts by itself.
#[inline(always)]
pub fn is_too_big<const L3: usize, const V6: bool>(
    packet: Packet,
    header: &Header,
    flow: &Flow,
) -> bool {
    let options = flow.node_options();
    options.is_too_big(header.payload_len)
        && options.is_too_big(packet.segment_size(header.payload_len))
        && (V6 || forbids_cutting::<L3>(packet))
}

#[inline(always)]
fn forbids_cutting<const L3: usize>(packet: Packet) -> bool {
    let Some(data) = packet.linear(L3 + 20) else {
        return false;
    };
    // SAFETY: the IP header was compared with data_end.
    let fragment_be = unsafe { core::ptr::read(data.add(L3 + 6).cast::<u16>()) };
    u16::from_be(fragment_be) & DONT_FRAGMENT != 0
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
fn family<const V6: bool>(packet: Packet, work: &Work) -> i32 {
    // SAFETY: a map value, of which one field is read that does not change.
    let Some(flow) = (unsafe { FLOWS.get(&work.key) }) else {
        return count::drop(DropReason::Absorbed);
    };
    let mss = flow.node_options().mss();
    if !allowed(clock::now_ns()) {
        return count::drop(DropReason::SegmentTooBig);
    }
    let made = if V6 {
        about_v6(packet, work, mss)
    } else {
        about_v4(packet, work, mss)
    };
    if !made {
        return count::drop(DropReason::KernelRefused);
    }
    count::reason(DropReason::SegmentTooBig);
    answer::finish(packet, work)
}

/// The headers of the segment, IP and TCP.
const QUOTE_V4: u32 = 40;
const QUOTE_V6: u32 = 60;

#[inline(always)]
fn about_v4(packet: Packet, work: &Work, mss: u32) -> bool {
    const WORDS: usize = ((20 + ICMP + QUOTE_V4 + ZEROS) / 4) as usize;
    let mut words = [0_u32; WORDS];
    // SAFETY: the quotation has 40 bytes, and 60 are behind its place.
    if !unsafe { packet.load(work.l3, words.as_mut_ptr().add(7).cast(), 40) } {
        return false;
    }
    let segment = packet.segment_size(work.payload_len);
    let length = (20 + work.header_len + segment) as u16;
    let old = words[7];
    words[7] = half_words(old, length);
    let [a, b, c, d] = words[9].to_ne_bytes();
    let stored = Stored(u16::from_ne_bytes([c, d])).patched(Sum::diff(old, words[7]));
    let [c, d] = stored.0.to_ne_bytes();
    words[9] = u32::from_ne_bytes([a, b, c, d]);
    words[0] = u32::from_be_bytes([0x45, 0, 0, 4 * WORDS as u8]).to_be();
    words[1] = u32::from(DONT_FRAGMENT).to_be();
    words[2] = 0x4001_0000_u32.to_be();
    words[3] = work.local[3];
    words[4] = work.key.client[3];
    let mut sum = Sum::ZERO;
    for word in &words[..5] {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[2] |= u32::from_ne_bytes([0, 0, a, b]);
    words[5] = 0x0304_0000_u32.to_be();
    words[6] = (mss + node_options::headers(false)).to_be();
    let mut sum = Sum::ZERO;
    for word in &words[5..17] {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[5] |= u32::from_ne_bytes([0, 0, a, b]);
    let behind = work.l3 + 40;
    packet.resize(behind)
        && packet.make_room((4 * WORDS) as u32 - 40)
        // SAFETY: `words` has that many bytes.
        && unsafe { packet.store(work.l3, words.as_ptr().cast(), 4 * WORDS as u64) }
}

#[inline(always)]
fn about_v6(packet: Packet, work: &Work, mss: u32) -> bool {
    const WORDS: usize = ((40 + ICMP + QUOTE_V6 + ZEROS) / 4) as usize;
    let mut words = [0_u32; WORDS];
    // SAFETY: the quotation has 60 bytes, and 80 are behind its place.
    if !unsafe { packet.load(work.l3, words.as_mut_ptr().add(12).cast(), 60) } {
        return false;
    }
    let segment = packet.segment_size(work.payload_len);
    let [_, _, next, hops] = words[13].to_ne_bytes();
    let [a, b] = ((work.header_len + segment) as u16).to_be_bytes();
    words[13] = u32::from_ne_bytes([a, b, next, hops]);
    let payload = 4 * WORDS as u32 - 40;
    words[0] = 0x6000_0000_u32.to_be();
    words[1] = (payload << 16 | ICMP_V6 << 8 | 64).to_be();
    [words[2], words[3], words[4], words[5]] = work.local;
    [words[6], words[7], words[8], words[9]] = work.key.client;
    words[10] = 0x0200_0000_u32.to_be();
    words[11] = (mss + node_options::headers(true)).to_be();
    let mut sum = Sum::ZERO
        .add_u32_raw(payload.to_be())
        .add_u32_raw(ICMP_V6.to_be());
    for word in &words[2..27] {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[10] |= u32::from_ne_bytes([0, 0, a, b]);
    packet.resize(work.l3 + 60)
        && packet.make_room((4 * WORDS) as u32 - 60)
        // SAFETY: `words` has that many bytes.
        && unsafe { packet.store(work.l3, words.as_ptr().cast(), 4 * WORDS as u64) }
}

/// As many as resets.
#[inline(always)]
fn allowed(now_ns: u64) -> bool {
    let (Some(bucket), Some(settings)) = (ERRORS.get_ptr_mut(0), SETTINGS.get(0)) else {
        return false;
    };
    let limit = Limit {
        interval_ns: settings.reset_interval_ns,
        fill_ns: settings.reset_fill_ns,
    };
    // SAFETY: this CPU's bucket.
    unsafe { (*bucket).take(now_ns, limit) }
}

/// A word whose second half is this number in network order.
#[inline(always)]
fn half_words(word: u32, number: u16) -> u32 {
    let [a, b, _, _] = word.to_ne_bytes();
    let [c, d] = number.to_be_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
