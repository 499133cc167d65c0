//! The maps behind the engine's [`Store`], and bounds that the verifier sees.

use core::hint::assert_unchecked;
use core::ops::{Deref, DerefMut};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::maps::lpm_trie::Key;
use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Flow, FlowKey, Hello, ListenerStats, NAME_KEY_BYTES, NameEntry,
    Node, NodeStats, Path, PathStats, Pool, ReverseKey, Settings, Vip,
};
use forwarder_common::engine::bounds::{AtMost, Bounds, Count};
use forwarder_common::engine::buffer::Missing;
use forwarder_common::engine::store::{Bucket, NotEntered, Store};
use forwarder_common::engine::work::Work;
use forwarder_common::hello::NAME_MAX;
use forwarder_common::name_key;
use forwarder_common::node_options::LeastMss;
use forwarder_common::token_bucket::TokenBucket;
use forwarder_common::verdict::DropReason;

use crate::maps::{
    self, CLOSED, COOKIE_KEYS, ERRORS, FLOWS, GUESSES, HELLO_FREE, HELLO_INDEX, HELLOS,
    LISTENER_STATS, MAGLEV, NAME_KEY, NAMES, NODE_INDEX, NODE_SLOTS, NODE_STATS, NODES, PATH_STATS,
    PATHS, POOLS, PORT_FLOWS, RESETS, REVERSE, SETTINGS, SOURCE_PORTS, SOURCE_RULES, STRAYS,
    VIP_INDEX, VIP_MSS, VIP_SLOTS, VIPS, WILDCARDS,
};
use crate::packet::bounds;
use crate::{clock, count, events, source_flows};

/// What a map says when a key exists already.
const EEXIST: i32 = -17;

/// All maps.
#[derive(Clone, Copy)]
pub struct Maps;

/// A hello buffer that this CPU holds.
pub struct Held {
    pub slot: u32,
    pub hello: *mut Hello,
}

impl Deref for Held {
    type Target = Hello;

    #[inline(always)]
    fn deref(&self) -> &Hello {
        // SAFETY: a map value, held.
        unsafe { &*self.hello }
    }
}

impl DerefMut for Held {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Hello {
        // SAFETY: a map value, held.
        unsafe { &mut *self.hello }
    }
}

/// A flow, which other CPUs may have at the same time: each field has one writer.
pub struct FlowRef(pub *mut Flow);

impl Deref for FlowRef {
    type Target = Flow;

    #[inline(always)]
    fn deref(&self) -> &Flow {
        // SAFETY: a map value.
        unsafe { &*self.0 }
    }
}

impl DerefMut for FlowRef {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Flow {
        // SAFETY: a map value; its fields have one writer each.
        unsafe { &mut *self.0 }
    }
}

impl Bounds for Maps {
    #[inline(always)]
    fn mask<const MASK: i32>(value: u64) -> AtMost<MASK> {
        let value = bounds::mask::<MASK>(value);
        // SAFETY: by the mask.
        unsafe { assert_unchecked(value <= MASK as u64) };
        AtMost::new(value)
    }

    #[inline(always)]
    fn at_most<const MAX: i32>(value: u64) -> AtMost<MAX> {
        let value = bounds::at_most::<MAX>(value);
        // SAFETY: by the comparison.
        unsafe { assert_unchecked(value <= MAX as u64) };
        AtMost::new(value)
    }

    #[inline(always)]
    fn positive<const MASK: i32>(value: u64) -> Count<MASK> {
        let value = bounds::positive::<MASK>(value);
        // SAFETY: by the mask.
        unsafe { assert_unchecked(value >= 1 && value <= MASK as u64 + 1) };
        Count::new(value)
    }

    #[inline(always)]
    fn black_box(value: u32) -> u32 {
        bounds::black_box(value)
    }

    #[inline(always)]
    fn clobber<T>(value: &mut T) {
        bounds::clobber(value);
    }

    #[inline(always)]
    fn barrier<T>(value: &mut T) {
        bounds::barrier(value);
    }

    #[inline(always)]
    fn get<T: Copy + Default, const BASE: usize, const MAX: i32, const N: usize>(
        from: &[T; N],
        at: AtMost<MAX>,
    ) -> T {
        const { assert!(BASE + (MAX as usize) < N) };
        // SAFETY: asserted.
        unsafe { core::ptr::read_volatile(from.as_ptr().add(BASE).add(at.get() as usize)) }
    }

