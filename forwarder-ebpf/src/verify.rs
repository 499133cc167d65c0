//! Whether the TCP checksum of a segment is right.
//!
//! Segments that are patched in place need no look: a wrong checksum stays wrong. But a hello is stored and
//! sent again under a sum of our own, which would launder a broken one, and so would believing a SYN-ACK. And what
//! begins or ends a connection, a SYN, FIN or reset, must be right before anything is done for it (RFC 9293 MUST-3).

use aya_ebpf::helpers::generated::bpf_csum_diff;
use forwarder_common::checksum::Sum;

use crate::bounds::{forget, mask, positive};
use crate::maps::CHUNK;
use crate::packet::Packet;
use crate::work::{CHUNK as CHUNK_LEN, Work};

/// Chunks of the longest segment that is summed: 9,216 bytes, a jumbo frame.
const CHUNKS: u32 = 18;

/// Whether a segment that begins or ends a connection may be acted on. Whatever made one packet of several has looked at
/// the checksum of each.
#[inline(always)]
pub fn control<const V6: bool>(
    packet: Packet,
    work: &mut Work,
    source: [u32; 4],
    destination: [u32; 4],
) -> bool {
    packet.wire_packets() > 1 || checksum::<V6>(packet, work, source, destination)
}

/// True when the checksum verifies over the whole segment, or holds the pseudo-header's sum only because a
/// device or GRO already checked it (`CHECKSUM_PARTIAL`).
#[inline(always)]
pub fn checksum<const V6: bool>(
    packet: Packet,
    work: &mut Work,
    source: [u32; 4],
    destination: [u32; 4],
) -> bool {
    let at = work.l4::<V6>();
    let length = work.header_len + work.payload_len;
    let pseudo = if V6 {
        Sum::tcp_pseudo_v6(source, destination, length)
    } else {
        Sum::tcp_pseudo_v4([source[3]], [destination[3]], length as u16)
    };
    let mut field = [0_u8; 2];
    // SAFETY: `field` has two bytes.
    if !unsafe { packet.load(at + 16, field.as_mut_ptr(), 2) } {
        return false;
    }
    if u16::from_ne_bytes(field) == pseudo.fold16() {
        return true;
    }
    let Some(chunk) = CHUNK.get_ptr_mut(0) else {
        return false;
    };
    let chunk = chunk.cast::<u8>();
    work.sum = pseudo.fold32();
    work.offset = at;
    work.left = length;
    for _ in 0..CHUNKS {
        forget(work);
        let left = work.left;
        if left == 0 {
            break;
        }
        let taken = if left > CHUNK_LEN as u32 {
            CHUNK_LEN as u32
        } else {
            left
        };
        let taken = positive::<0x1ff>(u64::from(taken));
        // SAFETY: `taken` is 1..=512 and the chunk has 528 bytes, so four zeros fit behind it.
        unsafe {
            if !packet.load(work.offset, chunk, taken) {
                return false;
            }
            let behind = chunk.add(taken as usize);
            for i in 0..4 {
                core::ptr::write_volatile(behind.add(i), 0);
            }
            let words = mask::<0x3fc>(taken + 3);
            let part = bpf_csum_diff(core::ptr::null_mut(), 0, chunk.cast(), words as u32, 0);
            work.sum = Sum::ZERO
                .add_u32_raw(work.sum)
                .add_u32_raw(part as u32)
                .fold32();
        }
        work.offset += taken as u32;
        work.left = left.wrapping_sub(taken as u32);
    }
    forget(work);
    work.left == 0 && Sum::ZERO.add_u32_raw(work.sum).fold16() == 0xffff
}
