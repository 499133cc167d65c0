//! The listed names in the maps: exact ones by digest, wildcards by longest prefix, of all tables together.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, IterableMap, MapData, MapError};
use forwarder_common::abi::{NAME_KEY_BYTES, NameEntry, NameKey, Settings, map};
use forwarder_common::name::{PatternKind, TABLE_ID_BYTES, lookup_key};
use forwarder_common::name_key;

use super::listed::Listing;
use crate::config::model::Pattern;
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::maps::{MapsError, OfMap, found, open};
use crate::dataplane::bpf::pins::Pins;

/// Names written or removed with one call. Packets and the daemon's other changes come between calls.
const CHUNK: usize = 1_024;

type TrieKey = Key<[u8; NAME_KEY_BYTES]>;

/// The maps of names.
pub struct NameMaps {
    exact: HashMap<MapData, NameKey, NameEntry>,
    wildcards: LpmTrie<MapData, [u8; NAME_KEY_BYTES], NameEntry>,
    /// SipHash key of the digests.
    secret: [u64; 2],
}

/// Keys of one chunk, by map.
#[derive(Default)]
struct Chunk {
    exact: Vec<NameKey>,
    exact_entries: Vec<NameEntry>,
    wildcards: Vec<TrieKey>,
    wildcard_entries: Vec<NameEntry>,
}

impl NameMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, MapsError> {
        let settings: Array<_, Settings> = open(pins, map::SETTINGS)?;
        let settings = settings.get(&0, 0).reading(map::SETTINGS)?;
        Ok(Self {
            exact: open(pins, map::NAMES)?,
            wildcards: open(pins, map::WILDCARDS)?,
            secret: settings.name_secret,
        })
    }

    /// The SipHash key of the digests.
    pub fn secret(&self) -> [u64; 2] {
        self.secret
    }

    /// What a name leads to, found as the data path finds it.
    pub fn look_up(&self, table: u16, name: &str) -> Result<Option<NameEntry>, MapsError> {
        let key = name_key::of(self.secret, table, name);
        let entry = found(self.exact.get(&key, 0)).reading(map::NAMES)?;
        if entry.is_some() {
            return Ok(entry);
        }
        let (bits, bytes) = lookup_key(table, name);
        found(self.wildcards.get(&Key::new(bits, bytes), 0)).reading(map::WILDCARDS)
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.exact.keys().count() + self.wildcards.keys().count()
    }

    /// Lists a name, or lets it lead elsewhere.
    pub fn put(&self, table: u16, pattern: &Pattern, entry: NameEntry) -> Result<(), MapsError> {
        match pattern.kind() {
            PatternKind::Exact => {
                let key = name_key::of(self.secret, table, pattern.name());
                let put = batch::update(self.exact.map().fd().as_fd(), &[key], &[entry]);
                put.map_err(MapError::IoError).writing(map::NAMES)
            }
            PatternKind::Wildcard | PatternKind::Any => {
                let key = trie_key(table, pattern);
                let put = batch::update(self.wildcards.map().fd().as_fd(), &[key], &[entry]);
                put.map_err(MapError::IoError).writing(map::WILDCARDS)
            }
        }
    }

    /// Lists a name no more.
    pub fn remove(&mut self, table: u16, pattern: &Pattern) -> Result<(), MapsError> {
        match pattern.kind() {
            PatternKind::Exact => {
                let key = name_key::of(self.secret, table, pattern.name());
                found(self.exact.remove(&key)).writing(map::NAMES)?;
            }
            PatternKind::Wildcard | PatternKind::Any => {
                let key = trie_key(table, pattern);
                found(self.wildcards.remove(&key)).writing(map::WILDCARDS)?;
            }
        }
        Ok(())
    }

    /// Writes whole tables, each under its id, on as many threads as there are processors. Returns how many rows
    /// that were.
    pub fn put_tables(&self, tables: &[(u16, &[Listing])]) -> Result<usize, MapsError> {
        let stretches = tables.iter().flat_map(|(table, listings)| {
            let stretches = listings.iter().flat_map(|own| own.stretches(CHUNK));
            stretches.map(|stretch| (*table, stretch))
        });
        let stretches: Vec<_> = stretches.collect();
        let next = AtomicUsize::new(0);
        let write = || {
            let mut chunk = Chunk::default();
            while let Some((table, rows)) = stretches.get(next.fetch_add(1, Ordering::Relaxed)) {
                for (pattern, entry) in rows.iter() {
                    chunk.add(self.secret, *table, pattern, entry);
                }
                self.put_chunk(&mut chunk)?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(stretches.len());
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(write)).collect();
            let own = write();
            let panicked = |panic| std::panic::resume_unwind(panic);
            let mut all = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(panicked));
            all.try_for_each(|other| other).and(own)
        })?;
        Ok(stretches.iter().map(|(_, rows)| rows.len()).sum())
    }

    fn put_chunk(&self, chunk: &mut Chunk) -> Result<(), MapsError> {
        let exact = self.exact.map().fd().as_fd();
        batch::update(exact, &chunk.exact, &chunk.exact_entries)
            .map_err(MapError::IoError)
            .writing(map::NAMES)?;
        let wildcards = self.wildcards.map().fd().as_fd();
        batch::update(wildcards, &chunk.wildcards, &chunk.wildcard_entries)
            .map_err(MapError::IoError)
            .writing(map::WILDCARDS)?;
        chunk.clear();
        Ok(())
    }

    /// Removes the rows of a table whose names are known.
    pub fn remove_table(&self, table: u16, listings: &[Listing]) -> Result<(), MapsError> {
        let mut chunk = Chunk::default();
        for rows in listings.iter().flat_map(|own| own.stretches(CHUNK)) {
            for (pattern, entry) in rows.iter() {
                chunk.add(self.secret, table, pattern, entry);
            }
            self.remove_chunk(&mut chunk)?;
            thread::yield_now();
        }
        Ok(())
    }

    fn remove_chunk(&self, chunk: &mut Chunk) -> Result<(), MapsError> {
        batch::delete(self.exact.map().fd().as_fd(), &chunk.exact)
            .map_err(MapError::IoError)
            .writing(map::NAMES)?;
        batch::delete(self.wildcards.map().fd().as_fd(), &chunk.wildcards)
            .map_err(MapError::IoError)
            .writing(map::WILDCARDS)?;
        chunk.clear();
        Ok(())
    }

    /// The tables that have rows.
    pub fn tables(&self) -> Result<BTreeSet<u16>, MapsError> {
        let mut tables = BTreeSet::new();
        batch::scan(
            self.exact.map().fd().as_fd(),
            |key: NameKey, _: NameEntry| {
                tables.insert(key.table());
            },
        )
        .map_err(MapError::IoError)
        .reading(map::NAMES)?;
        for key in self.wildcards.keys() {
            tables.insert(table_of(&key.reading(map::WILDCARDS)?));
        }
        Ok(tables)
    }

    /// Removes all rows of tables whose names nobody knows.
    pub fn remove_unknown(&self, tables: &BTreeSet<u16>) -> Result<(), MapsError> {
        let mut chunk = Chunk::default();
        batch::scan(
            self.exact.map().fd().as_fd(),
            |key: NameKey, _: NameEntry| {
                if tables.contains(&key.table()) {
                    chunk.exact.push(key);
                }
            },
        )
        .map_err(MapError::IoError)
        .reading(map::NAMES)?;
        for key in self.wildcards.keys() {
            let key = key.reading(map::WILDCARDS)?;
            if tables.contains(&table_of(&key)) {
                chunk.wildcards.push(key);
            }
        }
        self.remove_chunk(&mut chunk)
    }
}

