//! Whether the TCP checksum of a segment is right.
//!
//! Segments that are patched in place are not verified: a wrong checksum stays wrong. But a hello is stored and sent again
//! under a sum of our own, which would launder a broken one, and so would believing a SYN-ACK. And a SYN, FIN or reset,
//! which begins or ends a connection, must be right before anything is done for it (RFC 9293 MUST-3).

use super::bounds::Bounds;
use super::packet::Packet;
use super::work::Work;
use crate::abi::Address;
use crate::checksum::Sum;

/// Bytes summed at a time: the most `bpf_csum_diff` takes before Linux 6.13.
const CHUNK: u32 = 512;
/// Chunks of the longest segment that is summed: 9,216 bytes, a jumbo frame.
const CHUNKS: u32 = 18;

/// Whether a segment that begins or ends a connection may be acted on. Whatever made one packet of several has verified
/// the checksum of each.
#[inline(always)]
pub fn control<B: Bounds, P: Packet, const V6: bool>(
    packet: P,
    work: &mut Work,
    source: Address,
    destination: Address,
) -> bool {
    packet.wire_packets() > 1 || checksum::<B, P, V6>(packet, work, source, destination)
}

/// True when the checksum verifies over the whole segment, or holds the pseudo-header's sum only because a
/// device or GRO already checked it (`CHECKSUM_PARTIAL`).
#[inline(always)]
pub fn checksum<B: Bounds, P: Packet, const V6: bool>(
    packet: P,
    work: &mut Work,
    source: Address,
    destination: Address,
) -> bool {
    let at = work.l4::<V6>();
    let length = work.header_len + work.payload_len;
    let pseudo = if V6 {
        Sum::tcp_pseudo_v6(source, destination, length)
    } else {
        Sum::tcp_pseudo_v4([source[3]], [destination[3]], length as u16)
    };
    let Some(field) = packet.bytes::<2>(at + 16) else {
        return false;
    };
    if u16::from_ne_bytes(field) == pseudo.fold16() {
        return true;
    }
    let Some(mut scratch) = packet.scratch() else {
        return false;
    };
    work.sum = pseudo.fold32();
    work.offset = at;
    work.left = length;
    for _ in 0..CHUNKS {
        B::clobber(work);
        let left = work.left;
        if left == 0 {
            break;
        }
        let taken = if left > CHUNK { CHUNK } else { left };
        let taken = B::positive::<0x1ff>(u64::from(taken));
        let Some(sum) = packet.sum(&mut scratch, work.offset, taken, work.sum) else {
            return false;
        };
        work.sum = sum;
        work.offset += taken.get() as u32;
        work.left = left.wrapping_sub(taken.get() as u32);
    }
    B::clobber(work);
    work.left == 0 && Sum::ZERO.add_u32_raw(work.sum).fold16() == 0xffff
}
