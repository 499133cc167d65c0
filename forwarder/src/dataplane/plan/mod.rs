//! What the maps should hold: a pure function of configuration, network and the numbers given so far.
//!
//! Nodes that are no longer configured but still numbered stay in the plan: open flows use them, and
//! their tunnel may change under them like that of any other node.

pub mod source_rules;
pub mod weights;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use forwarder_common::abi;
use forwarder_common::maglev;
use forwarder_common::token_bucket::Limit;
use thiserror::Error;

use self::source_rules::{SourceRules, source_rules};
use self::weights::Weights;
use super::address::address;
use super::bpf::sizes::Sizes;
use super::registry::{PoolKey, Registry, RouteKey};
use crate::config::model::{Balance, ClientAddress, Listener, NodeState, OnRefuse, Pool, Route};
use crate::config::{Config, claim};
use crate::link::{Egress, Link, LinkKind, Network, mss};

/// MTU of a path that is not known: every IPv6 link has it.
const LEAST_MTU: u32 = 1_280;
/// Least time between two SYNs of a flow.
const SYN_INTERVAL_US: u32 = 200_000;
/// SYNs to one node before the next one is tried.
const SYNS_PER_NODE: u32 = 2;
/// The listener of a claimed address that no listener has any more. No map has room for so many.
pub const NO_LISTENER: u16 = u16::MAX;
/// Age after which an incomplete hello may lose its buffer.
const HELLO_STEAL_MS: u32 = 1_000;

/// More of something than the maps have room for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("too many {what}: {count} where {room} fit; `forwarder unload` and a new start make room")]
pub struct PlanError {
    /// Of what.
    pub what: &'static str,
    /// How many there would be.
    pub count: usize,
    /// How many fit.
    pub room: u32,
}

/// How much of the room for something is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Of what.
    pub what: &'static str,
    /// How many there are.
    pub count: usize,
    /// How many fit.
    pub room: u32,
}

impl Occupancy {
    /// Whether little is left: a fifth.
    pub fn is_tight(&self) -> bool {
        self.count as u64 * 5 > u64::from(self.room) * 4
    }
}

impl fmt::Display for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count, room } = self;
        write!(
            f,
            "{what}: {count} of {room}; a configuration with more than that is refused until \
             `forwarder unload` and a new start make room, which ends open flows"
        )
    }
}

/// What the maps should hold, by number.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `SETTINGS`; the secret stays what it is in the map, and whether there is a predecessor is entered when it is written.
    pub settings: abi::Settings,
    /// `NODES` and `NODE_INDEX`.
    pub nodes: Vec<(u16, abi::Node)>,
    /// `PATHS`.
    pub paths: Vec<(u16, abi::Path)>,
    /// `POOLS` and `MAGLEV`.
    pub pools: Vec<(u16, PoolPlan)>,
    /// `NAMES` and `WILDCARDS`, a table for each listener.
    pub tables: Vec<NameTable>,
    /// `VIPS` and `VIP_INDEX`; the table is entered when it is written. Those that are closed are among them.
    pub vips: Vec<(u16, abi::Vip)>,
    /// `SOURCE_RULES`.
    pub source_rules: SourceRules,
    /// `PUBLIC_LINKS`.
    pub public_links: BTreeMap<u32, abi::PublicLink>,
}

/// A pool; where its table stands is decided when it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    /// The value, `maglev` left 0.
    pub value: abi::Pool,
    /// Its table.
    pub table: Box<abi::MaglevTable>,
}

/// The names of one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct NameTable {
    /// Listener number.
    pub listener: u16,
    /// The names by route.
    pub parts: Vec<Part>,
}

/// The names of one route, and where they lead on one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// First path.
    pub base: u16,
    /// Pool number.
    pub pool: u16,
    /// Whose names.
    pub route: Arc<Route>,
}

