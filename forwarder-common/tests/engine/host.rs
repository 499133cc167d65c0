//! The engine's traits over hash maps and byte vectors.

use std::cell::{Cell, RefCell, RefMut, UnsafeCell};
use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};

use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Flow, FlowKey, HELLO_BYTES, Hello, ListenerStats, NO_HOME,
    NameEntry, Node, NodeStats, Path, PathStats, Pool, ReverseKey, Settings, Vip, client_address,
    link, slot,
};
use forwarder_common::closed::SETS;
use forwarder_common::engine::bounds::{AtMost, Bounds};
use forwarder_common::engine::buffer::Missing;
use forwarder_common::engine::store::{Bucket, NotEntered, Store};
use forwarder_common::engine::work::{Reply, Work};
use forwarder_common::hello::Reader;
use forwarder_common::node_options::LeastMss;
use forwarder_common::pace::Pace;
use forwarder_common::tcp::SynOptions;
use forwarder_common::token_bucket::TokenBucket;
use forwarder_common::verdict::{DropReason, REASONS};

/// Flows that fit.
const FLOWS: usize = 64;
/// Hello buffers.
const HELLOS: u32 = 8;

type Key = (Address, u16, u16);

const fn key(key: &FlowKey) -> Key {
    (key.client, key.port_be, key.vip)
}

const fn reverse_key(key: &ReverseKey) -> Key {
    (key.client, key.port_be, key.node)
}

/// All tables of one machine with one processor.
pub struct Host {
    pub now_ns: Cell<u64>,
    pub settings: Settings,
    cookie_keys: [[u64; 2]; 4],
    pub vips: Vec<Vip>,
    pub nodes: Vec<Node>,
    pub pools: Vec<Pool>,
    pub targets: Vec<Path>,
    pub names: HashMap<Vec<u8>, NameEntry>,
    flows: RefCell<HashMap<Key, usize>>,
    places: Vec<UnsafeCell<Flow>>,
    free_places: RefCell<Vec<usize>>,
    reverse: RefCell<HashMap<Key, u32>>,
    ports: RefCell<VecDeque<u16>>,
    port_flows: RefCell<Vec<FlowKey>>,
    closed: RefCell<HashMap<u32, ClosedSet>>,
    hello_index: RefCell<HashMap<Key, u32>>,
    free_hellos: RefCell<VecDeque<u32>>,
    hellos: Vec<RefCell<Box<Hello>>>,
    held: Vec<Cell<bool>>,
    least_mss: RefCell<HashMap<u32, LeastMss>>,
    buckets: RefCell<[TokenBucket; 4]>,
    work: RefCell<Work>,
    drops: RefCell<[u64; REASONS]>,
    listener_stats: RefCell<ListenerStats>,
    target_stats: RefCell<PathStats>,
    node_stats: RefCell<NodeStats>,
    /// Reasons of flows that ended.
    pub ended: RefCell<Vec<u32>>,
    /// Reasons of connections that were refused.
    pub refused: RefCell<Vec<u32>>,
}

const NO_KEY: FlowKey = FlowKey {
    client: [0; 4],
    port_be: 0,
    vip: 0,
};

fn zero_flow() -> Flow {
    Flow {
        client_isn: 0,
        entrance_isn: 0,
        delta: 0,
        name: 0,
        opened_ms: 0,
        seen_ms: 0,
        client_end: 0,
        node_end: 0,
        client_acked: 0,
        node_acked: 0,
        public_link: 0,
        node: 0,
        path: 0,
        source_port_be: 0,
        client_address: 0,
        state: 0,
        node_options: 0,
        client_marks: 0,
        node_marks: 0,
    }
}

fn zero_hello() -> Box<Hello> {
    Box::new(Hello {
        users: 0,
        client_isn: 0,
        entrance_isn: 0,
        state: 0,
        stored: 0,
        started_ms: 0,
        touched_ms: 0,
        syn_us: 0,
        syns: 0,
        node_syns: 0,
        attempt: 0,
        first_ordinal: 0,
        segments: 0,
        window: 0,
        header_len: 0,
        path_base: 0,
        pool: 0,
        name: 0,
        refused: 0,
        piece: 0,
        challenges: 0,
        pace: Pace::START,
        owner: NO_KEY,
        reader: Reader::START,
        server_name: [0; 256],
        alpn: [0; 32],
        bytes: [0; HELLO_BYTES],
    })
}

fn zero_work() -> Work {
    Work {
        key: NO_KEY,
        local: [0; 4],
        local_port_be: 0,
        table: 0,
        listener: 0,
        mss: 0,
        on_refuse: 0,
        l3: 0,
        v6: 0,
        header_len: 0,
        payload_len: 0,
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        slot: 0,
        reply: Reply::new(0, 0, 0),
        skip: 0,
        reason: 0,
        replay_at: 0,
        runs: 0,
        left: 0,
        offset: 0,
        sum: 0,
        public_link: 0,
        node: 0,
        from_node: 0,
        options: SynOptions::START,
        option_bytes: [0; 64],
    }
}

