//! A client's segment that is larger than its node takes: "fragmentation needed" (RFC 1191) or "packet too big"
//! (RFC 8201) goes back in its place, as from a router, and the client sends smaller ones.
//!
//! A client is told at its SYN what the smallest node takes. But a node may have offered less for the first
//! time, and a pod behind another tunnel does so without anybody near the entrance knowing. What is dropped on the
//! way from there would be a black hole: the errors about it quote addresses that only the node knows.
//!
//! **Checksums.** The packet that becomes the error may say that its TCP checksum is yet to be filled in, by a device
//! that sums up from where the TCP header stood and stores the result sixteen bytes further on (`CHECKSUM_PARTIAL`: all
//! that GRO has merged, and everything of a veth). So the message is laid before that place, and zeros from there on:
//! their sum is zero with the checksum of zeros among them, and without it. Whether it is filled in or not, the
//! message's own checksum is right.

use super::header::Header;
use super::packet::Packet;
use super::reply;
use super::store::{Bucket, Store};
use super::work::Work;
use crate::abi::Flow;
use crate::checksum::{Stored, Sum};
use crate::node_options;
use crate::verdict::{DropReason, Verdict};

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
pub fn is_too_big<P: Packet, const L3: usize, const V6: bool>(
    packet: P,
    header: &Header,
    flow: &Flow,
) -> bool {
    let options = flow.node_options();
    options.is_too_big(header.payload_len)
        && options.is_too_big(packet.segment_size(header.payload_len))
        && (V6 || forbids_cutting::<P, L3>(packet))
}

#[inline(always)]
fn forbids_cutting<P: Packet, const L3: usize>(packet: P) -> bool {
    packet
        .ipv4::<L3>()
        .is_some_and(|ip| u16::from_be(ip.fragment_be) & DONT_FRAGMENT != 0)
}

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let Some(flow) = store.flow(&work.key) else {
        return Verdict::Drop(DropReason::Absorbed);
    };
    let mss = flow.node_options().mss();
    if !reply::is_within_rate(store, Bucket::Errors, store.now_ns()) {
        return Verdict::Drop(DropReason::SegmentTooBig);
    }
    let made = if work.v6 == 0 {
        about_v4(packet, work, mss)
    } else {
        about_v6(packet, work, mss)
    };
    if !made {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    store.count(DropReason::SegmentTooBig);
    reply::back(packet, work)
}

/// The headers of the segment, IP and TCP.
const QUOTE_V4: u32 = 40;
const QUOTE_V6: u32 = 60;

#[inline(always)]
fn about_v4<P: Packet>(packet: P, work: &Work, mss: u32) -> bool {
    const WORDS: usize = ((20 + ICMP + QUOTE_V4 + ZEROS) / 4) as usize;
    let Some(quote) = packet.words::<10>(work.l3) else {
        return false;
    };
    let mut words = [0_u32; WORDS];
    for (word, quoted) in words.iter_mut().skip(7).zip(quote) {
        *word = quoted;
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
    for word in words.iter().take(5) {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[2] |= u32::from_ne_bytes([0, 0, a, b]);
    words[5] = 0x0304_0000_u32.to_be();
    words[6] = (mss + node_options::headers(false)).to_be();
    let mut sum = Sum::ZERO;
    for word in words.iter().take(17).skip(5) {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[5] |= u32::from_ne_bytes([0, 0, a, b]);
    let behind = work.l3 + 40;
    packet.resize(behind)
        && packet.make_room((4 * WORDS) as u32 - 40)
        && packet.put_words(work.l3, &words)
}

#[inline(always)]
fn about_v6<P: Packet>(packet: P, work: &Work, mss: u32) -> bool {
    const WORDS: usize = ((40 + ICMP + QUOTE_V6 + ZEROS) / 4) as usize;
    let Some(quote) = packet.words::<15>(work.l3) else {
        return false;
    };
    let mut words = [0_u32; WORDS];
    for (word, quoted) in words.iter_mut().skip(12).zip(quote) {
        *word = quoted;
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
    for word in words.iter().take(27).skip(2) {
        sum = sum.add_u32_raw(*word);
    }
    let [a, b] = sum.checksum().to_ne_bytes();
    words[10] |= u32::from_ne_bytes([0, 0, a, b]);
    packet.resize(work.l3 + 60)
        && packet.make_room((4 * WORDS) as u32 - 60)
        && packet.put_words(work.l3, &words)
}

/// A word whose second half is this number in network order.
#[inline(always)]
fn half_words(word: u32, number: u16) -> u32 {
    let [a, b, _, _] = word.to_ne_bytes();
    let [c, d] = number.to_be_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
