//! How large each map is made, and whether maps that are pinned already will do.
//!
//! Sizes the user chose must be met exactly; the others only have to be large enough, so that a new
//! start with a somewhat larger configuration needs no new maps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aya::maps::MapInfo;
use aya_obj::Object;
use forwarder_common::abi::{Settings, map};
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
    /// A pinned map has another size.
    #[error(
        "the pinned map {name} has {found} entries where the configuration needs {needed}{hint}; \
         `forwarder unload` makes room, and ends open flows"
    )]
    Size {
        /// The map.
        name: &'static str,
        /// Entries it has.
        found: u32,
        /// Entries it should have.
        needed: u32,
        /// The key to set back, if there is one.
        hint: &'static str,
    },
    /// The source ports in the pinned queue are others, though as many.
    #[error(
        "the pinned maps hold the source ports from {found} on where the configuration has those from {needed} on \
         (`source_ports`); `forwarder unload` makes room, and ends open flows"
    )]
    Ports {
        /// The first one there.
        found: u32,
        /// The first one wanted.
        needed: u32,
    },
}

/// Entries of each map.
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
}

/// Maps whose size the user chose, and the key.
const CHOSEN: &[(&str, &str)] = &[
    (map::FLOWS, "max_flows"),
    (map::HELLOS, "hello_buffers"),
    (map::HELLO_INDEX, "hello_buffers"),
    (map::HELLO_FREE, "hello_buffers"),
    (map::SOURCE_PORTS, "source_ports"),
    (map::PORT_FLOWS, "source_ports"),
];

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

    /// Takes the sizes of maps that are pinned already, if they will do.
    pub fn adopt(mut self, pins: &Pins, object: &[u8]) -> Result<Self, SizesError> {
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
        for (name, needed) in self.by_map() {
            if let Some(found) = found.get(name) {
                will_do(name, *found, needed)?;
            }
        }
        let take = |name: &str, own: &mut u32| *own = found.get(name).copied().unwrap_or(*own);
        take(map::VIPS, &mut self.vips);
        take(map::NAMES, &mut self.names);
        take(map::POOLS, &mut self.pools);
        take(map::PATHS, &mut self.paths);
        take(map::NODES, &mut self.nodes);
        take(map::LISTENER_STATS, &mut self.listeners);
        Ok(self)
    }
}

/// Whether the source ports that were given out begin where the configuration's do.
pub fn same_ports(pinned: &Settings, config: &Config) -> Result<(), SizesError> {
    let needed = first_port(config);
    match pinned.first_port {
        // A start that was interrupted before it wrote them.
        0 => Ok(()),
        found if found == needed => Ok(()),
        found => Err(SizesError::Ports { found, needed }),
    }
}

/// The first source port towards nodes.
pub fn first_port(config: &Config) -> u32 {
    u32::from(*config.entrance.source_ports.get_ref().start())
}

fn will_do(name: &'static str, found: u32, needed: u32) -> Result<(), SizesError> {
    let chosen = CHOSEN.iter().find(|(map, _)| *map == name);
    let fits = match chosen {
        Some(_) => found == needed,
        None => found >= needed,
    };
    if fits {
        return Ok(());
    }
    let hint = match chosen {
        Some((_, "max_flows")) => " (`max_flows`)",
        Some((_, "hello_buffers")) => " (`hello_buffers`)",
        Some(_) => " (`source_ports`)",
        None => "",
    };
    Err(SizesError::Size {
        name,
        found,
        needed,
        hint,
    })
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
        let text = include_str!("../../tests/check/fine.toml");
        let config = crate::config::parse(Path::new("fine.toml"), text)
            .config
            .unwrap();
        let sizes = Sizes::of(&config);
        assert_eq!((sizes.flows, sizes.hellos, sizes.vips), (65_536, 256, 256));
        assert_eq!(sizes.source_ports, 32_767 - 1_024 + 1);
    }

    #[test]
    fn what_was_chosen_must_be_met_and_the_rest_be_large_enough() {
        assert!(will_do(map::NODES, 1_024, 64).is_ok());
        assert!(will_do(map::NODES, 64, 1_024).is_err());
        let error = will_do(map::FLOWS, 65_536, 1_024).unwrap_err().to_string();
        assert!(
            error.contains("max_flows") && error.contains("unload"),
            "{error}"
        );
    }

    #[test]
    fn room_is_doubled() {
        assert_eq!(roomy(3, 256), 256);
        assert_eq!(roomy(200_000, 256), 1 << 19);
    }
}
