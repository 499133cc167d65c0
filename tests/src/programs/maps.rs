//! The maps of loaded programs under their types.

use std::borrow::BorrowMut;

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, Queue, RingBuf};
use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Event, Flow, FlowKey, Hello, ListenerStats, MaglevTable,
    NAME_KEY_BYTES, NameEntry, NameKey, Node, NodeStats, Path, PathStats, Pool, PublicLink,
    ReverseKey, Settings, SourceRule, Vip, map,
};
use forwarder_common::verdict::{DropReason, REASONS};

use super::blank::AnyMap;
use super::kernel::{Kernel, KernelError};

/// A map of the kernel's.
pub type Of<K, V> = HashMap<MapData, K, V>;

/// Every map that a test fills or reads.
#[expect(
    missing_docs,
    reason = "the fields are the maps of the ABI, described there"
)]
pub struct Maps {
    pub vip_index: Of<Endpoint, u32>,
    pub vip_slots: Array<MapData, u32>,
    pub vips: Array<MapData, Vip>,
    pub names: Of<NameKey, NameEntry>,
    pub wildcards: LpmTrie<MapData, [u8; NAME_KEY_BYTES], NameEntry>,
    pub pools: Array<MapData, Pool>,
    pub maglev: Array<MapData, MaglevTable>,
    pub paths: Array<MapData, Path>,
    pub node_index: Of<Endpoint, u32>,
    pub node_slots: Array<MapData, u32>,
    pub nodes: Array<MapData, Node>,
    pub flows: Of<FlowKey, Flow>,
    pub reverse: Of<ReverseKey, u32>,
    pub source_flows: Array<MapData, u64>,
    pub hellos: Array<MapData, Hello>,
    pub hello_index: Of<FlowKey, u32>,
    pub hello_free: Queue<MapData, u32>,
    pub source_ports: Queue<MapData, u32>,
    pub port_flows: Array<MapData, FlowKey>,
    pub closed: Array<MapData, ClosedSet>,
    pub cookie_keys: Array<MapData, [u64; 2]>,
    pub settings: Array<MapData, Settings>,
    pub source_rules: LpmTrie<MapData, Address, SourceRule>,
    pub public_links: Of<u32, PublicLink>,
    drops: PerCpuArray<MapData, u64>,
    tallies: PerCpuArray<MapData, u64>,
    path_stats: PerCpuArray<MapData, PathStats>,
    node_stats: PerCpuArray<MapData, NodeStats>,
    listener_stats: PerCpuArray<MapData, ListenerStats>,
    events: RingBuf<MapData>,
}

fn typed<T>(all: &mut Vec<AnyMap>, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let at = all.iter().position(|own| own.name == name);
    let at = at.ok_or(KernelError::Missing {
        name: name.to_owned(),
    })?;
    Map::from_map_data(all.swap_remove(at).into_data())
        .and_then(T::try_from)
        .map_err(|source| KernelError::Map { name, source })
}

impl Maps {
    /// Opens those of loaded programs.
    pub fn open(kernel: &Kernel) -> Result<Self, KernelError> {
        let all = &mut kernel.maps()?;
        Ok(Self {
            vip_index: typed(all, map::VIP_INDEX)?,
            vip_slots: typed(all, map::VIP_SLOTS)?,
            vips: typed(all, map::VIPS)?,
            names: typed(all, map::NAMES)?,
            wildcards: typed(all, map::WILDCARDS)?,
            pools: typed(all, map::POOLS)?,
            maglev: typed(all, map::MAGLEV)?,
            paths: typed(all, map::PATHS)?,
            node_index: typed(all, map::NODE_INDEX)?,
            node_slots: typed(all, map::NODE_SLOTS)?,
            nodes: typed(all, map::NODES)?,
            flows: typed(all, map::FLOWS)?,
            reverse: typed(all, map::REVERSE)?,
            source_flows: typed(all, map::SOURCE_FLOWS)?,
            hellos: typed(all, map::HELLOS)?,
            hello_index: typed(all, map::HELLO_INDEX)?,
            hello_free: typed(all, map::HELLO_FREE)?,
            source_ports: typed(all, map::SOURCE_PORTS)?,
            port_flows: typed(all, map::PORT_FLOWS)?,
            closed: typed(all, map::CLOSED)?,
            cookie_keys: typed(all, map::COOKIE_KEYS)?,
            settings: typed(all, map::SETTINGS)?,
            source_rules: typed(all, map::SOURCE_RULES)?,
            public_links: typed(all, map::PUBLIC_LINKS)?,
            drops: typed(all, map::DROPS)?,
            tallies: typed(all, map::TALLIES)?,
            path_stats: typed(all, map::PATH_STATS)?,
            node_stats: typed(all, map::NODE_STATS)?,
            listener_stats: typed(all, map::LISTENER_STATS)?,
            events: typed(all, map::EVENTS)?,
        })
    }

