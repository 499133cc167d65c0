//! Names of tables that no listener uses any more, removed on a thread of their own: there may be a million, and
//! nobody waits for it.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, warn};

use super::listed::Listing;
use super::maps::NameMaps;
use crate::dataplane::bpf::maps::MapsError;
use crate::dataplane::bpf::pins::Pins;

/// A packet that came before claimed addresses changed over still looks names up in the former table. It is done
/// within microseconds.
const GRACE: Duration = Duration::from_millis(100);

/// A table that is to go.
#[derive(Debug)]
pub struct Retired {
    /// Its id.
    pub id: u16,
    /// What it holds, if that is known; otherwise all names are looked through.
    pub listings: Option<Vec<Listing>>,
}

/// What goes at the moment.
#[derive(Debug, Default)]
pub struct Retiring {
    thread: Option<JoinHandle<Result<BTreeSet<u16>, MapsError>>>,
}

impl Retiring {
    /// Lets tables go; call [`Self::finished`] or [`Self::wait`] before.
    pub fn begin(&mut self, pins: &Pins, tables: Vec<Retired>) {
        let pins = pins.clone();
        let remove = move || {
            std::thread::sleep(GRACE);
            remove(&NameMaps::open(&pins)?, &tables)
        };
        let named = std::thread::Builder::new().name(String::from("names"));
        match named.spawn(remove) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => warn!(%error, "former names are removed later"),
        }
    }

    /// Ids that are free again, if the thread has ended.
    pub fn finished(&mut self) -> BTreeSet<u16> {
        let is_done = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if is_done {
            self.wait()
        } else {
            BTreeSet::new()
        }
    }

    /// Whether some are going.
    pub fn is_under_way(&self) -> bool {
        self.thread.is_some()
    }

    /// Waits until they are gone. Returns the ids that are free again.
    pub fn wait(&mut self) -> BTreeSet<u16> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(ids))) => {
                debug!(?ids, "former names removed");
                ids
            }
            Some(Ok(Err(error))) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "former names stay"
                );
                BTreeSet::new()
            }
            Some(Err(_)) | None => BTreeSet::new(),
        }
    }
}

/// Removes the names of tables. Returns their ids.
pub fn remove(names: &NameMaps, tables: &[Retired]) -> Result<BTreeSet<u16>, MapsError> {
    for table in tables {
        if let Some(listings) = &table.listings {
            names.remove_table(table.id, listings)?;
        }
    }
    let unknown = tables.iter().filter(|table| table.listings.is_none());
    let unknown: BTreeSet<u16> = unknown.map(|table| table.id).collect();
    if !unknown.is_empty() {
        names.remove_unknown(&unknown)?;
    }
    Ok(tables.iter().map(|table| table.id).collect())
}
