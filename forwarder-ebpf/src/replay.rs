//! Sends PROXY header and hello to the node, from wherever they are missing: both were answered for by us.
//!
//! The packet at hand (a SYN-ACK of the node, or a retransmission of the client) is rebuilt as one segment
//! after the other; all but the last leave as clones.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::generated::bpf_csum_diff;
use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, HELLO_CAP, HELLO_PREFIX, Hello, Node, link, stage};
use forwarder_common::checksum::Sum;
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::bounds::{at_most, forget, mask, positive};
use crate::buffer::{self, Held};
use crate::maps::{FLOWS, NODES, SETTINGS};
use crate::packet::{ETHERNET, Packet};
use crate::public::hello::next_held;
use crate::work::{CHUNK, Work};
use crate::{clock, count, hops};

/// The longest payload of a replayed segment: fits every tunnel of an MTU of 1,260 or more. Even, so that
/// sums of pieces add up.
const SEGMENT: u32 = 1200;
/// Segments a run.
const SEGMENTS: u32 = 8;
/// Pieces of a segment that are summed at a time.
const PIECES: u32 = 3;

/// The stage. The hello is held.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(held) = buffer::held(work.slot) else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: held since an earlier stage.
    match prepare(packet, work, unsafe { &mut *held.hello }) {
        Ok(target) => {
            if work.v6 == 0 {
                family::<false>(context, packet, work, held, &target)
            } else {
                family::<true>(context, packet, work, held, &target)
            }
        }
        Err(reason) => {
            buffer::unlock(held.hello);
            count::drop(reason)
        }
    }
}

struct Target {
    flow: &'static Flow,
    node: &'static Node,
    transparent: bool,
}

/// Finds whether it is time, where to and from which byte on, and gives the packet the link-layer header that the way needs.
///
/// Clones find no neighbour for themselves. Towards an Ethernet-like tunnel the node's own frame says where
/// it came from; a client's retransmission does not, and leaves as one segment (see [`family`]).
#[inline(always)]
fn prepare(packet: Packet, work: &mut Work, hello: &mut Hello) -> Result<Target, DropReason> {
    let flow = FLOWS.get_ptr(work.key).ok_or(DropReason::LinkDown)?;
    // SAFETY: a map value; only fields that no longer change are read, and window edges.
    let flow = unsafe { &*flow };
    let node = NODES
        .get(u32::from(flow.node))
        .ok_or(DropReason::LinkDown)?;
    if node.ifindex == 0 {
        return Err(DropReason::LinkDown);
    }
    if work.replay_at == 0 {
        let acked = flow.node_acked as u32;
        let least = SETTINGS
            .get(0)
            .map_or(0, |settings| settings.syn_interval_us);
        let now = clock::us(clock::now_ns());
        if !hello.pace.take(now, acked, hello.syn_us, least) {
            return Err(DropReason::Absorbed);
        }
        count::add!(PATH_STATS, u32::from(flow.path), replays, 1);
        if acked > 1 {
            work.replay_at = hello.header_len.wrapping_add(acked - 1);
        }
        if node.link == link::L2 {
            if work.l3 == 0 {
                if !packet.add_ethernet() {
                    return Err(DropReason::KernelRefused);
                }
                work.l3 = ETHERNET;
            } else if work.from_node != 0 && !packet.swap_ethernet() {
                return Err(DropReason::KernelRefused);
            }
        }
    }
    Ok(Target {
        flow,
        node,
        transparent: flow.is_transparent(),
    })
}

#[inline(always)]
fn family<const V6: bool>(
    context: &TcContext,
    packet: Packet,
    work: &mut Work,
    held: Held,
    target: &Target,
) -> i32 {
    // SAFETY: held.
    let hello = unsafe { &mut *held.hello };
    let total = hello.header_len + hello.stored;
    let limit = smaller(smaller(u32::from(target.node.mss), hello.piece), SEGMENT) & !1;
    for _ in 0..SEGMENTS {
        forget(work);
        let at = work.replay_at;
        if at >= total || limit == 0 {
            break;
        }
        let left = total - at;
        let taken = if left < limit { left } else { limit };
        if !put::<V6>(packet, work, hello, target, at, taken) {
            buffer::unlock(held.hello);
            return count::drop(DropReason::KernelRefused);
        }
        work.replay_at = at.wrapping_add(taken);
        if target.node.link == link::L2 && work.from_node == 0 {
            buffer::unlock(held.hello);
            let source = if target.transparent {
                &work.key.client
            } else {
                &target.node.local
            };
            return hops::send(packet, target.node.ifindex, source, &target.node.address);
        }
        if left == taken {
            buffer::unlock(held.hello);
            return packet.redirect(target.node.ifindex);
        }
        let _ = packet.clone_to(target.node.ifindex);
    }
    if work.replay_at < total && limit != 0 {
        return next_held(context, stage::REPLAY, held);
    }
    buffer::unlock(held.hello);
    TC_ACT_SHOT
}

