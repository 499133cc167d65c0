//! How many flows of each path the sweeper ended.
//!
//! The programs count the flows that they end. Their counters are per processor and cannot be added to from
//! here, so the sweeper has its own map, pinned beside the others; no program reads it.

use aya::maps::{Array, Map, MapData};

use super::sweep::Expiry;
use crate::dataplane::bpf::maps::{MapsError, OfMap, found};
use crate::dataplane::bpf::pins::{EXPIRED, Pins};

/// Flows of one path that the sweeper ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// No node had accepted them.
    pub unanswered: u64,
    /// A node had.
    pub silent: u64,
}

/// The counters.
pub struct Expired {
    by_path: Array<MapData, [u64; 2]>,
}

impl Expired {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self, MapsError> {
        let path = pins.map(EXPIRED);
        let data = MapData::from_pin(&path);
        let by_path = data.and_then(Map::from_map_data).and_then(Array::try_from);
        let by_path = by_path.map_err(|source| MapsError::Open { path, source })?;
        Ok(Self { by_path })
    }

    /// Opens the pinned map, or makes it with room for so many paths.
    pub fn open_or_make(pins: &Pins, paths: u32) -> Result<Self, MapsError> {
        let path = pins.map(EXPIRED);
        if !path.exists() {
            let new: Array<_, [u64; 2]> = Array::create(paths, 0).writing(EXPIRED)?;
            new.pin(&path)
                .map_err(|source| MapsError::Pin { path, source })?;
        }
        Self::open(pins)
    }

    /// Counts a flow.
    pub fn count(&mut self, path: u16, why: Expiry) -> Result<(), MapsError> {
        let mut counts = self.of(path)?;
        match why {
            Expiry::Unanswered => counts.unanswered += 1,
            _ => counts.silent += 1,
        }
        let value = [counts.unanswered, counts.silent];
        self.by_path.set(u32::from(path), value, 0).writing(EXPIRED)
    }

    /// The counts of one path.
    pub fn of(&self, path: u16) -> Result<Counts, MapsError> {
        let value = found(self.by_path.get(&u32::from(path), 0)).reading(EXPIRED)?;
        let [unanswered, silent] = value.unwrap_or_default();
        Ok(Counts { unanswered, silent })
    }
}