impl NameTable {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.route.names.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Node addresses that a survey has to ask routes for: configured ones and those that linger.
pub fn destinations(config: &Config, registry: &Registry) -> Vec<IpAddr> {
    let configured = crate::config::surroundings::destinations(config);
    let known = registry.nodes.iter().map(|(_, address)| address.ip());
    let mut all: Vec<_> = configured.chain(known).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The plan for a configuration, and the numbers with it, if it fits maps of these sizes. What a reload accepts and
/// what a start accepts is decided here and nowhere else.
pub fn fit(
    config: &Config,
    network: &Network,
    registry: &Registry,
    sizes: &Sizes,
    weights: &Weights,
) -> Result<(Plan, Registry), PlanError> {
    // A plan that does not fit leaves no trace in the numbers.
    let mut registry = registry.clone();
    let plan = plan(config, network, &mut registry, sizes, weights)?;
    for own in occupancy(&plan, &registry, sizes) {
        room(own.what, own.count, own.room)?;
    }
    Ok((plan, registry))
}

/// How full maps of these sizes are with a plan, lingering numbers included.
pub fn occupancy(plan: &Plan, registry: &Registry, sizes: &Sizes) -> [Occupancy; 6] {
    let names: usize = plan.tables.iter().map(NameTable::len).sum();
    [
        (NODES, registry.nodes.end(), sizes.nodes),
        (POOLS, registry.pools.end(), sizes.pools),
        (LISTENERS, registry.listeners.end(), sizes.listeners),
        (PATHS, registry.paths_end(), sizes.paths),
        (VIPS, registry.vips.end(), sizes.vips),
        (NAMES, 2 * names, sizes.names),
    ]
    .map(|(what, count, room)| Occupancy { what, count, room })
}

const NODES: &str = "nodes";
const POOLS: &str = "pools";
const LISTENERS: &str = "listeners";
const PATHS: &str = "paths (listeners × routes × nodes)";
const VIPS: &str = "claimed addresses";
const NAMES: &str = "listed names (on each listener, old and new ones)";

/// Plans the maps. Numbers are taken from `registry`, new ones are entered there.
pub fn plan(
    config: &Config,
    network: &Network,
    registry: &mut Registry,
    sizes: &Sizes,
    weights: &Weights,
) -> Result<Plan, PlanError> {
    registry.begin();
    let nodes = number_nodes(config, registry);
    room(NODES, registry.nodes.end(), sizes.nodes)?;
    let pools = pools(config, registry, weights);
    room(POOLS, registry.pools.end(), sizes.pools)?;
    let listeners: Vec<u16> = config
        .listeners
        .iter()
        .map(|listener| narrow(registry.listeners.number(listener.name.get_ref())))
        .collect();
    room(LISTENERS, registry.listeners.end(), sizes.listeners)?;
    let tables = tables(config, registry, &listeners, &pools, &nodes, sizes)?;
    let mut node_values = node_values(config, network, registry);
    let mut vips = vips(config, network, registry, &listeners, &node_values);
    room(VIPS, registry.vips.end(), sizes.vips)?;
    homes(config, &listeners, &vips, &nodes, &mut node_values);
    vips.extend(closed_vips(registry));
    Ok(Plan {
        settings: settings(config, sizes),
        source_rules: source_rules(config, network, &vips, &node_values),
        public_links: public_links(config, network),
        nodes: node_values,
        paths: paths(registry),
        pools: pools
            .into_iter()
            .map(|(number, pool)| (number, pool.1))
            .collect(),
        tables,
        vips,
    })
}

fn public_links(config: &Config, network: &Network) -> BTreeMap<u32, abi::PublicLink> {
    let names = config.entrance.public.iter();
    let links = names.filter_map(|name| network.link(name.get_ref()));
    let value = |mac: Option<[u8; 6]>| abi::PublicLink {
        mac: mac.unwrap_or_default(),
        pad: 0,
    };
    links.map(|link| (link.ifindex, value(link.mac))).collect()
}

/// Whether so many fit.
pub fn room(what: &'static str, count: usize, room: u32) -> Result<(), PlanError> {
    if count <= room as usize {
        return Ok(());
    }
    Err(PlanError { what, count, room })
}

/// Numbers are bounded by the sizes of the maps, which are checked right after numbering.
fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn settings(config: &Config, sizes: &Sizes) -> abi::Settings {
    // A second's worth of resets may come at once.
    let rate = config.entrance.rst_rate;
    let resets = Limit::per_second(rate, rate);
    abi::Settings {
        name_secret: [0; 2],
        reset_interval_ns: resets.interval_ns,
        reset_fill_ns: resets.fill_ns,
        syn_interval_us: SYN_INTERVAL_US,
        syns_per_node: SYNS_PER_NODE,
        hello_steal_ms: HELLO_STEAL_MS,
        hello_timeout_ms: config.entrance.hello_timeout.as_millis() as u32,
        events: abi::events::FLOWS | abi::events::REFUSALS,
        hellos: sizes.hellos,
        flows: sizes.flows,
        flows_per_source: config.entrance.max_flows_per_source,
        first_port: sizes.first_port,
        predecessor: 0,
    }
}

fn number_nodes(config: &Config, registry: &mut Registry) -> HashMap<SocketAddr, u16> {
    let mut numbers = HashMap::new();
    for node in config.pools.iter().flat_map(|pool| &pool.nodes) {
        let address = *node.address.get_ref();
        let number = narrow(registry.nodes.number(&address));
        registry.node_names.insert(number, node.name.clone());
        numbers.insert(address, number);
    }
    numbers
}

/// Number and value of each pool, in the order of the configuration.
pub fn pools<'a>(
    config: &'a Config,
    registry: &mut Registry,
    weights: &Weights,
) -> Vec<(u16, (&'a Pool, PoolPlan))> {
    let numbered = config.pools.iter().map(|pool| {
        let key = PoolKey {
            name: pool.name.get_ref().clone(),
            client_address: pool.client_address,
            nodes: pool
                .nodes
                .iter()
                .map(|node| *node.address.get_ref())
                .collect(),
        };
        let number = narrow(registry.pools.number(&key));
        (number, (pool, pool_plan(pool, weights)))
    });
    numbered.collect()
}

fn pool_plan(pool: &Pool, weights: &Weights) -> PoolPlan {
    let table = Box::new(abi::MaglevTable {
        v4: shares(pool, weights, SocketAddr::is_ipv4),
        v6: shares(pool, weights, SocketAddr::is_ipv6),
    });
    PoolPlan {
        value: abi::Pool {
            maglev: 0,
            nodes: narrow(pool.nodes.len()),
            client_address: pool.client_address.number(),
            balance: match pool.balance {
                Balance::Source => abi::balance::SOURCE,
                Balance::Random => abi::balance::RANDOM,
            },
            refuse_until_ns: 0,
        },
        table,
    }
}

/// One half of a pool's table: a client meets nodes of its own family only, and weights count among those.
fn shares(pool: &Pool, weights: &Weights, of_family: fn(&SocketAddr) -> bool) -> [u16; 1024] {
    let mut candidates: Vec<_> = (0_u16..)
        .zip(&pool.nodes)
        .filter(|(_, node)| of_family(node.address.get_ref()))
        .map(|(ordinal, node)| {
            let name = node.address.get_ref().to_string();
            maglev::Candidate::new(ordinal, name.as_bytes(), weights.of(pool, node))
        })
        .collect();
    let mut ordinals = [0; 1024];
    let mut table = [0; maglev::TABLE_SIZE];
    maglev::build(&mut candidates, &mut table);
    ordinals[..maglev::TABLE_SIZE].copy_from_slice(&table);
    ordinals
}

/// The names of each listener, and with them the blocks of paths.
fn tables(
    config: &Config,
    registry: &mut Registry,
    listeners: &[u16],
    pools: &[(u16, (&Pool, PoolPlan))],
    nodes: &HashMap<SocketAddr, u16>,
    sizes: &Sizes,
) -> Result<Vec<NameTable>, PlanError> {
    let mut tables = Vec::new();
    for (at, number) in listeners.iter().enumerate() {
        let mut parts = Vec::new();
        for route in config
            .routes
            .iter()
            .filter(|route| route.listeners.contains(&at))
        {
            let route_number = narrow(registry.routes.number(&route_key(config, route)));
            let (pool_number, (pool, _)) = &pools[route.pool];
            let pool_nodes: Vec<u16> = pool
                .nodes
                .iter()
                .map(|node| nodes[node.address.get_ref()])
                .collect();
            let base = registry.block(*number, route_number, *pool_number, &pool_nodes);
            let end = registry.paths_end();
            let base = base
                .filter(|_| end <= sizes.paths as usize)
                .ok_or(PlanError {
                    what: PATHS,
                    count: end,
                    room: sizes.paths,
                })?;
            parts.push(Part {
                base,
                pool: *pool_number,
                route: Arc::clone(route),
            });
        }
        tables.push(NameTable {
            listener: *number,
            parts,
        });
    }
    Ok(tables)
}

fn route_key(config: &Config, route: &Route) -> RouteKey {
    let listeners = route.listeners.iter().map(|at| &config.listeners[*at]);
    RouteKey {
        first_name: route
            .names
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        pool: config.pools[route.pool].name.get_ref().clone(),
        listeners: listeners
            .map(|listener| listener.name.get_ref().clone())
            .collect(),
    }
}

fn paths(registry: &Registry) -> Vec<(u16, abi::Path)> {
    let mut paths = Vec::new();
    for block in &registry.blocks {
        // A block is made with its pool, and keeps its number.
        let Some(pool) = registry.pools.key(usize::from(block.pool)) else {
            continue;
        };
        let client_address = pool.client_address.number();
        for (path, node) in (block.base..).zip(&block.nodes) {
            let value = abi::Path {
                listener: block.listener,
                route: block.route,
                pool: block.pool,
                node: *node,
                client_address,
                pad: [0; 7],
            };
            paths.push((path, value));
        }
    }
    paths
}

fn node_values(config: &Config, network: &Network, registry: &Registry) -> Vec<(u16, abi::Node)> {
    let public = config.entrance.public.iter();
    let widest = public
        .filter_map(|name| network.link(name.get_ref()))
        .map(|link| link.mtu)
        .min()
        .unwrap_or(u32::MAX);
    let nodes = registry.nodes.iter();
    let value = |address: SocketAddr| abi::Node {
        closed: u8::from(is_closed(config, address)),
        transparent: u8::from(sees_clients(registry, address)),
        ..node_value(address, config, widest, network)
    };
    nodes
        .map(|(number, address)| (narrow(number), value(*address)))
        .collect()
}

/// Whether the operator lets a node take no new flows.
fn is_closed(config: &Config, address: SocketAddr) -> bool {
    let mut nodes = config.pools.iter().flat_map(|pool| &pool.nodes);
    nodes.any(|node| *node.address.get_ref() == address && node.state != NodeState::Ready)
}

/// Whether there is a route, or there are flows of a former one, whose pool shows this node the addresses of clients.
fn sees_clients(registry: &Registry, address: SocketAddr) -> bool {
    let mut nodes = registry.nodes.iter();
    let number = nodes.find(|(_, own)| **own == address);
    number.is_some_and(|(number, _)| {
        registry.blocks.iter().any(|block| {
            let pool = registry.pools.key(usize::from(block.pool));
            block.nodes.contains(&narrow(number))
                && pool.is_some_and(|pool| pool.client_address == ClientAddress::Transparent)
        })
    })
}

/// How a node is reached, if it is by one of the tunnels.
pub fn way<'a>(
    ip: IpAddr,
    config: &Config,
    network: &'a Network,
) -> Option<(&'a Egress, &'a Link)> {
    let egress = network.egress.get(&ip).filter(|egress| !egress.local)?;
    let link = network.link_by_index(egress.ifindex)?;
    let mut tunnels = config.entrance.tunnels.iter();
    let usable = link.up
        && link.kind != LinkKind::Unsupported
        && tunnels.any(|name| *name.get_ref() == link.name);
    usable.then_some((egress, link))
}

/// A node without a tunnel gets interface 0: packets to it are dropped rather than sent in the clear by
/// the public interface. Segments of `widest`, the smallest MTU of the public interfaces, must fit both
/// ways: there is no router between the two that could tell an end.
fn node_value(node: SocketAddr, config: &Config, widest: u32, network: &Network) -> abi::Node {
    let ip = node.ip();
    let mut value = abi::Node {
        address: address(ip),
        local: [0; 4],
        port_be: node.port().to_be(),
        mss: mss(LEAST_MTU, ip),
        ifindex: 0,
        link: abi::link::L3,
        closed: 0,
        first: 0,
        transparent: 0,
        mtu: LEAST_MTU,
        homes: [abi::NO_HOME; abi::HOMES],
    };
    if let Some((egress, link)) = way(ip, config, network) {
        let mtu = egress.mtu.map_or(link.mtu, |route| route.min(link.mtu));
        let source = egress
            .source
            .filter(|source| source.is_ipv4() == ip.is_ipv4());
        value.local = source.map_or([0; 4], address);
        value.mss = mss(mtu.min(widest), ip);
        value.ifindex = link.ifindex;
        value.mtu = mtu;
        value.link = match link.kind {
            LinkKind::L2 => abi::link::L2,
            LinkKind::L3 | LinkKind::Unsupported => abi::link::L3,
        };
    }
    value
}

fn vips(
    config: &Config,
    network: &Network,
    registry: &mut Registry,
    listeners: &[u16],
    nodes: &[(u16, abi::Node)],
) -> Vec<(u16, abi::Vip)> {
    let public = || {
        config
            .entrance
            .public
            .iter()
            .map(|name| name.get_ref().as_str())
    };
    let mut vips = Vec::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        for ip in claim::claimed(config, network, at) {
            let number = narrow(registry.vips.number(&(ip, listener.port)));
            let owner = public()
                .filter_map(|name| network.link(name))
                .find(|link| link.addresses.contains(&ip));
            let value = abi::Vip {
                address: address(ip),
                port_be: listener.port.to_be(),
                listener: listeners[at],
                table: 0,
                on_refuse: on_refuse(listener),
                closed: 0,
                mss: advertised_mss(config, network, at, ip, registry, nodes),
                pad2: [0; 3],
                ifindex: owner.map_or(0, |link| link.ifindex),
                pad3: 0,
            };
            vips.push((number, value));
        }
    }
    vips
}