impl Chunk {
    fn add(&mut self, secret: [u64; 2], table: u16, pattern: &Pattern, entry: NameEntry) {
        match pattern.kind() {
            PatternKind::Exact => {
                self.exact.push(name_key::of(secret, table, pattern.name()));
                self.exact_entries.push(entry);
            }
            PatternKind::Wildcard | PatternKind::Any => {
                self.wildcards.push(trie_key(table, pattern));
                self.wildcard_entries.push(entry);
            }
        }
    }

    fn clear(&mut self) {
        self.exact.clear();
        self.exact_entries.clear();
        self.wildcards.clear();
        self.wildcard_entries.clear();
    }
}

fn trie_key(table: u16, pattern: &Pattern) -> TrieKey {
    let (bits, bytes) = pattern.key(table);
    Key::new(bits, bytes)
}

/// The table a wildcard's key belongs to, read the way `Pattern::key` writes it.
fn table_of(key: &TrieKey) -> u16 {
    let bytes = key.data();
    let mut id = [0; TABLE_ID_BYTES];
    id.copy_from_slice(&bytes[..TABLE_ID_BYTES]);
    u16::from_be_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_it_is_written() {
        let pattern = Pattern::parse("*.example.org").unwrap();
        for id in [0, 1, 0x1234, u16::MAX] {
            assert_eq!(table_of(&trie_key(id, &pattern)), id);
        }
    }
}
