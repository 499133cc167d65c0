//! The SYN that opens a connection to a node.

use super::counters::add;
use super::packet::Packet;
use super::select::Choice;
use super::store::Store;
use super::work::Work;
use super::{egress, us};
use crate::abi::{Hello, client_address};
use crate::checksum::Sum;
use crate::cookie::{self, CookieOptions};
use crate::segment::Segment;
use crate::tcp::{flag, syn_option_words};
use crate::verdict::{DropReason, Verdict};

/// The window of our SYN; the client's real one follows with the hello.
const SYN_WINDOW: u16 = 64_240;

/// The node-side initial sequence number: the PROXY header comes before the client's first byte, so that
/// the client's sequence numbers need no change.
#[inline(always)]
#[must_use]
pub const fn node_side_isn(hello: &Hello) -> u32 {
    hello.client_isn.wrapping_sub(hello.header_len)
}

/// Rebuilds the packet, whatever it was, as the SYN to a node and sends it.
#[inline(always)]
pub fn send_syn<S: Store, P: Packet>(
    store: S,
    packet: P,
    work: &Work,
    hello: &mut Hello,
    choice: &Choice<S::Node>,
    source_port_be: u16,
    now_ns: u64,
) -> Verdict<S::Held> {
    let node = &*choice.node;
    let offered = CookieOptions::of_cookie(hello.entrance_isn);
    let client_mss = cookie::mss_of(offered.mss_index);
    let mss = if client_mss < node.mss {
        client_mss
    } else {
        node.mss
    };
    let (options, option_words) = syn_option_words(
        u32::from(mss),
        offered.sack,
        u32::from(offered.window_scale),
    );
    let transparent = choice.client_address == client_address::TRANSPARENT;
    let segment = Segment {
        source: if transparent {
            work.key.client
        } else {
            node.local
        },
        destination: node.address,
        source_port_be,
        destination_port_be: node.port_be,
        seq: node_side_isn(hello),
        ack: 0,
        flags: flag::SYN,
        window: SYN_WINDOW,
        options,
        option_words,
        payload_len: 0,
    };
    hello.syn_us = us(now_ns);
    hello.syns = hello.syns.wrapping_add(1);
    hello.node_syns = hello.node_syns.wrapping_add(1);
    add!(store.node_stats(choice.number), syns += 1);
    let made = if work.v6 == 0 {
        put::<P, false>(packet, work, &segment)
    } else {
        put::<P, true>(packet, work, &segment)
    };
    if !made {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    egress::to_node(packet, node, &segment.source, work.l3 != 0)
}

/// Makes the packet a segment with options: there is an MSS in any case.
#[inline(always)]
fn put<P: Packet, const V6: bool>(packet: P, work: &Work, segment: &Segment) -> bool {
    let headers = segment.headers::<V6>();
    let longest = work.l3 + if V6 { 72 } else { 52 };
    let length = work.l3 + headers.len;
    packet.resize(longest)
        && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
        && (length == longest || packet.resize(length))
}
