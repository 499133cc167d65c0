//! What the maps hold at one moment, numbers resolved to names.
//!
//! Two numbers may bear one name for a while: a route that was edited lingers until its last flow ends.
//! Their counts are added up, so that no series stands twice on a page.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use aya::maps::{IterableMap, MapData};
use forwarder_common::abi::{
    Endpoint, Flow, FlowKey, ListenerStats, NodeStats, PathStats, ReverseKey, map, state,
};
use forwarder_common::verdict::DropReason;
use thiserror::Error;

use super::process::Process;
use crate::dataplane::bpf::attach::Attachment;
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::counters::{sum_nodes, sum_paths};
use crate::dataplane::bpf::maps::{CounterMaps, FlowMaps, MapsError, OfMap, found};
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::config_maps::ConfigMaps;
use crate::dataplane::flows::expired::{Counts, Expired};
use crate::dataplane::registry::{self, Registry, RegistryError};
use crate::health::report::Report;
use crate::instance::paths::Paths;
use crate::xdp::report::Report as XdpReport;

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The numbers.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A table cannot be walked through.
    #[error("cannot read the map {name}")]
    Scan {
        /// The map.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Names of listener, route, pool and node.
pub type PathLabels = [String; 4];

/// What one path carried and carries.
#[derive(Clone, Copy, Debug)]
pub struct PathSample {
    /// Counted by the programs.
    pub stats: PathStats,
    /// Counted by the sweeper.
    pub swept: Counts,
    /// Flows by state.
    pub flows: [u64; 3],
}

/// What one node did.
#[derive(Clone, Copy, Debug)]
pub struct NodeSample {
    /// Counted by the programs.
    pub stats: NodeStats,
    /// Whether a tunnel leads to it.
    pub reachable: bool,
    /// MTU of the way to it.
    pub mtu: u32,
}

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSample {
    /// Its name.
    pub name: &'static str,
    /// Entries in use, where they can be counted.
    pub entries: Option<u64>,
    /// Entries that fit.
    pub capacity: u64,
    /// What the kernel accounts to it.
    pub memory: Option<u64>,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By listener, route, pool and node.
    pub paths: BTreeMap<PathLabels, PathSample>,
    /// By listener.
    pub listeners: BTreeMap<String, ListenerStats>,
    /// By node.
    pub nodes: BTreeMap<String, NodeSample>,
    /// What is known about the health of nodes, pools and tunnels; as the daemon wrote it last.
    pub health: Report,
    /// By reason.
    pub drops: Vec<(DropReason, u64)>,
    /// The maps that can become full or large.
    pub maps: Vec<MapSample>,
    /// Where programs are attached.
    pub attachments: Vec<Attachment>,
    /// The XDP filter of public interfaces.
    pub xdp: XdpReport,
    /// Frames by what the XDP filter did with them.
    pub frames: Vec<(&'static str, u64)>,
    /// Events that were lost.
    pub events_lost: u64,
    /// The daemon.
    pub process: Option<Process>,
    /// How long this took.
    pub took: Duration,
}

/// The flow table, counted.
struct Census {
    /// By path and state.
    flows: BTreeMap<u16, [u64; 3]>,
    all: u64,
    /// Those that use a source port.
    ports: u64,
}

impl Snapshot {
    /// Reads the maps of the instance at `place`.
    pub fn read(place: &Paths) -> Result<Self, SnapshotError> {
        let start = Instant::now();
        let pins = Pins::new(place.bpffs());
        let registry = registry::file::load(&place.registry())?.unwrap_or_default();
        let counters = CounterMaps::open(&pins)?;
        let tables = ConfigMaps::open(&pins)?;
        let state = FlowMaps::open(&pins)?;
        let census = census(&state)?;
        let mut snapshot = Self {
            paths: paths(&registry, &counters, &Expired::open(&pins)?, &census)?,
            listeners: listeners(&registry, &counters)?,
            nodes: nodes(&registry, &counters, &tables)?,
            health: Report::load(&place.health()).unwrap_or_default(),
            drops: counters.drops()?,
            maps: maps(&pins, &tables, &state, &registry, &census)?,
            attachments: registry.attachments,
            xdp: XdpReport::load(&place.xdp()).unwrap_or_default(),
            frames: counters.xdp()?,
            events_lost: counters.events_lost()?,
            process: Process::read(),
            took: Duration::ZERO,
        };
        snapshot.took = start.elapsed();
        Ok(snapshot)
    }
}

fn census(maps: &FlowMaps) -> Result<Census, SnapshotError> {
    let mut census = Census {
        flows: BTreeMap::new(),
        all: 0,
        ports: 0,
    };
    scan(map::FLOWS, maps.flows.map(), |_: FlowKey, flow: Flow| {
        let at = match flow.state {
            state::CONNECTING => 0,
            state::REPLAYING => 1,
            _ => 2,
        };
        census.flows.entry(flow.path).or_default()[at] += 1;
        census.all += 1;
        census.ports += u64::from(!flow.is_transparent());
    })?;
    Ok(census)
}

fn scan<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    map: &MapData,
    each: impl FnMut(K, V),
) -> Result<(), SnapshotError> {
    batch::scan(map.fd().as_fd(), each).map_err(|source| SnapshotError::Scan { name, source })
}

fn count<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    map: &MapData,
) -> Result<u64, SnapshotError> {
    let mut entries = 0;
    scan(name, map, |_: K, _: V| entries += 1)?;
    Ok(entries)
}