    /// How often each reason was counted, over all CPUs, in the order of [`DropReason::ALL`].
    ///
    /// # Panics
    /// When the map cannot be read.
    #[must_use]
    pub fn drops(&self) -> [u64; REASONS] {
        let mut counts = [0; REASONS];
        for (reason, count) in DropReason::ALL.iter().zip(&mut counts) {
            let values = self
                .drops
                .get(&(*reason as u32), 0)
                .expect("a counter for each reason");
            *count = values.iter().sum();
        }
        counts
    }

    /// A slot of the tallies, over all CPUs.
    ///
    /// # Panics
    /// When the map cannot be read.
    #[must_use]
    pub fn tally(&self, slot: u32) -> u64 {
        let values = self.tallies.get(&slot, 0).expect("a counter in each slot");
        values.iter().sum()
    }

    /// Counters of a path: those of the ABI's struct, in its order.
    #[must_use]
    pub fn path_stats(&self, index: u32) -> Vec<u64> {
        words(&self.path_stats, index)
    }

    /// Counters of a node, likewise.
    #[must_use]
    pub fn node_stats(&self, index: u32) -> Vec<u64> {
        words(&self.node_stats, index)
    }

    /// Counters of a listener, likewise.
    #[must_use]
    pub fn listener_stats(&self, index: u32) -> Vec<u64> {
        words(&self.listener_stats, index)
    }

    /// The events since the last call.
    ///
    /// # Panics
    /// When one is not an event of the ABI.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(bytes) = self.events.next() {
            assert_eq!(bytes.len(), size_of::<Event>(), "an event of another size");
            // SAFETY: as many bytes as an event has, and an event is made of integers only.
            events.push(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }

    /// Every free source port, and how many hello buffers are free; both queues stay as they are.
    pub fn free(&mut self) -> (Vec<u32>, Vec<u32>) {
        (turn(&mut self.source_ports), turn(&mut self.hello_free))
    }

    /// Changes the settings.
    ///
    /// # Panics
    /// When the map cannot be used.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.get(&0, 0).expect("settings");
        change(&mut settings);
        self.settings.set(0, settings, 0).expect("settings");
    }
}

/// The record at an index, summed over all CPUs word by word: the statistics are made of counters only.
fn words<T: Pod>(map: &PerCpuArray<MapData, T>, index: u32) -> Vec<u64> {
    let mut sums = vec![0_u64; size_of::<T>() / 8];
    let values = map.get(&index, 0).expect("a record at this index");
    for value in values.iter() {
        // SAFETY: the statistics are repr(C) and made of u64 only; the length is their size.
        let words = unsafe { std::slice::from_raw_parts((&raw const *value).cast(), sums.len()) };
        for (sum, word) in sums.iter_mut().zip::<&[u64]>(words) {
            *sum += word;
        }
    }
    sums
}

/// Takes everything out of a queue and puts it back in the same order.
fn turn<M: BorrowMut<MapData>>(queue: &mut Queue<M, u32>) -> Vec<u32> {
    let all: Vec<u32> = std::iter::from_fn(|| queue.pop(0).ok()).collect();
    for value in &all {
        queue.push(value, 0).expect("room for what was there");
    }
    all
}
