//! The tree that an earlier layout has pinned, for as long as its programs run behind ours.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, Queue};
use forwarder_common::abi::map;

use super::v5;
use crate::dataplane::bpf::attach;
use crate::dataplane::bpf::maps::{MapsError, OfMap};
use crate::dataplane::bpf::pins::{self, PinsError, Side};
use crate::link::Network;

/// Layouts whose flows can be taken over.
pub const CONVERTIBLE: &[u32] = &[v5::VERSION];

/// Maps, links and tables of an earlier layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// The layout.
    pub version: u32,
    /// Its directory.
    pub path: PathBuf,
}

/// The maps that matter for taking flows over.
pub struct OldMaps {
    /// Open flows.
    pub flows: HashMap<MapData, v5::FlowKey, v5::Flow>,
    /// Connections whose hello is kept.
    pub hello_index: HashMap<MapData, v5::FlowKey, u32>,
    /// Free source ports.
    pub source_ports: Queue<MapData, u32>,
}

impl Predecessor {
    /// The one in a directory of pins, if its layout can be converted.
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let version = name.strip_prefix('v')?.parse().ok()?;
        CONVERTIBLE.contains(&version).then(|| Self {
            version,
            path: path.to_owned(),
        })
    }

    /// Opens its maps.
    pub fn maps(&self) -> Result<OldMaps, MapsError> {
        Ok(OldMaps {
            flows: self.open(map::FLOWS)?,
            hello_index: self.open(map::HELLO_INDEX)?,
            source_ports: self.open(map::SOURCE_PORTS)?,
        })
    }

    /// The first source port, and how many there are.
    pub fn ports(&self) -> Result<(u32, u32), MapsError> {
        let settings: Array<_, v5::Settings> = self.open(map::SETTINGS)?;
        let first = settings.get(&0, 0).reading(map::SETTINGS)?.first_port;
        let ports: Queue<_, u32> = self.open(map::SOURCE_PORTS)?;
        Ok((first, ports.capacity()))
    }

    /// Room of its flow table.
    pub fn max_flows(&self) -> u32 {
        pins::entries(&self.path.join(map::FLOWS))
    }

    /// Opens one of its maps.
    pub(super) fn open<T: TryFrom<Map, Error = MapError>>(
        &self,
        name: &str,
    ) -> Result<T, MapsError> {
        let path = self.path.join(name);
        let data = MapData::from_pin(&path);
        let typed = data.and_then(Map::from_map_data).and_then(T::try_from);
        typed.map_err(|source| MapsError::Open { path, source })
    }

    /// Takes its XDP programs off: they would answer before ours.
    pub fn take_xdp_off(&self) -> Result<(), PinsError> {
        for (_, pin) in pins::xdp_in(&self.path)? {
            pins::remove_file(&pin)?;
        }
        Ok(())
    }

    /// Detaches its programs, those of the public side first.
    pub fn detach(&self, network: &Network) -> Result<(), PinsError> {
        let mut links = pins::links_in(&self.path)?;
        links.sort_unstable_by_key(|(side, ..)| *side != Side::Public);
        for (_, _, pin) in links {
            pins::remove_file(&pin)?;
        }
        for link in &network.links {
            attach::detach_filter(&link.name, v5::PRIORITY);
        }
        Ok(())
    }

    /// Removes what is left of the tree.
    pub fn remove(&self) -> Result<(), PinsError> {
        fs::remove_dir_all(&self.path).map_err(pins::failed("remove", &self.path))
    }
}
