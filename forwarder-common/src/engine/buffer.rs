//! Hello buffers: finding one again, giving it back.
//!
//! A buffer is touched only under its try-lock, because two processors may carry segments of one client: bytes that were
//! judged must not change under the judge. Whoever finds it held drops the packet; the client sends it again. Programs
//! free a buffer only while they hold it, and whoever removes its entry of the index gives it back.

use super::store::Store;
use crate::abi::FlowKey;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The connection has none.
    Absent,
    /// Another processor holds it.
    Busy,
}

/// Whether two keys are the same, word by word: a call of `memcmp` is more than BPF has.
#[inline(always)]
#[must_use]
pub const fn same(a: &FlowKey, b: &FlowKey) -> bool {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.client, b.client);
    (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) == 0 && a.port_be == b.port_be && a.vip == b.vip
}

/// The connection's buffer, held.
#[inline(always)]
pub fn find<S: Store>(store: S, key: &FlowKey) -> Result<S::Held, Missing> {
    let slot = store.hello_slot(key).ok_or(Missing::Absent)?;
    let held = store.lock(slot)?;
    if same(&held.owner, key) {
        return Ok(held);
    }
    store.unlock(held);
    Err(Missing::Absent)
}

/// Ends a connection's use of its buffer, and the hold on it.
#[inline(always)]
pub fn release<S: Store>(store: S, key: &FlowKey, held: S::Held) {
    let slot = store.slot(&held);
    let entered = store.remove_hello(key);
    store.unlock(held);
    if entered {
        store.push_free(slot);
    }
}
