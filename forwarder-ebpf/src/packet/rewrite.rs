//! Patching a spliced segment in place.
//!
//! All direct writes come first, then the helpers: those may move the packet.

use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::engine::header::{Change, Header, Ipv4, Ipv6, Rewrite, Tcp};
use forwarder_common::segment::pair;
use forwarder_common::tcp::{SACK_BLOCKS_MAX, sack_edges};

use crate::packet::Skb;
use crate::packet::bounds::{mask, positive};

/// Writes the fields, one less in the time to live, and the IPv4 header checksum.
#[inline(always)]
pub fn in_place<const L3: usize, const V6: bool>(
    packet: Skb,
    header: &Header,
    rewrite: &Rewrite,
) -> Option<Change> {
    let data = packet.linear(L3 + if V6 { 60 } else { 40 })?;
    let mut pseudo = Sum::ZERO;
    // SAFETY: link-layer, IP and TCP header were compared with data_end.
    let tcp = unsafe {
        if V6 {
            let ip = data.add(L3).cast::<Ipv6>();
            for i in 0..4 {
                pseudo += Sum::diff(header.source[i], rewrite.source[i]);
                pseudo += Sum::diff(header.destination[i], rewrite.destination[i]);
            }
            (*ip).source = rewrite.source;
            (*ip).destination = rewrite.destination;
            (*ip).hop_limit = header.ttl - 1;
            data.add(L3 + 40).cast::<Tcp>()
        } else {
            let ip = data.add(L3).cast::<Ipv4>();
            pseudo += Sum::diff(header.source[3], rewrite.source[3]);
            pseudo += Sum::diff(header.destination[3], rewrite.destination[3]);
            let old = u16::from_ne_bytes([header.ttl, 6]);
            let new = u16::from_ne_bytes([header.ttl - 1, 6]);
            let change = pseudo + Sum::diff_u16(old, new);
            (*ip).ttl = header.ttl - 1;
            (*ip).checksum = Stored((*ip).checksum).patched(change).0;
            (*ip).source = rewrite.source[3];
            (*ip).destination = rewrite.destination[3];
            data.add(L3 + 20).cast::<Tcp>()
        }
    };
    let ports = pair(rewrite.source_port_be, rewrite.destination_port_be);
    // SAFETY: as above.
    unsafe {
        (*tcp).source_be = rewrite.source_port_be;
        (*tcp).destination_be = rewrite.destination_port_be;
        (*tcp).seq_be = rewrite.seq.to_be();
        (*tcp).ack_be = rewrite.ack.to_be();
        (*tcp).window_be = rewrite.window.to_be();
    }
    let mut change = Sum::diff(header.ports, ports)
        + Sum::diff(header.seq.to_be(), rewrite.seq.to_be())
        + Sum::diff(header.ack.to_be(), rewrite.ack.to_be())
        + Sum::diff_u16(header.window.to_be(), rewrite.window.to_be());
    if rewrite.flags != header.flags {
        // SAFETY: as above.
        unsafe {
            let offset = (*tcp).offset;
            change += Sum::diff_u16(
                u16::from_ne_bytes([offset, header.flags]),
                u16::from_ne_bytes([offset, rewrite.flags]),
            ) + Sum::diff_u16((*tcp).urgent, 0);
            (*tcp).flags = rewrite.flags;
            (*tcp).urgent = 0;
        }
    }
    Some(Change {
        pseudo,
        tcp: change,
    })
}

/// Shifts SACK blocks by −`delta`; any other layout of options is overwritten with NOPs, because a block
/// that is not translated lies. Returns the change of the sum.
#[inline(always)]
pub fn selective_acks<const L3: usize, const V6: bool>(
    packet: Skb,
    header_len: u32,
    delta: u32,
) -> Sum {
    const NOPS: u32 = 0x0101_0101;
    let mut words = [0_u32; 16];
    let length = mask::<0x3f>(u64::from(header_len.wrapping_sub(20)));
    let length = positive::<0x3f>(length);
    let at = L3 as u32 + if V6 { 60 } else { 40 };
    // SAFETY: at most 64 bytes into 64.
    if !unsafe { packet.load_raw(at, words.as_mut_ptr().cast(), length) } {
        return Sum::ZERO;
    }
    let count = length as u32 / 4;
    let mut sum = Sum::ZERO;
    match sack_edges(u32::from_be(words[0]), length as u32) {
        Some(edges) => {
            for i in 0..2 * SACK_BLOCKS_MAX {
                if i < edges {
                    let old = words[i as usize + 1];
                    let new = u32::from_be(old).wrapping_sub(delta).to_be();
                    words[i as usize + 1] = new;
                    sum += Sum::diff(old, new);
                }
            }
        }
        None => {
            for i in 0..10 {
                if i < count {
                    sum += Sum::diff(words[i as usize], NOPS);
                    words[i as usize] = NOPS;
                }
            }
        }
    }
    // SAFETY: as above.
    if unsafe { packet.store_raw(at, words.as_ptr().cast(), length) } {
        sum
    } else {
        Sum::ZERO
    }
}
