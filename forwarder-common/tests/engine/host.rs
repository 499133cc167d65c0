//! The engine's traits over hash maps and byte vectors.

mod store;
pub mod zero;

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{HashMap, VecDeque};

use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Flow, FlowKey, Hello, ListenerStats, NO_HOME, NameEntry, Node,
    NodeStats, Path, PathStats, Pool, ReverseKey, Settings, Vip, client_address, link,
};
use forwarder_common::engine::work::Work;
use forwarder_common::node_options::LeastMss;
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
    target_stats: RefCell<HashMap<u32, PathStats>>,
    node_stats: RefCell<HashMap<u32, NodeStats>>,
    /// Reasons of flows that ended.
    pub ended: RefCell<Vec<u32>>,
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
            places: (0..FLOWS).map(|_| UnsafeCell::new(zero::flow())).collect(),
            free_places: RefCell::new((0..FLOWS).collect()),
            reverse: RefCell::default(),
            ports: RefCell::new((61_000..61_008).collect()),
            port_flows: RefCell::new(vec![zero::KEY; 8]),
            closed: RefCell::default(),
            hello_index: RefCell::default(),
            free_hellos: RefCell::new((0..HELLOS).collect()),
            hellos: (0..HELLOS).map(|_| RefCell::new(zero::hello())).collect(),
            held: (0..HELLOS).map(|_| Cell::new(false)).collect(),
            least_mss: RefCell::default(),
            buckets: RefCell::default(),
            work: RefCell::new(zero::work()),
            drops: RefCell::new([0; REASONS]),
            listener_stats: RefCell::new(zero::listener()),
            target_stats: RefCell::default(),
            node_stats: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    /// How many packets were dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.borrow()[reason as usize]
    }

    /// What was counted for the listener.
    pub fn listener_counts(&self) -> ListenerStats {
        *self.listener_stats.borrow()
    }

    /// What was counted for a target.
    pub fn target_counts(&self, number: u32) -> PathStats {
        let counts = self.target_stats.borrow();
        counts.get(&number).copied().unwrap_or(zero::target())
    }

    /// What was counted for a node.
    pub fn node_counts(&self, number: u32) -> NodeStats {
        let counts = self.node_stats.borrow();
        counts.get(&number).copied().unwrap_or(zero::node())
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
            && self.free_places.borrow().len() == FLOWS
            && self.reverse.borrow().is_empty()
            && self.hello_index.borrow().is_empty()
            && self.ports.borrow().len() == 8
            && self.free_hellos.borrow().len() == HELLOS as usize
            && self.held.iter().all(|held| !held.get())
    }
}
