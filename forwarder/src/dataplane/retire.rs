//! Names of tables that no listener uses any more, removed on a thread of their own: there may be a million, and
//! nobody waits for it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{IterableMap, MapData};
use forwarder_common::abi::{NAME_KEY_BYTES, NameEntry, map};
use forwarder_common::name::TABLE_ID_BYTES;
use tracing::{debug, warn};

use super::batch;
use super::listed::{rows, stretches};
use super::maps::{MapsError, OfMap, found, open_names};
use super::pins::Pins;
use super::plan::Part;

/// A packet that came before claimed addresses changed over still looks names up in the former table. It is done
/// within microseconds.
const GRACE: Duration = Duration::from_millis(100);
/// Names removed with one call. Packets and the daemon's own changes come between calls.
const CHUNK: usize = 256;

/// The trie's key.
pub type NameKey = Key<[u8; NAME_KEY_BYTES]>;
type Trie = LpmTrie<MapData, [u8; NAME_KEY_BYTES], NameEntry>;

/// A table that is to go.
#[derive(Debug)]
pub struct Retired {
    /// Its id.
    pub id: u16,
    /// What it holds, if that is known; otherwise all names are looked through.
    pub parts: Option<Vec<Part>>,
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
            remove(&mut open_names(&pins)?, &tables)
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
pub fn remove(names: &mut Trie, tables: &[Retired]) -> Result<BTreeSet<u16>, MapsError> {
    let mut keys = Vec::with_capacity(CHUNK);
    for table in tables {
        let stretches = table.parts.as_deref().map(stretches).unwrap_or_default();
        for (pattern, ..) in rows(&stretches) {
            let (bits, bytes) = pattern.key(table.id);
            keys.push(Key::new(bits, bytes));
            if keys.len() == CHUNK {
                remove_keys(names, &keys)?;
                keys.clear();
                std::thread::yield_now();
            }
        }
    }
    let unknown = tables.iter().filter(|table| table.parts.is_none());
    let unknown: BTreeSet<u16> = unknown.map(|table| table.id).collect();
    if !unknown.is_empty() {
        let all = names.keys();
        let of_these = all.filter(|key| {
            let is_other = |key: &NameKey| !unknown.contains(&table_of(&key.data()));
            !key.as_ref().is_ok_and(is_other)
        });
        let found: Result<Vec<_>, _> = of_these.collect();
        keys.extend(found.reading(map::NAMES)?);
    }
    remove_keys(names, &keys)?;
    Ok(tables.iter().map(|table| table.id).collect())
}

fn remove_keys(names: &mut Trie, keys: &[NameKey]) -> Result<(), MapsError> {
    let failed = |source: std::io::Error| aya::maps::MapError::IoError(source);
    let gone = batch::delete(names.map().fd().as_fd(), keys).map_err(failed);
    for key in &keys[gone.writing(map::NAMES)?..] {
        found(names.remove(key)).writing(map::NAMES)?;
    }
    Ok(())
}

/// The table a key belongs to, read the way `Pattern::key` writes it.
pub fn table_of(bytes: &[u8; NAME_KEY_BYTES]) -> u16 {
    let mut id = [0; TABLE_ID_BYTES];
    id.copy_from_slice(&bytes[..TABLE_ID_BYTES]);
    u16::from_be_bytes(id)
}

#[cfg(test)]
mod tests {
    use forwarder_common::name::Pattern;

    use super::*;

    #[test]
    fn the_table_is_read_as_it_is_written() {
        let pattern = Pattern::parse("*.example.org").unwrap();
        for id in [0, 1, 0x1234, u16::MAX] {
            assert_eq!(table_of(&pattern.key(id).1), id);
        }
    }
}