impl Host {
    /// One listener with one VIP, whose names lead to one node.
    pub fn new(vip: Endpoint, node: Endpoint, local: Address, mode: u8) -> Self {
        Self {
            now_ns: Cell::new(1_000_000_000_000),
            settings: Settings {
                name_secret: [1, 2],
                reset_interval_ns: 1_000_000,
                reset_fill_ns: 1_000_000_000,
                syn_interval_us: 200_000,
                syns_per_node: 2,
                hello_steal_ms: 1_000,
                hello_timeout_ms: 10_000,
                events: u32::MAX,
                hellos: HELLOS,
                first_port: 61_000,
                flows: 1 << 16,
                flows_per_source: 0,
                predecessor: 0,
            },
            cookie_keys: [[3, 4], [5, 6], [7, 8], [9, 10]],
            vips: vec![Vip {
                address: vip.address,
                port_be: vip.port_be,
                listener: 0,
                table: 1,
                on_refuse: 0,
                closed: 0,
                mss: 1_380,
                pad2: [0; 3],
                ifindex: 2,
                pad3: 0,
            }],
            nodes: vec![Node {
                address: node.address,
                local,
                port_be: node.port_be,
                mss: 1_380,
                ifindex: 3,
                link: link::L3,
                closed: 0,
                first: 0,
                transparent: u8::from(mode == client_address::TRANSPARENT),
                mtu: 1_420,
                homes: [0, NO_HOME, NO_HOME, NO_HOME],
            }],
            pools: vec![Pool {
                maglev: 0,
                nodes: 1,
                client_address: mode,
                balance: 0,
                refuse_until_ns: 0,
            }],
            targets: vec![Path {
                listener: 0,
                route: 0,
                pool: 0,
                node: 0,
                client_address: mode,
                pad: [0; 7],
            }],
            names: HashMap::new(),
            flows: RefCell::default(),
            places: (0..FLOWS).map(|_| UnsafeCell::new(zero_flow())).collect(),
            free_places: RefCell::new((0..FLOWS).collect()),
            reverse: RefCell::default(),
            ports: RefCell::new((61_000..61_008).collect()),
            port_flows: RefCell::new(vec![NO_KEY; 8]),
            closed: RefCell::default(),
            hello_index: RefCell::default(),
            free_hellos: RefCell::new((0..HELLOS).collect()),
            hellos: (0..HELLOS).map(|_| RefCell::new(zero_hello())).collect(),
            held: (0..HELLOS).map(|_| Cell::new(false)).collect(),
            least_mss: RefCell::default(),
            buckets: RefCell::default(),
            work: RefCell::new(zero_work()),
            drops: RefCell::new([0; REASONS]),
            listener_stats: RefCell::new(zero_listener()),
            target_stats: RefCell::new(zero_target()),
            node_stats: RefCell::new(zero_node()),
            ended: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// How many packets were dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.borrow()[reason as usize]
    }

    /// A copy of the only flow.
    pub fn only_flow(&self) -> Option<Flow> {
        let flows = self.flows.borrow();
        let place = *flows.values().next()?;
        // SAFETY: one thread, and nobody keeps a reference.
        Some(unsafe { *self.places[place].get() })
    }

    /// Gives a connection a buffer, which is held.
    pub fn take_hello(&self, of: &FlowKey, fill: impl FnOnce(&mut Hello)) -> u32 {
        let slot = self.free_hellos.borrow_mut().pop_front().unwrap();
        assert!(!self.held[slot as usize].replace(true));
        self.hello_index.borrow_mut().insert(key(of), slot);
        let mut hello = self.hellos[slot as usize].borrow_mut();
        hello.owner = *of;
        fill(&mut hello);
        slot
    }

    /// Whether every buffer, port and entry is free again.
    pub fn is_clean(&self) -> bool {
        self.flows.borrow().is_empty()
            && self.reverse.borrow().is_empty()
            && self.hello_index.borrow().is_empty()
            && self.ports.borrow().len() == 8
            && self.free_hellos.borrow().len() == HELLOS as usize
            && self.held.iter().all(|held| !held.get())
    }
}

const fn zero_listener() -> ListenerStats {
    ListenerStats {
        syns: 0,
        cookies: 0,
        cookies_valid: 0,
        cookies_invalid: 0,
        hellos: 0,
        hello_bytes: 0,
        hello_segments: 0,
        hello_ms: 0,
        opened: 0,
        refused: 0,
        packets: 0,
        bytes: 0,
    }
}

const fn zero_target() -> PathStats {
    PathStats {
        up_packets: 0,
        up_bytes: 0,
        down_packets: 0,
        down_bytes: 0,
        opened: 0,
        closed: 0,
        reset: 0,
        failed: 0,
        replays: 0,
    }
}

const fn zero_node() -> NodeStats {
    NodeStats {
        syns: 0,
        syn_timeouts: 0,
        syn_resets: 0,
        accepted: 0,
        connect_us: 0,
        connect_buckets: [0; 16],
        strays: 0,
    }
}

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
        match self.reverse.borrow_mut().insert(reverse_key(at), vip) {
            None => Ok(()),
            Some(_) => Err(NotEntered::Clash),
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

    fn listener_stats(&self, _: u32, add: impl FnOnce(&mut ListenerStats)) {
        add(&mut self.listener_stats.borrow_mut());
    }

    fn target_stats(&self, _: u32, add: impl FnOnce(&mut PathStats)) {
        add(&mut self.target_stats.borrow_mut());
    }

    fn node_stats(&self, _: u32, add: impl FnOnce(&mut NodeStats)) {
        add(&mut self.node_stats.borrow_mut());
    }

    fn report_opened(&self, _: &FlowKey, _: &FlowRef<'a>, _: &Hello, _: u32, _: u64) {}

    fn report_closed(&self, _: &FlowKey, _: &Flow, reason: u32, _: u64) {
        self.ended.borrow_mut().push(reason);
    }

    fn report_refused(&self, _: &FlowKey, reason: u32, _: &Hello, _: u64) {
        self.refused.borrow_mut().push(reason);
    }
}