    #[inline(always)]
    fn word<const BASE: usize, const MAX: i32, const N: usize>(
        from: &[u8; N],
        at: AtMost<MAX>,
    ) -> u32 {
        const { assert!(BASE + (MAX as usize) + 3 < N) };
        // SAFETY: asserted.
        u32::from_be(unsafe { bounds::load_u32(from.as_ptr().add(BASE).add(at.get() as usize)) })
    }

    #[inline(always)]
    fn put<T, const MAX: i32, const N: usize>(to: &mut [T; N], at: AtMost<MAX>, value: T) {
        const { assert!((MAX as usize) < N) };
        // SAFETY: asserted.
        unsafe { core::ptr::write_volatile(to.as_mut_ptr().add(at.get() as usize), value) };
    }

    #[inline(always)]
    fn increment<const MAX: i32, const N: usize>(to: &mut [u64; N], at: AtMost<MAX>) {
        const { assert!((MAX as usize) < N) };
        // SAFETY: asserted.
        unsafe {
            let place = to.as_mut_ptr().add(at.get() as usize);
            *place = (*place).wrapping_add(1);
        }
    }
}

impl Store for Maps {
    type Held = Held;
    type Work = &'static mut Work;
    type Flow = FlowRef;
    type Node = &'static Node;
    type Vip = &'static Vip;
    type Pool = &'static Pool;

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no argument.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn work(&self) -> Option<&'static mut Work> {
        maps::work()
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn cookie_key(&self, slot: u32) -> Option<[u64; 2]> {
        COOKIE_KEYS.get(slot).copied()
    }

    #[inline(always)]
    fn bucket(&self, bucket: Bucket, take: impl FnOnce(&mut TokenBucket) -> bool) -> bool {
        let bucket = match bucket {
            Bucket::Resets => RESETS.get_ptr_mut(0),
            Bucket::Errors => ERRORS.get_ptr_mut(0),
            Bucket::Strays => STRAYS.get_ptr_mut(0),
            Bucket::Guesses => GUESSES.get_ptr_mut(0),
        };
        match bucket {
            // SAFETY: this CPU's, and a packet is worked on without preemption.
            Some(bucket) => take(unsafe { &mut *bucket }),
            None => false,
        }
    }

    #[inline(always)]
    fn source_rule(&self, address: &Address) -> Option<u32> {
        SOURCE_RULES
            .get(Key::new(128, *address))
            .map(|rule| rule.kind)
    }

