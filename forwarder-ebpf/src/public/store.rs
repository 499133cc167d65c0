//! Keeps a segment of a hello, or of what follows it, behind what is stored, if its checksum is right.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{HELLO_CAP, HELLO_PREFIX, hello_state, stage};
use forwarder_common::verdict::DropReason;

use crate::bounds::{at_most, forget, positive};
use crate::buffer;
use crate::packet::Packet;
use crate::public::hello::next_held;
use crate::work::Work;
use crate::{clock, count, verify};

/// Bytes copied at a time, and how often.
const PIECE: u32 = 1024;
const PIECES: u32 = 18;

/// The stage. The hello is held; the payload counts from its byte `work.skip` on.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let (client, local) = (work.key.client, work.local);
    let right = if work.v6 == 0 {
        verify::checksum::<false>(packet, work, client, local)
    } else {
        verify::checksum::<true>(packet, work, client, local)
    };
    let Some(held) = buffer::held(work.slot) else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: held since the stage before.
    let hello = unsafe { &mut *held.hello };
    if !right {
        if hello.stored == 0 {
            buffer::release(&work.key, held);
        } else {
            buffer::unlock(held.hello);
        }
        return count::drop(DropReason::BadChecksum);
    }
    let routed = hello.state == hello_state::ROUTED;
    if !routed {
        hello.touched_ms = clock::ms(clock::now_ns());
        hello.segments = hello.segments.wrapping_add(1);
    }
    hello.window = work.window;
    let ip = if work.v6 == 0 { 20 } else { 40 };
    work.offset = work.l3 + ip + work.header_len + work.skip;
    work.left = work.payload_len - work.skip;
    for _ in 0..PIECES {
        forget(work);
        forget(hello);
        let stored = hello.stored;
        let left = work.left;
        let room = (HELLO_CAP as u32).saturating_sub(stored);
        let taken = if left < room { left } else { room };
        let taken = if taken < PIECE { taken } else { PIECE };
        if taken == 0 {
            break;
        }
        let taken = positive::<0x3ff>(u64::from(taken));
        let at = at_most::<{ HELLO_CAP as i32 }>(u64::from(stored)) as usize;
        // SAFETY: prefix + cap + 1,024 is less than the buffer.
        let loaded = unsafe {
            let to = (&raw mut hello.bytes)
                .cast::<u8>()
                .add(HELLO_PREFIX)
                .add(at);
            packet.load(work.offset, to, taken)
        };
        if !loaded {
            break;
        }
        hello.stored = stored.wrapping_add(taken as u32);
        work.offset = work.offset.wrapping_add(taken as u32);
        work.left = left.wrapping_sub(taken as u32);
    }
    if routed {
        // Data behind a hello whose node has not answered. It is sent with it; the node acknowledges it.
        buffer::unlock(held.hello);
        return count::drop(DropReason::Absorbed);
    }
    next_held(context, stage::PARSE, held)
}
