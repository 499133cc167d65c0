//! Reads the stored hello, a bounded number of steps a run; what is left over is read by running again.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{HELLO_CAP, HELLO_PREFIX, Hello, stage};
use forwarder_common::hello::{Bytes, Progress};
use forwarder_common::verdict::DropReason;

use crate::bounds::{at_most, forget, load_u32, mask};
use crate::buffer;
use crate::packet::Packet;
use crate::public::hello::{acknowledge, next_held};
use crate::work::Work;
use crate::{answer, count};

/// Steps a run.
const STEPS: u32 = 192;
/// Runs a packet: the kernel's limit of 33 tail calls leaves room for the stages before and behind. Only a
/// hello of 16 KiB in tiny pieces takes more steps than that; it is read on when its client sends again.
const RUNS: u32 = 28;

/// The stored stream of a hello.
struct Stored(*mut Hello);

impl Bytes for Stored {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        let at = at_most::<{ HELLO_CAP as i32 }>(u64::from(at)) as usize;
        // SAFETY: within the buffer; held.
        unsafe {
            core::ptr::read_volatile(
                (&raw const (*self.0).bytes)
                    .cast::<u8>()
                    .add(HELLO_PREFIX)
                    .add(at),
            )
        }
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        let at = at_most::<{ HELLO_CAP as i32 }>(u64::from(at)) as usize;
        // SAFETY: within the buffer, whose slack is longer than three bytes; held.
        u32::from_be(unsafe {
            load_u32(
                (&raw const (*self.0).bytes)
                    .cast::<u8>()
                    .add(HELLO_PREFIX)
                    .add(at),
            )
        })
    }

    #[inline(always)]
    fn put_name(&mut self, index: u32, byte: u8) {
        let index = mask::<0xff>(u64::from(index)) as usize;
        // SAFETY: 256 bytes; held.
        unsafe {
            core::ptr::write_volatile(
                (&raw mut (*self.0).server_name).cast::<u8>().add(index),
                byte,
            )
        };
    }

    #[inline(always)]
    fn put_alpn(&mut self, index: u32, byte: u8) {
        let index = mask::<0x1f>(u64::from(index)) as usize;
        // SAFETY: 32 bytes; held.
        unsafe {
            core::ptr::write_volatile((&raw mut (*self.0).alpn).cast::<u8>().add(index), byte)
        };
    }
}

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(held) = buffer::held(work.slot) else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: held since the stage before.
    let hello = unsafe { &mut *held.hello };
    let mut bytes = Stored(held.hello);
    let mut progress = Progress::Continue;
    for _ in 0..STEPS {
        forget(held.hello);
        progress = hello.reader.step(&mut bytes, hello.stored);
        if !matches!(progress, Progress::Continue) {
            break;
        }
    }
    forget(held.hello);
    match progress {
        Progress::Continue if work.runs < RUNS => {
            work.runs += 1;
            next_held(context, stage::PARSE, held)
        }
        Progress::Continue => {
            buffer::unlock(held.hello);
            count::drop(DropReason::KernelRefused)
        }
        Progress::Complete => next_held(context, stage::ROUTE, held),
        Progress::More if hello.stored < HELLO_CAP as u32 => {
            acknowledge(work, hello);
            buffer::unlock(held.hello);
            if work.v6 == 0 {
                answer::reply::<false>(packet, work)
            } else {
                answer::reply::<true>(packet, work)
            }
        }
        Progress::More => {
            work.reason = DropReason::HelloTooLong as u32;
            next_held(context, stage::REFUSE, held)
        }
        Progress::Refused(reason) => {
            work.reason = reason as u32;
            next_held(context, stage::REFUSE, held)
        }
    }
}
