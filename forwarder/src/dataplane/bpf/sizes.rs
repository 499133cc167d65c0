//! How large each map is made.
//!
//! Maps that are pinned already keep their sizes: flows live in them. So a start takes what it finds, says what the
//! configuration asks for in vain, and refuses only what a reload would refuse: more than the maps have room for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use aya::maps::MapInfo;
use aya_obj::Object;
use forwarder_common::abi::map;
use thiserror::Error;

use super::pins::Pins;
use crate::config::Config;

/// Why pinned maps cannot be adopted.
#[derive(Debug, Error)]
pub enum SizesError {
    /// The kernel programs do not parse.
    #[error("the embedded kernel programs are damaged")]
    Object(#[source] Box<aya_obj::ParseError>),
    /// The kernel does not describe a pinned map.
    #[error("cannot inspect {}", path.display())]
    Inspect {
        /// Its pin.
        path: PathBuf,
        /// Why.
        source: aya::maps::MapError,
    },
    /// A pinned map has another layout although its version is the same.
    #[error("{} has another layout; `forwarder unload` removes it and ends open flows", path.display())]
    Layout {
        /// Its pin.
        path: PathBuf,
    },
}

/// Entries of each map, and what else stays as it is while maps are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Claimed addresses and ports.
    pub vips: u32,
    /// Listed names, all tables and both generations.
    pub names: u32,
    /// Pools; there are two tables for each.
    pub pools: u32,
    /// Listener, route and node.
    pub paths: u32,
    /// Nodes.
    pub nodes: u32,
    /// Listeners.
    pub listeners: u32,
    /// Flows.
    pub flows: u32,
    /// Hello buffers.
    pub hellos: u32,
    /// Source ports.
    pub source_ports: u32,
    /// The first of them.
    pub first_port: u32,
}

impl Sizes {
    /// Room for `config` twice over, so that it may be edited while flows still use what it was.
    pub fn of(config: &Config) -> Self {
        let nodes: usize = config.pools.iter().map(|pool| pool.nodes.len()).sum();
        let paths: usize = config
            .routes
            .iter()
            .map(|route| route.listeners.len() * config.pools[route.pool].nodes.len())
            .sum();
        let names: usize = config
            .routes
            .iter()
            .map(|route| route.listeners.len() * route.names.len())
            .sum();
        let explicit = config
            .listeners
            .iter()
            .filter_map(|listener| listener.addresses.as_ref());
        let vips: usize = explicit.map(Vec::len).sum::<usize>() + config.listeners.len() * 8;
        Self {
            vips: roomy(vips, 256),
            // A bucket of 16 bytes for each is taken at once: 1 MB for the least.
            names: roomy(names, 1 << 16),
            pools: roomy(config.pools.len(), 64).min(1 << 15),
            paths: roomy(paths, 1_024).min(u32::from(u16::MAX)),
            nodes: roomy(nodes, 256).min(u32::from(u16::MAX)),
            listeners: roomy(config.listeners.len(), 64),
            flows: config.entrance.max_flows,
            hellos: config.entrance.hello_buffers,
            source_ports: config.entrance.source_ports.get_ref().len() as u32,
            first_port: u32::from(*config.entrance.source_ports.get_ref().start()),
        }
    }

