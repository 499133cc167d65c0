//! The pinned maps, each with its types. Opened by path, so that the daemon, `status` and tests all see
//! what the programs see.

use std::io;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, Queue, RingBuf};
use aya::pin::PinError;
use forwarder_common::abi::{
    ClosedSet, Flow, FlowKey, Hello, ListenerStats, Node, NodeStats, PathStats, ReverseKey,
    Settings, Vip, map,
};
use thiserror::Error;

use super::pins::Pins;
use super::source_flows::SourceFlows;

/// Why a map cannot be used.
#[derive(Debug, Error)]
pub enum MapsError {
    /// It cannot be opened.
    #[error("cannot open the map {}", path.display())]
    Open {
        /// Its pin.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
    /// It cannot be pinned.
    #[error("cannot pin the map {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: PinError,
    },
    /// It cannot be mapped into memory.
    #[error("cannot map {name} into memory")]
    Mapped {
        /// The map.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read the map {name}")]
    Read {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// It holds what no version writes.
    #[error("the map {name} holds {value} where no version of forwarder writes that")]
    Value {
        /// The map.
        name: &'static str,
        /// The number.
        value: u8,
    },
    /// It cannot be written.
    #[error("cannot write the map {name}")]
    Write {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
}

/// Says which map an error of aya's belongs to.
pub(crate) trait OfMap<T> {
    /// While reading `name`.
    fn reading(self, name: &'static str) -> Result<T, MapsError>;
    /// While writing `name`.
    fn writing(self, name: &'static str) -> Result<T, MapsError>;
}

impl<T> OfMap<T> for Result<T, MapError> {
    fn reading(self, name: &'static str) -> Result<T, MapsError> {
        self.map_err(|source| MapsError::Read { name, source })
    }

    fn writing(self, name: &'static str) -> Result<T, MapsError> {
        self.map_err(|source| MapsError::Write { name, source })
    }
}

/// `None` where there is no such key; aya says so in more than one way.
pub(crate) fn found<T>(answer: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The maps that the programs write and the sweeper tidies.
pub struct FlowMaps {
    /// Flows as clients see them.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// Which claimed address transparent flows belong to that are not at their node's home.
    pub reverse: HashMap<MapData, ReverseKey, u32>,
    /// How many flows each source has.
    pub source_flows: SourceFlows,
    /// Hello buffers.
    pub hellos: Array<MapData, Hello>,
    /// Which connection uses which.
    pub hello_index: HashMap<MapData, FlowKey, u32>,
    /// Those that nobody uses.
    pub hello_free: Queue<MapData, u32>,
    /// Connections whose hello lost its buffer.
    pub hello_lost: HashMap<MapData, FlowKey, u32>,
    /// Source ports that nobody uses.
    pub source_ports: Queue<MapData, u32>,
    /// Nodes.
    pub nodes: Array<MapData, Node>,
    /// What is claimed.
    pub vips: Array<MapData, Vip>,
    /// Connections that have ended.
    pub closed: Array<MapData, ClosedSet>,
    /// Knobs, and the secret.
    pub settings: Array<MapData, Settings>,
}

/// The maps of counters.
pub struct CounterMaps {
    /// By reason.
    pub drops: PerCpuArray<MapData, u64>,
    /// By path.
    pub paths: PerCpuArray<MapData, PathStats>,
    /// By node.
    pub nodes: PerCpuArray<MapData, NodeStats>,
    /// By listener.
    pub listeners: PerCpuArray<MapData, ListenerStats>,
    /// By slot of `abi::tally`.
    pub tallies: PerCpuArray<MapData, u64>,
}

impl FlowMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, MapsError> {
        Ok(Self {
            flows: open(pins, map::FLOWS)?,
            reverse: open(pins, map::REVERSE)?,
            source_flows: open_source_flows(pins)?,
            hellos: open(pins, map::HELLOS)?,
            hello_index: open(pins, map::HELLO_INDEX)?,
            hello_free: open(pins, map::HELLO_FREE)?,
            hello_lost: open(pins, map::HELLO_LOST)?,
            source_ports: open(pins, map::SOURCE_PORTS)?,
            nodes: open(pins, map::NODES)?,
            vips: open(pins, map::VIPS)?,
            closed: open(pins, map::CLOSED)?,
            settings: open(pins, map::SETTINGS)?,
        })
    }
}

impl CounterMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, MapsError> {
        Ok(Self {
            drops: open(pins, map::DROPS)?,
            paths: open(pins, map::PATH_STATS)?,
            nodes: open(pins, map::NODE_STATS)?,
            listeners: open(pins, map::LISTENER_STATS)?,
            tallies: open(pins, map::TALLIES)?,
        })
    }
}

/// Maps the counts of flows by source into memory.
pub fn open_source_flows(pins: &Pins) -> Result<SourceFlows, MapsError> {
    let settings: Array<_, Settings> = open(pins, map::SETTINGS)?;
    let secret = settings.get(&0, 0).reading(map::SETTINGS)?.name_secret;
    let path = pins.map(map::SOURCE_FLOWS);
    let data = MapData::from_pin(&path).map_err(|source| MapsError::Open { path, source })?;
    SourceFlows::over(&data, secret).map_err(|source| MapsError::Mapped {
        name: map::SOURCE_FLOWS,
        source,
    })
}

/// Opens the ring of events.
pub fn open_events(pins: &Pins) -> Result<RingBuf<MapData>, MapsError> {
    open(pins, map::EVENTS)
}

/// Opens a pinned map as the type that it is used by.
pub fn open<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &str) -> Result<T, MapsError> {
    let path = pins.map(name);
    let data = MapData::from_pin(&path);
    let typed = data.and_then(Map::from_map_data).and_then(T::try_from);
    typed.map_err(|source| MapsError::Open { path, source })
}