/// What is no longer claimed and still numbered: flows may use it. Whose it was is known to the map.
fn closed_vips(registry: &Registry) -> impl Iterator<Item = (u16, abi::Vip)> {
    let gone = registry.vips.iter();
    let gone = gone.filter(|(number, _)| !registry.vips.is_live(*number));
    gone.map(|(number, (ip, port))| {
        let value = abi::Vip {
            address: address(*ip),
            port_be: port.to_be(),
            listener: NO_LISTENER,
            table: 0,
            on_refuse: abi::on_refuse::RESET,
            closed: 1,
            mss: mss(LEAST_MTU, *ip),
            pad2: [0; 3],
            ifindex: 0,
            pad3: 0,
        };
        (narrow(number), value)
    })
}

/// The homes of each node: the claimed addresses of its family that lead there transparently, as many as fit.
fn homes(
    config: &Config,
    listeners: &[u16],
    vips: &[(u16, abi::Vip)],
    numbers: &HashMap<SocketAddr, u16>,
    nodes: &mut [(u16, abi::Node)],
) {
    let mut led: BTreeSet<(u16, u16)> = BTreeSet::new();
    for route in &config.routes {
        let pool = &config.pools[route.pool];
        if pool.client_address != ClientAddress::Transparent {
            continue;
        }
        for node in &pool.nodes {
            let number = numbers[node.address.get_ref()];
            led.extend(route.listeners.iter().map(|at| (listeners[*at], number)));
        }
    }
    for (number, node) in nodes {
        let is_home = |(_, vip): &&(u16, abi::Vip)| {
            abi::is_v4(&vip.address) == abi::is_v4(&node.address)
                && led.contains(&(vip.listener, *number))
        };
        for (home, (vip, _)) in node.homes.iter_mut().zip(vips.iter().filter(is_home)) {
            *home = *vip;
        }
    }
}

