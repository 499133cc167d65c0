//! Hello buffers: taking one, finding it again, giving it back.
//!
//! Buffers stand in an array, so that taking one copies nothing; a queue holds the free ones and a hash
//! tells whose is whose. A buffer is touched only under its try-lock, because two CPUs may carry segments
//! of one client: bytes that were judged must not change under the judge. Whoever finds it held drops the
//! packet; the client sends it again.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use forwarder_common::abi::{FlowKey, Hello, hello_state};

use crate::bounds::{atomic_add, forget};
use crate::maps::{HELLO_FREE, HELLO_INDEX, HELLOS, SETTINGS};

/// How many buffers are looked at for one that may be taken over.
const SAMPLES: u32 = 4;
/// A hello whose node has not answered for this long has lost its flow to the sweeper.
const ROUTED_MAX_MS: u32 = 15_000;

/// A buffer that this CPU holds.
#[derive(Clone, Copy)]
pub struct Held {
    pub slot: u32,
    pub hello: *mut Hello,
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The connection has none.
    Absent,
    /// Another CPU holds it.
    Busy,
}

#[inline(always)]
fn try_lock(hello: *mut Hello) -> bool {
    // SAFETY: `hello` points at a map value. Additions to one word are ordered, so at most one reads 1.
    unsafe {
        let users = &raw mut (*hello).users;
        atomic_add(users, 1);
        if core::ptr::read_volatile(users) == 1 {
            return true;
        }
        atomic_add(users, -1);
    }
    false
}

/// Lets others have it.
#[inline(always)]
pub fn unlock(hello: *mut Hello) {
    forget(hello);
    // SAFETY: `hello` points at a map value.
    unsafe { atomic_add(&raw mut (*hello).users, -1) };
}

/// Whether two keys are the same, word by word: a call of `memcmp` is more than BPF has.
#[inline(always)]
pub fn same(a: &FlowKey, b: &FlowKey) -> bool {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.client, b.client);
    (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) == 0 && a.port_be == b.port_be && a.vip == b.vip
}

/// The connection's buffer, held.
#[inline(always)]
pub fn find(key: &FlowKey) -> Result<Held, Missing> {
    // SAFETY: the number is copied at once.
    let Some(slot) = (unsafe { HELLO_INDEX.get(key) }).copied() else {
        return Err(Missing::Absent);
    };
    let Some(hello) = HELLOS.get_ptr_mut(slot) else {
        return Err(Missing::Absent);
    };
    if !try_lock(hello) {
        return Err(Missing::Busy);
    }
    // SAFETY: held.
    if same(unsafe { &(*hello).owner }, key) {
        return Ok(Held { slot, hello });
    }
    unlock(hello);
    Err(Missing::Absent)
}

/// The buffer that an earlier stage of this packet holds.
#[inline(always)]
pub fn held(slot: u32) -> Option<Held> {
    HELLOS.get_ptr_mut(slot).map(|hello| Held { slot, hello })
}

/// A fresh buffer for a connection that has none, held and entered under its key.
#[inline(always)]
pub fn take(key: &FlowKey, now_ms: u32) -> Result<Held, Missing> {
    let slot = match HELLO_FREE.pop() {
        Ok(Some(slot)) => slot,
        _ => take_over(now_ms).ok_or(Missing::Absent)?,
    };
    let Some(hello) = HELLOS.get_ptr_mut(slot) else {
        return Err(Missing::Absent);
    };
    if !try_lock(hello) {
        let _ = HELLO_FREE.push(slot, 0);
        return Err(Missing::Busy);
    }
    // SAFETY: held.
    unsafe { (*hello).owner = *key };
    if HELLO_INDEX
        .insert(key, slot, u64::from(BPF_NOEXIST))
        .is_err()
    {
        unlock(hello);
        let _ = HELLO_FREE.push(slot, 0);
        return Err(Missing::Busy);
    }
    Ok(Held { slot, hello })
}

/// All are taken: of a few at random, the one that has waited longest loses its buffer. A hello that is on
/// its way to a node keeps it.
#[inline(always)]
fn take_over(now_ms: u32) -> Option<u32> {
    let settings = SETTINGS.get(0)?;
    let count = settings.hellos;
    if count == 0 {
        return None;
    }
    let mut best = None;
    let mut best_age = settings.hello_steal_ms;
    for _ in 0..SAMPLES {
        // SAFETY: no argument.
        let slot = unsafe { bpf_get_prandom_u32() } % count;
        let Some(hello) = HELLOS.get_ptr_mut(slot) else {
            continue;
        };
        // SAFETY: words of a map value; a stale one only makes the choice worse.
        let (state, touched) = unsafe { ((*hello).state, (*hello).touched_ms) };
        let age = now_ms.wrapping_sub(touched);
        if age >= best_age && (state != hello_state::ROUTED || age > ROUTED_MAX_MS) {
            best_age = age;
            best = Some(slot);
        }
    }
    let slot = best?;
    let hello = HELLOS.get_ptr_mut(slot)?;
    // SAFETY: copied; only who removes the entry takes the buffer.
    let owner = unsafe { (*hello).owner };
    HELLO_INDEX.remove(owner).ok().map(|()| slot)
}

/// Ends a connection's use of its buffer, and the hold on it.
#[inline(always)]
pub fn release(key: &FlowKey, held: Held) {
    let entered = HELLO_INDEX.remove(key).is_ok();
    unlock(held.hello);
    if entered {
        let _ = HELLO_FREE.push(held.slot, 0);
    }
}