#[inline(always)]
const fn smaller(one: u32, other: u32) -> u32 {
    if one < other { one } else { other }
}

/// Makes the packet the segment that carries `taken` bytes from `at` of header and hello.
#[inline(always)]
fn put<const V6: bool>(
    packet: Packet,
    work: &mut Work,
    hello: &mut Hello,
    target: &Target,
    at: u32,
    taken: u32,
) -> bool {
    let flow = target.flow;
    let seq = flow
        .client_isn
        .wrapping_add(1)
        .wrapping_sub(hello.header_len)
        .wrapping_add(at);
    let segment = Segment {
        source: if target.transparent {
            work.key.client
        } else {
            target.node.local
        },
        destination: target.node.address,
        source_port_be: flow.source_port_be,
        destination_port_be: target.node.port_be,
        seq,
        ack: flow.node_expected().wrapping_sub(flow.delta),
        flags: flag::ACK | flag::PSH,
        window: flow.window_for_node(hello.window as u16),
        options: [0; 3],
        option_words: 0,
        payload_len: taken,
    };
    let payload_at = work.l3 + if V6 { 60 } else { 40 };
    if !packet.resize(payload_at + taken) {
        return false;
    }
    let from = (HELLO_PREFIX as u32)
        .wrapping_sub(hello.header_len)
        .wrapping_add(at);
    let from = at_most::<{ (HELLO_PREFIX + HELLO_CAP) as i32 }>(u64::from(from)) as usize;
    let length = positive::<0x7ff>(u64::from(taken));
    let length = at_most::<{ SEGMENT as i32 }>(length);
    // SAFETY: prefix + cap + 3 × 512 is less than the buffer, whose slack is 1,584.
    let sum = unsafe {
        let data = (&raw mut hello.bytes).cast::<u8>().add(from);
        if !packet.store(payload_at, data, length) {
            return false;
        }
        sum_of(work, data, length as u32)
    };
    let headers = segment.headers::<V6>();
    packet.put_headers::<V6>(work.l3, &headers, sum)
}

/// The sum of `length` bytes, at most [`SEGMENT`].
///
/// # Safety
/// Three times [`CHUNK`] bytes from `data` on are readable in a way the verifier sees.
#[inline(always)]
unsafe fn sum_of(work: &mut Work, data: *mut u8, length: u32) -> Sum {
    let mut sum = Sum::ZERO;
    let whole = length & !3;
    for piece in 0..PIECES {
        let start = piece * CHUNK as u32;
        if start < whole {
            let left = whole - start;
            let taken = if left < CHUNK as u32 {
                left
            } else {
                CHUNK as u32
            };
            let taken = at_most::<{ CHUNK as i32 }>(mask::<0x3fc>(u64::from(taken)));
            // SAFETY: by the caller.
            let part = unsafe {
                bpf_csum_diff(
                    core::ptr::null_mut(),
                    0,
                    data.add(start as usize).cast(),
                    taken as u32,
                    0,
                )
            };
            sum = sum.add_u32_raw(part as u32);
        }
    }
    // The last one to three bytes; what follows them in the buffer is not theirs.
    let rest = length & 3;
    if rest != 0 {
        let at = at_most::<{ SEGMENT as i32 }>(mask::<0x7fc>(u64::from(whole))) as usize;
        let mut word = 0_u32;
        for i in 0..3 {
            if i < rest {
                // SAFETY: within what the caller vouches for.
                let byte = unsafe { core::ptr::read_volatile(data.add(at + i as usize)) };
                word |= u32::from(byte) << (8 * i);
            }
        }
        sum = sum.add_u32_raw(u32::from_le(word));
    }
    work.left = rest;
    sum
}

const _: () = assert!(SEGMENT as usize <= PIECES as usize * CHUNK && SEGMENT.is_multiple_of(4));