    /// Size of each map that has one of these.
    pub fn by_map(&self) -> [(&'static str, u32); 20] {
        [
            (map::VIP_INDEX, self.vips),
            (map::VIPS, self.vips),
            (map::VIP_MSS, self.vips),
            (map::NAMES, self.names),
            (map::WILDCARDS, self.names),
            (map::POOLS, self.pools),
            (map::MAGLEV, self.pools * 2),
            (map::PATHS, self.paths),
            (map::PATH_STATS, self.paths),
            (map::NODE_INDEX, self.nodes),
            (map::NODES, self.nodes),
            (map::NODE_STATS, self.nodes),
            (map::LISTENER_STATS, self.listeners),
            (map::FLOWS, self.flows),
            (map::REVERSE, (self.flows / 4).max(1_024)),
            (map::HELLOS, self.hellos),
            (map::HELLO_INDEX, self.hellos),
            (map::HELLO_FREE, self.hellos),
            (map::SOURCE_PORTS, self.source_ports),
            (map::PORT_FLOWS, self.source_ports),
        ]
    }

    /// Takes the sizes of maps that are pinned already, whatever the configuration would make anew: flows live in
    /// them. Whether the configuration fits is decided where a reload decides it, by [`crate::dataplane::plan::fit`].
    pub fn adopt(self, pins: &Pins, object: &[u8]) -> Result<Self, SizesError> {
        let object = Object::parse(object).map_err(|e| SizesError::Object(Box::new(e)))?;
        let mut found = BTreeMap::new();
        for name in pins.pinned_maps() {
            let path = pins.map(name);
            let info = MapInfo::from_pin(&path).map_err(|source| SizesError::Inspect {
                path: path.clone(),
                source,
            })?;
            let wanted = object.maps.get(name);
            let same = wanted.is_some_and(|map| {
                info.map_type()
                    .is_ok_and(|kind| kind as u32 == map.map_type())
                    && info.key_size() == map.key_size()
                    && info.value_size() == map.value_size()
            });
            if !same {
                return Err(SizesError::Layout { path });
            }
            found.insert(name, info.max_entries());
        }
        Ok(self.with(|name| found.get(name).copied()))
    }

    /// With the entries that maps are known to have.
    pub(crate) fn with(mut self, known: impl Fn(&str) -> Option<u32>) -> Self {
        let take = |name: &str, own: &mut u32| *own = known(name).unwrap_or(*own);
        take(map::VIPS, &mut self.vips);
        take(map::NAMES, &mut self.names);
        take(map::POOLS, &mut self.pools);
        take(map::PATHS, &mut self.paths);
        take(map::NODES, &mut self.nodes);
        take(map::LISTENER_STATS, &mut self.listeners);
        take(map::FLOWS, &mut self.flows);
        take(map::HELLOS, &mut self.hellos);
        take(map::SOURCE_PORTS, &mut self.source_ports);
        self
    }

    /// The source ports.
    pub fn ports(&self) -> RangeInclusive<u16> {
        let narrow = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
        let last = (self.first_port + self.source_ports).saturating_sub(1);
        narrow(self.first_port)..=narrow(last)
    }
}

/// Twice `count` as a power of two, at least `least`.
fn roomy(count: usize, least: u32) -> u32 {
    let doubled = u32::try_from(count * 2).unwrap_or(1 << 31);
    doubled.next_power_of_two().max(least)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn sizes_follow_the_configuration() {
        let text = include_str!("../../../tests/check/fine.toml");
        let config = crate::config::parse(Path::new("fine.toml"), text)
            .config
            .unwrap();
        let sizes = Sizes::of(&config);
        assert_eq!((sizes.flows, sizes.hellos, sizes.vips), (65_536, 256, 256));
        assert_eq!(sizes.source_ports, 32_767 - 1_024 + 1);
    }

    #[test]
    fn maps_that_are_there_keep_their_sizes() {
        let text = include_str!("../../../tests/check/fine.toml");
        let config = crate::config::parse(Path::new("fine.toml"), text)
            .config
            .unwrap();
        let pinned = [
            (map::FLOWS, 512),
            (map::SOURCE_PORTS, 100),
            (map::PATHS, 4_096),
        ];
        let known = |name: &str| {
            let mut pinned = pinned.iter();
            pinned.find(|(own, _)| *own == name).map(|(_, size)| *size)
        };
        let sizes = Sizes::of(&config).with(known);
        assert_eq!((sizes.flows, sizes.paths, sizes.vips), (512, 4_096, 256));
        assert_eq!(sizes.ports(), 1_024..=1_123);
    }

    #[test]
    fn room_is_doubled() {
        assert_eq!(roomy(3, 256), 256);
        assert_eq!(roomy(200_000, 256), 1 << 19);
    }
}