fn on_refuse(listener: &Listener) -> u8 {
    match listener.on_refuse {
        OnRefuse::Alert => abi::on_refuse::ALERT,
        OnRefuse::Reset => abi::on_refuse::RESET,
        OnRefuse::Drop => abi::on_refuse::DROP,
    }
}

/// The smallest segment size behind a listener in one family; the node is not known at SYN time. While
/// no node has a tunnel, that of the smallest configured tunnel, or what every link carries.
fn advertised_mss(
    config: &Config,
    network: &Network,
    listener: usize,
    ip: IpAddr,
    registry: &Registry,
    nodes: &[(u16, abi::Node)],
) -> u16 {
    let routes = config
        .routes
        .iter()
        .filter(|route| route.listeners.contains(&listener));
    let pools: BTreeSet<usize> = routes.map(|route| route.pool).collect();
    let behind = pools.into_iter().flat_map(|pool| &config.pools[pool].nodes);
    let same_family = behind.filter(|node| node.address.get_ref().is_ipv4() == ip.is_ipv4());
    let sizes = same_family.filter_map(|node| {
        let wanted = address(node.address.get_ref().ip());
        let port_be = node.address.get_ref().port().to_be();
        let known = nodes.iter().find(|(number, value)| {
            registry.nodes.is_live(usize::from(*number))
                && value.address == wanted
                && value.port_be == port_be
        });
        known
            .filter(|(_, value)| value.ifindex != 0)
            .map(|(_, value)| value.mss)
    });
    let tunnels = || {
        let names = config.entrance.tunnels.iter();
        let links = names.filter_map(|name| network.link(name.get_ref()));
        links.map(|link| mss(link.mtu, ip)).min()
    };
    sizes
        .min()
        .or_else(tunnels)
        .unwrap_or_else(|| mss(LEAST_MTU, ip))
}

#[cfg(test)]
mod growth;
#[cfg(test)]
mod tests;
