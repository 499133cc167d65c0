//! No buffer is free: one is taken from the connection that has the least right to it (`share`).
//!
//! A hello that was routed loses its buffer together with its flow: without the bytes that it answered for, the
//! entrance could not keep others out of their place. Whoever loses one is remembered, and reset when it speaks again.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use forwarder_common::abi::{FlowKey, close_reason, hello_state};
use forwarder_common::share::{self, Candidate, Limits, SAMPLES};

use crate::bounds::{forget, mask};
use crate::buffer::{self, Held, Missing};
use crate::ends;
use crate::maps::{FLOWS, HELLO_INDEX, HELLO_LOST, HELLOS, SAMPLE, SETTINGS};

/// What is looked at.
#[repr(C)]
pub struct Sample {
    best: u64,
    /// Number of the buffer that gives way, and one more.
    chosen: u32,
    same: u32,
    candidates: [Candidate; SAMPLES as usize],
}

impl Sample {
    #[inline(always)]
    fn at(&mut self, index: u32) -> *mut Candidate {
        let index = mask::<{ SAMPLES as i32 - 1 }>(u64::from(index)) as usize;
        // SAFETY: within the array.
        unsafe { (&raw mut self.candidates).cast::<Candidate>().add(index) }
    }
}

/// Takes a buffer for the connection `key` from another one; it is held, and under no key.
#[inline(always)]
pub fn one(key: &FlowKey, now_ms: u32) -> Result<Held, Missing> {
    let slot = choose(key, now_ms).ok_or(Missing::Absent)?;
    let held = buffer::lock(slot)?;
    // SAFETY: held.
    let (owner, state, cookie) = unsafe {
        let hello = &*held.hello;
        (hello.owner, hello.state, hello.entrance_isn)
    };
    if buffer::slot_of(&owner) != Some(slot) || HELLO_INDEX.remove(owner).is_err() {
        // It was given back meanwhile.
        buffer::unlock(held.hello);
        return Err(Missing::Busy);
    }
    if state == hello_state::ROUTED || state == hello_state::ANSWERED {
        // SAFETY: a map value; its fields have one writer each.
        if let Some(flow) = FLOWS.get_ptr_mut(owner).map(|flow| unsafe { &*flow }) {
            let reason = if state == hello_state::ROUTED {
                close_reason::NO_NODE
            } else {
                close_reason::UNCONFIRMED
            };
            ends::remove(&owner, flow, reason);
        }
    }
    let _ = HELLO_LOST.insert(owner, cookie, 0);
    Ok(held)
}

#[inline(always)]
fn choose(key: &FlowKey, now_ms: u32) -> Option<u32> {
    let settings = SETTINGS.get(0)?;
    let count = settings.hellos;
    let limits = Limits {
        least_age_ms: settings.hello_steal_ms,
        timeout_ms: settings.hello_timeout_ms,
    };
    let sample = SAMPLE.get_ptr_mut(0)?;
    // SAFETY: this CPU's.
    let sample = unsafe { &mut *sample };
    let newcomer = share::source(&key.client);
    for index in 0..SAMPLES {
        forget(sample);
        // SAFETY: no argument.
        let random = unsafe { bpf_get_prandom_u32() };
        let candidate = match share::slot(index, count, random) {
            Some(slot) => {
                let hello = HELLOS.get_ptr(slot)?;
                // SAFETY: words of a map value; a stale one only makes the choice worse.
                share::candidate(unsafe { &*hello }, slot, now_ms)
            }
            None => Candidate::NONE,
        };
        // SAFETY: this CPU's.
        unsafe { *sample.at(index) = candidate };
    }
    sample.best = 0;
    sample.chosen = 0;
    for index in 0..SAMPLES {
        forget(sample);
        // SAFETY: this CPU's.
        let group = unsafe { (*sample.at(index)).group };
        sample.same = 0;
        for other in 0..SAMPLES {
            forget(sample);
            // SAFETY: this CPU's.
            if unsafe { (*sample.at(other)).group } == group {
                sample.same += 1;
            }
        }
        forget(sample);
        // SAFETY: this CPU's.
        let candidate = unsafe { *sample.at(index) };
        let weight = share::weight(&candidate, sample.same, newcomer, &limits);
        if weight > sample.best {
            sample.best = weight;
            sample.chosen = candidate.slot + 1;
        }
    }
    forget(sample);
    sample.chosen.checked_sub(1)
}