    #[inline(always)]
    fn vip(&self, number: u32) -> Option<&'static Vip> {
        VIPS.get(number)
    }

    #[inline(always)]
    fn vip_slot(&self, slot: u32) -> Option<u32> {
        VIP_SLOTS.get(slot).copied()
    }

    #[inline(always)]
    fn vip_number(&self, endpoint: &Endpoint) -> Option<u32> {
        // SAFETY: the number is copied at once.
        unsafe { VIP_INDEX.get(endpoint) }.copied()
    }

    #[inline(always)]
    fn least_mss(&self, vip: u32) -> Option<LeastMss> {
        VIP_MSS.get(vip).copied()
    }

    #[inline(always)]
    fn set_least_mss(&self, vip: u32, least: LeastMss) {
        if let Some(place) = VIP_MSS.get_ptr_mut(vip) {
            // SAFETY: one word of a map, for which a lost write is harmless.
            unsafe { *place = least };
        }
    }

    #[inline(always)]
    fn node(&self, number: u32) -> Option<&'static Node> {
        NODES.get(number)
    }

    #[inline(always)]
    fn node_slot(&self, slot: u32) -> Option<u32> {
        NODE_SLOTS.get(slot).copied()
    }

    #[inline(always)]
    fn node_number(&self, endpoint: &Endpoint) -> Option<u32> {
        // SAFETY: the number is copied at once.
        unsafe { NODE_INDEX.get(endpoint) }.copied()
    }

    #[inline(always)]
    fn pool(&self, number: u32) -> Option<&'static Pool> {
        POOLS.get(number)
    }

    #[inline(always)]
    fn target(&self, number: u32) -> Option<Path> {
        PATHS.get(number).copied()
    }

    #[inline(always)]
    fn ordinal(&self, table: u32, v4: bool, index: AtMost<0x3ff>) -> u32 {
        let Some(table) = MAGLEV.get(table) else {
            return 0;
        };
        let half = if v4 { &table.v4 } else { &table.v6 };
        u32::from(Self::get::<_, 0, _, _>(half, index))
    }

    #[inline(always)]
    fn name(&self, table: u16, hello: &Hello) -> Option<NameEntry> {
        name(table, hello)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        FLOWS.get_ptr_mut(key).map(FlowRef)
    }

    #[inline(always)]
    fn is_same_flow(&self, one: &FlowRef, other: &FlowRef) -> bool {
        // Or LLVM drops a test for null before this as part of the comparison, and verifiers before 6.8 do not know that.
        bounds::clobber(one.0);
        core::ptr::eq(one.0, other.0)
    }

    #[inline(always)]
    fn source_flows(&self, client: &Address) -> (u32, u32) {
        source_flows::of(client)
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Result<(), NotEntered> {
        // Before it is made: whoever ends it at once finds it counted.
        source_flows::more(&key.client);
        let made = entered(FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)));
        if made.is_err() {
            source_flows::less(&key.client);
        }
        made
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) -> bool {
        if FLOWS.remove(key).is_err() {
            return false;
        }
        source_flows::less(&key.client);
        true
    }

    #[inline(always)]
    fn reverse(&self, key: &ReverseKey) -> Option<u32> {
        // SAFETY: the number is copied at once.
        unsafe { REVERSE.get(key) }.copied()
    }

    #[inline(always)]
    fn insert_reverse(&self, key: &ReverseKey, vip: u32) -> Result<(), NotEntered> {
        entered(REVERSE.insert(key, &vip, u64::from(BPF_NOEXIST)))
    }

    #[inline(always)]
    fn remove_reverse(&self, key: &ReverseKey) {
        let _ = REVERSE.remove(key);
    }

    #[inline(always)]
    fn port_flow(&self, slot: u32) -> Option<FlowKey> {
        PORT_FLOWS.get(slot).copied()
    }

    #[inline(always)]
    fn set_port_flow(&self, slot: u32, key: &FlowKey) -> bool {
        match PORT_FLOWS.get_ptr_mut(slot) {
            Some(served) => {
                // SAFETY: a map value; while the port serves a flow, nobody writes here.
                unsafe { *served = *key };
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn pop_port(&self) -> Option<u16> {
        match SOURCE_PORTS.pop() {
            Ok(Some(port)) => Some(port as u16),
            _ => None,
        }
    }

    #[inline(always)]
    fn push_port(&self, port: u16) {
        let _ = SOURCE_PORTS.push(u32::from(port), 0);
    }

    #[inline(always)]
    fn closed_set<R>(&self, set: u32, ask: impl FnOnce(&mut ClosedSet) -> R) -> Option<R> {
        let set = CLOSED.get_ptr_mut(set)?;
        // SAFETY: a map value; what another processor changes meanwhile only makes the answer worse.
        Some(ask(unsafe { &mut *set }))
    }

    #[inline(always)]
    fn hello_slot(&self, key: &FlowKey) -> Option<u32> {
        // SAFETY: the number is copied at once.
        unsafe { HELLO_INDEX.get(key) }.copied()
    }

    #[inline(always)]
    fn remove_hello(&self, key: &FlowKey) -> bool {
        HELLO_INDEX.remove(key).is_ok()
    }

    #[inline(always)]
    fn push_free(&self, slot: u32) {
        let _ = HELLO_FREE.push(slot, 0);
    }

    #[inline(always)]
    fn lock(&self, slot: u32) -> Result<Held, Missing> {
        let Some(hello) = HELLOS.get_ptr_mut(slot) else {
            return Err(Missing::Absent);
        };
        // SAFETY: `hello` points at a map value. Additions to one word are ordered, so at most one reads 1.
        unsafe {
            let users = &raw mut (*hello).users;
            if bounds::atomic_enter(users) == 1 {
                return Ok(Held { slot, hello });
            }
            bounds::atomic_add(users, -1);
        }
        Err(Missing::Busy)
    }

    #[inline(always)]
    fn held(&self, slot: u32) -> Option<Held> {
        HELLOS.get_ptr_mut(slot).map(|hello| Held { slot, hello })
    }

    #[inline(always)]
    fn slot(&self, held: &Held) -> u32 {
        held.slot
    }

    #[inline(always)]
    fn peek(&self, slot: u32) -> Option<(u32, FlowKey)> {
        let hello = HELLOS.get_ptr(slot)?;
        // SAFETY: words of a map value. Whose it is is asked last.
        unsafe {
            let stored = core::ptr::read_volatile(&raw const (*hello).stored);
            Some((stored, (*hello).owner))
        }
    }

    #[inline(always)]
    fn unlock(&self, held: Held) {
        bounds::clobber(held.hello);
        // SAFETY: `hello` points at a map value.
        unsafe { bounds::atomic_add(&raw mut (*held.hello).users, -1) };
    }

    #[inline(always)]
    fn count(&self, reason: DropReason) {
        count::reason(reason);
    }

    #[inline(always)]
    fn count_number(&self, reason: u32) {
        count::number(reason);
    }

    #[inline(always)]
    fn tally(&self, slot: u32) {
        count::tally(slot);
    }

    #[inline(always)]
    fn listener_stats(&self, listener: u32, add: impl FnOnce(&mut ListenerStats)) {
        if let Some(stats) = LISTENER_STATS.get_ptr_mut(listener) {
            // SAFETY: this CPU's, and a packet is worked on without preemption.
            add(unsafe { &mut *stats });
        }
    }

    #[inline(always)]
    fn target_stats(&self, target: u32, add: impl FnOnce(&mut PathStats)) {
        if let Some(stats) = PATH_STATS.get_ptr_mut(target) {
            // SAFETY: as above.
            add(unsafe { &mut *stats });
        }
    }

    #[inline(always)]
    fn node_stats(&self, node: u32, add: impl FnOnce(&mut NodeStats)) {
        if let Some(stats) = NODE_STATS.get_ptr_mut(node) {
            // SAFETY: as above.
            add(unsafe { &mut *stats });
        }
    }

    #[inline(always)]
    fn report_opened(
        &self,
        key: &FlowKey,
        flow: &FlowRef,
        hello: &Hello,
        connect_us: u32,
        now_ns: u64,
    ) {
        events::opened(key, flow, hello, connect_us, now_ns);
    }

    #[inline(always)]
    fn report_closed(&self, key: &FlowKey, last: &Flow, reason: u32, now_ns: u64) {
        events::closed(key, last, reason, now_ns);
    }

    #[inline(always)]
    fn report_refused(&self, key: &FlowKey, reason: u32, hello: &Hello, now_ns: u64) {
        events::refused(key, reason, hello, now_ns);
    }
}

/// What came of an insertion with `BPF_NOEXIST`.
#[inline(always)]
const fn entered(made: Result<(), i32>) -> Result<(), NotEntered> {
    match made {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(NotEntered::Clash),
        Err(_) => Err(NotEntered::Full),
    }
}

/// The name itself, then the longest match of the reversed name among wildcards.
#[inline(always)]
fn name(table: u16, hello: &Hello) -> Option<NameEntry> {
    let key = NAME_KEY.get_ptr_mut(0)?;
    let length = hello.reader.name_len();
    // SAFETY: this CPU's key; every offset is masked to its 256 bytes, and the name's to its 256.
    unsafe {
        let bytes = (&raw mut (*key).bytes).cast::<u8>();
        let name = (&raw const hello.server_name).cast::<u8>();
        let [high, low] = table.to_be_bytes();
        core::ptr::write_volatile(bytes, high);
        core::ptr::write_volatile(bytes.add(1), low);
        for i in 0..NAME_MAX {
            bounds::clobber(key);
            if i >= length {
                break;
            }
            let from = bounds::mask::<0xff>(u64::from(length - 1 - i)) as usize;
            let byte = core::ptr::read_volatile(name.add(from));
            let to = bounds::mask::<0xff>(u64::from(i + 2)) as usize;
            core::ptr::write_volatile(bytes.add(to), byte);
        }
        let end = bounds::mask::<0xff>(u64::from(length + 2)) as usize;
        core::ptr::write_volatile(bytes.add(end), 0);
        (*key).bits = 8 * (length + 3);
        let secret = SETTINGS.get(0)?.name_secret;
        let exact = name_key::of_words(secret, table, length + 2, |at| {
            bounds::clobber(key);
            let at = bounds::mask::<0x1f>(u64::from(at)) as usize;
            u64::from_le(core::ptr::read_volatile(bytes.cast::<u64>().add(at)))
        });
        if let Some(entry) = NAMES.get(&exact) {
            return Some(*entry);
        }
        let key = &*(&raw const (*key).bits).cast::<Key<[u8; NAME_KEY_BYTES]>>();
        WILDCARDS.get(key).copied()
    }
}
