//! The tables' trait.

use std::cell::{RefMut, UnsafeCell};
use std::collections::hash_map::Entry;
use std::ops::{Deref, DerefMut};

use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Flow, FlowKey, Hello, ListenerStats, NameEntry, Node, NodeStats,
    Path, PathStats, Pool, ReverseKey, Settings, Vip, slot,
};
use forwarder_common::closed::SETS;
use forwarder_common::engine::bounds::{AtMost, Bounds};
use forwarder_common::engine::buffer::Missing;
use forwarder_common::engine::store::{Bucket, NotEntered, Store};
use forwarder_common::engine::work::Work;
use forwarder_common::node_options::LeastMss;
use forwarder_common::token_bucket::TokenBucket;
use forwarder_common::verdict::DropReason;

use super::{Host, key, reverse_key, zero};

pub struct Held<'a> {
    slot: u32,
    hello: RefMut<'a, Box<Hello>>,
}

impl Deref for Held<'_> {
    type Target = Hello;

    fn deref(&self) -> &Hello {
        &self.hello
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Hello {
        &mut self.hello
    }
}

/// A flow. Several handles of one may be alive; what is borrowed of them is not, over a call of the store.
pub struct FlowRef<'a>(&'a UnsafeCell<Flow>);

impl Deref for FlowRef<'_> {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        // SAFETY: one thread, and stages borrow for a single access.
        unsafe { &*self.0.get() }
    }
}

impl DerefMut for FlowRef<'_> {
    fn deref_mut(&mut self) -> &mut Flow {
        // SAFETY: as above.
        unsafe { &mut *self.0.get() }
    }
}

impl Bounds for &Host {}

impl<'a> Store for &'a Host {
    type Held = Held<'a>;
    type Work = RefMut<'a, Work>;
    type Flow = FlowRef<'a>;
    type Node = &'a Node;
    type Vip = &'a Vip;
    type Pool = &'a Pool;

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn random(&self) -> u32 {
        4
    }

    fn work(&self) -> Option<RefMut<'a, Work>> {
        Some(self.work.borrow_mut())
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn cookie_key(&self, slot: u32) -> Option<[u64; 2]> {
        self.cookie_keys.get(slot as usize).copied()
    }

    fn bucket(&self, bucket: Bucket, take: impl FnOnce(&mut TokenBucket) -> bool) -> bool {
        take(&mut self.buckets.borrow_mut()[bucket as usize])
    }

    fn source_rule(&self, _: &Address) -> Option<u32> {
        None
    }