fn paths(
    registry: &Registry,
    counters: &CounterMaps,
    expired: &Expired,
    census: &Census,
) -> Result<BTreeMap<PathLabels, PathSample>, MapsError> {
    let mut all: BTreeMap<PathLabels, PathSample> = BTreeMap::new();
    for block in &registry.blocks {
        let known = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
        let listener = registry.listeners.key(usize::from(block.listener));
        let route = registry.routes.key(usize::from(block.route));
        let pool = registry.pools.key(usize::from(block.pool));
        for (path, node) in (block.base..).zip(&block.nodes) {
            let labels = [
                known(listener.map(String::as_str)),
                known(route.map(|route| route.first_name.as_str())),
                known(pool.map(|pool| pool.name.as_str())),
                node_name(registry, *node),
            ];
            let own = PathSample {
                stats: counters.path(path)?,
                swept: expired.of(path)?,
                flows: census.flows.get(&path).copied().unwrap_or_default(),
            };
            all.entry(labels)
                .and_modify(|sample| sample.add(&own))
                .or_insert(own);
        }
    }
    Ok(all)
}

impl PathSample {
    pub(super) fn add(&mut self, other: &Self) {
        self.stats = sum_paths([&self.stats, &other.stats].into_iter());
        self.swept.silent += other.swept.silent;
        self.swept.unanswered += other.swept.unanswered;
        for (own, other) in self.flows.iter_mut().zip(other.flows) {
            *own += other;
        }
    }
}

fn node_name(registry: &Registry, number: u16) -> String {
    let name = registry.node_names.get(&number).cloned();
    let address = || registry.nodes.key(usize::from(number));
    name.or_else(|| address().map(ToString::to_string))
        .unwrap_or_else(|| String::from("unknown"))
}

fn listeners(
    registry: &Registry,
    counters: &CounterMaps,
) -> Result<BTreeMap<String, ListenerStats>, MapsError> {
    let numbered = registry.listeners.iter();
    let read = numbered.map(|(number, name)| Ok((name.clone(), counters.listener(number as u16)?)));
    read.collect()
}

fn nodes(
    registry: &Registry,
    counters: &CounterMaps,
    tables: &ConfigMaps,
) -> Result<BTreeMap<String, NodeSample>, MapsError> {
    let mut all: BTreeMap<String, NodeSample> = BTreeMap::new();
    for (number, _) in registry.nodes.iter() {
        let number = number as u16;
        let value = found(tables.nodes.get(&u32::from(number), 0)).reading(map::NODES)?;
        let own = NodeSample {
            stats: counters.node(number)?,
            reachable: value.is_some_and(|value| value.ifindex != 0),
            mtu: value.map_or(0, |value| value.mtu),
        };
        all.entry(node_name(registry, number))
            .and_modify(|sample| {
                sample.stats = sum_nodes([&sample.stats, &own.stats].into_iter());
                sample.reachable |= own.reachable;
                sample.mtu = sample.mtu.max(own.mtu);
            })
            .or_insert(own);
    }
    Ok(all)
}

fn maps(
    pins: &Pins,
    tables: &ConfigMaps,
    state: &FlowMaps,
    registry: &Registry,
    census: &Census,
) -> Result<Vec<MapSample>, SnapshotError> {
    let vips = count::<Endpoint, u32>(map::VIP_INDEX, tables.vip_index.map())?;
    let nodes = count::<Endpoint, u32>(map::NODE_INDEX, tables.node_index.map())?;
    let reverse = count::<ReverseKey, u32>(map::REVERSE, state.reverse.map())?;
    let hellos = count::<FlowKey, u32>(map::HELLO_INDEX, state.hello_index.map())?;
    let used = |name| match name {
        map::FLOWS => Some(census.all),
        map::REVERSE => Some(reverse),
        map::HELLO_INDEX => Some(hellos),
        map::VIP_INDEX => Some(vips),
        map::NODE_INDEX => Some(nodes),
        map::SOURCE_PORTS => Some(census.ports),
        map::PATHS => Some(registry.blocks.iter().map(|b| b.nodes.len() as u64).sum()),
        map::POOLS => Some(registry.pools.iter().count() as u64),
        _ => None,
    };
    let mut all = Vec::new();
    for name in pins.pinned_maps() {
        let data = MapData::from_pin(pins.map(name)).reading(name)?;
        let info = data.info().reading(name)?;
        all.push(MapSample {
            name,
            entries: used(name),
            capacity: u64::from(info.max_entries()),
            memory: memory(data.fd().as_fd()),
        });
    }
    Ok(all)
}

/// `memlock` of the map's descriptor: what the kernel accounts to it, preallocated or not.
fn memory(fd: BorrowedFd<'_>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}
