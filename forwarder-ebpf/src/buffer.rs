//! Hello buffers: taking one, finding it again, giving it back.
//!
//! Buffers stand in an array, so that taking one copies nothing; a queue holds the free ones and a hash
//! tells whose is whose. A buffer is touched only under its try-lock, because two CPUs may carry segments
//! of one client: bytes that were judged must not change under the judge. Whoever finds it held drops the
//! packet; the client sends it again.
//!
//! Programs free a buffer only while they hold it, and whoever removes its entry of the index gives it back.

use aya_ebpf::bindings::BPF_NOEXIST;
use forwarder_common::abi::{FlowKey, Hello};

use crate::bounds::{atomic_add, atomic_enter, forget};
use crate::displace;
use crate::maps::{HELLO_FREE, HELLO_INDEX, HELLOS};

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
        if atomic_enter(users) == 1 {
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

/// The number of the connection's buffer.
#[inline(always)]
pub fn slot_of(key: &FlowKey) -> Option<u32> {
    // SAFETY: the number is copied at once.
    unsafe { HELLO_INDEX.get(key) }.copied()
}

/// The connection's buffer, held.
#[inline(always)]
pub fn find(key: &FlowKey) -> Result<Held, Missing> {
    let slot = slot_of(key).ok_or(Missing::Absent)?;
    let held = lock(slot)?;
    // SAFETY: held.
    if same(unsafe { &(*held.hello).owner }, key) {
        return Ok(held);
    }
    unlock(held.hello);
    Err(Missing::Absent)
}

/// A buffer by its number, held.
#[inline(always)]
pub fn lock(slot: u32) -> Result<Held, Missing> {
    let hello = HELLOS.get_ptr_mut(slot).ok_or(Missing::Absent)?;
    if try_lock(hello) {
        Ok(Held { slot, hello })
    } else {
        Err(Missing::Busy)
    }
}

/// The buffer that an earlier stage of this packet holds.
#[inline(always)]
pub fn held(slot: u32) -> Option<Held> {
    HELLOS.get_ptr_mut(slot).map(|hello| Held { slot, hello })
}

/// A fresh buffer for a connection that has none, held and entered under its key.
#[inline(always)]
pub fn take(key: &FlowKey, now_ms: u32) -> Result<Held, Missing> {
    let held = match HELLO_FREE.pop() {
        Ok(Some(slot)) => match lock(slot) {
            Ok(held) => held,
            Err(missing) => {
                let _ = HELLO_FREE.push(slot, 0);
                return Err(missing);
            }
        },
        _ => displace::one(key, now_ms)?,
    };
    // SAFETY: held.
    unsafe { (*held.hello).owner = *key };
    if HELLO_INDEX
        .insert(key, held.slot, u64::from(BPF_NOEXIST))
        .is_err()
    {
        unlock(held.hello);
        let _ = HELLO_FREE.push(held.slot, 0);
        return Err(Missing::Busy);
    }
    Ok(held)
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
