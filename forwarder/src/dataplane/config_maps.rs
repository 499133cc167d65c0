//! The maps that hold the configuration: written by the daemon, read by the programs.

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, MapData};
use forwarder_common::abi::{
    Address, Endpoint, MaglevTable, Node, Path, Pool, PublicLink, Settings, SourceRule, Vip, map,
};

use super::bpf::maps::{MapsError, open};
use super::bpf::pins::Pins;
use super::names::maps::NameMaps;

/// All of them.
pub struct ConfigMaps {
    /// Claimed addresses and ports.
    pub vip_index: HashMap<MapData, Endpoint, u32>,
    /// The same by slot.
    pub vip_slots: Array<MapData, u32>,
    /// What is claimed.
    pub vips: Array<MapData, Vip>,
    /// Listed names.
    pub names: NameMaps,
    /// Pools.
    pub pools: Array<MapData, Pool>,
    /// Their tables.
    pub maglev: Array<MapData, MaglevTable>,
    /// Listener, route and node.
    pub paths: Array<MapData, Path>,
    /// Node addresses and ports.
    pub node_index: HashMap<MapData, Endpoint, u32>,
    /// The same by slot.
    pub node_slots: Array<MapData, u32>,
    /// Nodes.
    pub nodes: Array<MapData, Node>,
    /// Knobs.
    pub settings: Array<MapData, Settings>,
    /// Cookie keys.
    pub cookie_keys: Array<MapData, [u64; 2]>,
    /// What holds for connections from an address.
    pub source_rules: LpmTrie<MapData, Address, SourceRule>,
    /// The public interfaces.
    pub public_links: HashMap<MapData, u32, PublicLink>,
}

impl ConfigMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, MapsError> {
        Ok(Self {
            vip_index: open(pins, map::VIP_INDEX)?,
            vip_slots: open(pins, map::VIP_SLOTS)?,
            vips: open(pins, map::VIPS)?,
            names: NameMaps::open(pins)?,
            pools: open(pins, map::POOLS)?,
            maglev: open(pins, map::MAGLEV)?,
            paths: open(pins, map::PATHS)?,
            node_index: open(pins, map::NODE_INDEX)?,
            node_slots: open(pins, map::NODE_SLOTS)?,
            nodes: open(pins, map::NODES)?,
            settings: open(pins, map::SETTINGS)?,
            cookie_keys: open(pins, map::COOKIE_KEYS)?,
            source_rules: open(pins, map::SOURCE_RULES)?,
            public_links: open(pins, map::PUBLIC_LINKS)?,
        })
    }
}