    fn vip(&self, number: u32) -> Option<&'a Vip> {
        self.vips.get(number as usize)
    }

    fn vip_slot(&self, slot: u32) -> Option<u32> {
        let mut entry = slot::NOTHING;
        for (number, vip) in (0..).zip(&self.vips) {
            if slot::of(&vip.address, vip.port_be) == slot {
                entry = slot::with(entry, number);
            }
        }
        Some(entry)
    }

    fn vip_number(&self, endpoint: &Endpoint) -> Option<u32> {
        let at = |vip: &Vip| Endpoint::new(vip.address, vip.port_be) == *endpoint;
        self.vips.iter().position(at).map(|at| at as u32)
    }

    fn least_mss(&self, vip: u32) -> Option<LeastMss> {
        Some(
            self.least_mss
                .borrow()
                .get(&vip)
                .copied()
                .unwrap_or_default(),
        )
    }

    fn set_least_mss(&self, vip: u32, least: LeastMss) {
        self.least_mss.borrow_mut().insert(vip, least);
    }

    fn node(&self, number: u32) -> Option<&'a Node> {
        self.nodes.get(number as usize)
    }

    fn node_slot(&self, slot: u32) -> Option<u32> {
        let mut entry = slot::NOTHING;
        for (number, node) in (0..).zip(&self.nodes) {
            if slot::of(&node.address, node.port_be) == slot {
                entry = slot::with(entry, number);
            }
        }
        Some(entry)
    }

    fn node_number(&self, endpoint: &Endpoint) -> Option<u32> {
        let at = |node: &Node| Endpoint::new(node.address, node.port_be) == *endpoint;
        self.nodes.iter().position(at).map(|at| at as u32)
    }

    fn pool(&self, number: u32) -> Option<&'a Pool> {
        self.pools.get(number as usize)
    }

    fn target(&self, number: u32) -> Option<Path> {
        self.targets.get(number as usize).copied()
    }

    fn ordinal(&self, _: u32, _: bool, index: AtMost<0x3ff>) -> u32 {
        (index.get() % self.nodes.len() as u64) as u32
    }

    fn name(&self, _: u16, hello: &Hello) -> Option<NameEntry> {
        let name = &hello.server_name[..hello.reader.name_len() as usize];
        self.names.get(name).copied()
    }

    fn flow(&self, wanted: &FlowKey) -> Option<FlowRef<'a>> {
        let place = *self.flows.borrow().get(&key(wanted))?;
        Some(FlowRef(&self.places[place]))
    }

    fn is_same_flow(&self, one: &FlowRef<'a>, other: &FlowRef<'a>) -> bool {
        std::ptr::eq(one.0, other.0)
    }

    fn source_flows(&self, client: &Address) -> (u32, u32) {
        let flows = self.flows.borrow();
        let own = flows.keys().filter(|key| key.0 == *client).count();
        (own as u32, flows.len() as u32)
    }

    fn insert_flow(&self, at: &FlowKey, flow: &Flow) -> Result<(), NotEntered> {
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(&key(at)) {
            return Err(NotEntered::Clash);
        }
        // The last that was given back is used first, as in the kernel.
        let place = self
            .free_places
            .borrow_mut()
            .pop()
            .ok_or(NotEntered::Full)?;
        // SAFETY: one thread, and nobody keeps a reference.
        unsafe { *self.places[place].get() = *flow };
        flows.insert(key(at), place);
        Ok(())
    }

    fn remove_flow(&self, at: &FlowKey) -> bool {
        let place = self.flows.borrow_mut().remove(&key(at));
        self.free_places.borrow_mut().extend(place);
        place.is_some()
    }

    fn reverse(&self, at: &ReverseKey) -> Option<u32> {
        self.reverse.borrow().get(&reverse_key(at)).copied()
    }

    fn insert_reverse(&self, at: &ReverseKey, vip: u32) -> Result<(), NotEntered> {
        match self.reverse.borrow_mut().entry(reverse_key(at)) {
            Entry::Occupied(_) => Err(NotEntered::Clash),
            Entry::Vacant(place) => {
                place.insert(vip);
                Ok(())
            }
        }
    }

    fn remove_reverse(&self, at: &ReverseKey) {
        self.reverse.borrow_mut().remove(&reverse_key(at));
    }

    fn port_flow(&self, slot: u32) -> Option<FlowKey> {
        self.port_flows.borrow().get(slot as usize).copied()
    }

    fn set_port_flow(&self, slot: u32, key: &FlowKey) -> bool {
        match self.port_flows.borrow_mut().get_mut(slot as usize) {
            Some(served) => {
                *served = *key;
                true
            }
            None => false,
        }
    }

    fn pop_port(&self) -> Option<u16> {
        self.ports.borrow_mut().pop_front()
    }

    fn push_port(&self, port: u16) {
        self.ports.borrow_mut().push_back(port);
    }

    fn closed_set<R>(&self, set: u32, ask: impl FnOnce(&mut ClosedSet) -> R) -> Option<R> {
        assert!(set < SETS);
        let empty = forwarder_common::abi::Closed {
            digest: 0,
            entrance_isn: 0,
            closed_ms: 0,
        };
        let mut closed = self.closed.borrow_mut();
        Some(ask(closed
            .entry(set)
            .or_insert(ClosedSet { ways: [empty; 4] })))
    }

    fn hello_slot(&self, at: &FlowKey) -> Option<u32> {
        self.hello_index.borrow().get(&key(at)).copied()
    }

    fn remove_hello(&self, at: &FlowKey) -> bool {
        self.hello_index.borrow_mut().remove(&key(at)).is_some()
    }

    fn push_free(&self, slot: u32) {
        self.free_hellos.borrow_mut().push_back(slot);
    }

    fn lock(&self, slot: u32) -> Result<Held<'a>, Missing> {
        let hello = self.hellos.get(slot as usize).ok_or(Missing::Absent)?;
        if self.held[slot as usize].replace(true) {
            return Err(Missing::Busy);
        }
        let hello = hello.borrow_mut();
        Ok(Held { slot, hello })
    }

    fn held(&self, slot: u32) -> Option<Held<'a>> {
        assert!(self.held[slot as usize].get(), "nobody holds it");
        let hello = self.hellos.get(slot as usize)?.borrow_mut();
        Some(Held { slot, hello })
    }

    fn slot(&self, held: &Held<'a>) -> u32 {
        held.slot
    }

    fn peek(&self, slot: u32) -> Option<(u32, FlowKey)> {
        let hello = self.hellos.get(slot as usize)?.borrow();
        Some((hello.stored, hello.owner))
    }

    fn unlock(&self, held: Held<'a>) {
        assert!(
            self.held[held.slot as usize].replace(false),
            "held by nobody"
        );
    }

    fn count(&self, reason: DropReason) {
        self.count_number(reason as u32);
    }

    fn count_number(&self, reason: u32) {
        self.drops.borrow_mut()[reason as usize] += 1;
    }

    fn tally(&self, _: u32) {}

    fn listener_stats(&self, listener: u32, add: impl FnOnce(&mut ListenerStats)) {
        assert_eq!(listener, 0, "there is one");
        add(&mut self.listener_stats.borrow_mut());
    }

    fn target_stats(&self, target: u32, add: impl FnOnce(&mut PathStats)) {
        let mut counts = self.target_stats.borrow_mut();
        add(counts.entry(target).or_insert(zero::target()));
    }

    fn node_stats(&self, node: u32, add: impl FnOnce(&mut NodeStats)) {
        let mut counts = self.node_stats.borrow_mut();
        add(counts.entry(node).or_insert(zero::node()));
    }

    fn report_opened(&self, _: &FlowKey, _: &FlowRef<'a>, _: &Hello, _: u32, _: u64) {}

    fn report_closed(&self, _: &FlowKey, _: &Flow, reason: u32, _: u64) {
        self.ended.borrow_mut().push(reason);
    }

    fn report_refused(&self, _: &FlowKey, _: u32, _: &Hello, _: u64) {}
}
