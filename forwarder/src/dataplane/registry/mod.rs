//! Which number stands for what in the maps, kept beside them for as long as they exist.
//!
//! Flows refer to claimed addresses, paths, nodes and names by number, and outlive a change of the
//! configuration and a restart of the daemon. So a thing keeps its number while it is configured or any
//! flow uses it, and a number is given away again only after [`Registry::release`].
//!
//! The registry is a file in the run directory: like the pinned maps it is gone after a reboot.

pub mod file;
pub mod names;
pub mod numbers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use forwarder_common::abi::ABI_VERSION;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::names::Names;
use self::numbers::Numbers;
use super::bpf::attach::Attachment;
use crate::config::model::ClientAddress;

/// Why the registry could not be read or written.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a registry.
    #[error("{} is damaged; the next `forwarder run` puts it aside and makes another from the maps", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file belongs to maps of another layout.
    #[error("{} is of layout v{found}; this forwarder has v{ABI_VERSION}", path.display())]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

/// A pool as flows depend on it: other nodes or another way to tell the client's address make another
/// pool, so that positions in its table keep their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolKey {
    /// Its name.
    pub name: String,
    /// What its nodes see of clients.
    pub client_address: ClientAddress,
    /// Its nodes in order.
    pub nodes: Vec<SocketAddr>,
}

/// A route has no name of its own; this tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Its first name.
    pub first_name: String,
    /// Name of its pool.
    pub pool: String,
    /// Names of its listeners.
    pub listeners: Vec<String>,
}

/// Consecutive paths, one for each node of a pool behind a listener and route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// First path.
    pub base: u16,
    /// Listener number.
    pub listener: u16,
    /// Route number.
    pub route: u16,
    /// Pool number.
    pub pool: u16,
    /// Node numbers.
    pub nodes: Vec<u16>,
    #[serde(skip)]
    live: bool,
}

impl Block {
    /// Whether it is configured, as far as this process has asked.
    pub fn is_live(&self) -> bool {
        self.live
    }

    fn end(&self) -> usize {
        usize::from(self.base) + self.nodes.len()
    }
}

/// The name table a listener uses, and what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// Its id in the keys.
    pub id: u16,
    /// Digest of its entries; tells whether it has to be written anew.
    pub digest: u64,
}

/// All numbers, and what is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    pub(super) version: u32,
    /// Listeners by name.
    pub listeners: Numbers<String>,
    /// Routes.
    pub routes: Numbers<RouteKey>,
    /// Pools.
    pub pools: Numbers<PoolKey>,
    /// Nodes by address and port.
    pub nodes: Numbers<SocketAddr>,
    /// Claimed addresses and ports.
    pub vips: Numbers<(IpAddr, u16)>,
    /// Listed names and patterns, as text.
    pub names: Names,
    /// Blocks of paths, sorted by their base.
    pub blocks: Vec<Block>,
    /// The first path of a block by its listener, route and pool.
    #[serde(skip)]
    pub(super) bases: HashMap<(u16, u16, u16), u16>,
    /// Name tables by listener number.
    pub tables: BTreeMap<u16, TableState>,
    /// Ids of tables that no listener uses and that may have names all the same.
    #[serde(default)]
    pub dirty: BTreeSet<u16>,
    /// What nodes are called, by number.
    pub node_names: BTreeMap<u16, String>,
    /// Where programs are attached.
    pub attachments: Vec<Attachment>,
    /// Configured interfaces that do not exist.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Tells which journal goes on from here.
    #[serde(default)]
    pub(super) generation: u64,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            version: ABI_VERSION,
            listeners: Numbers::default(),
            routes: Numbers::default(),
            pools: Numbers::default(),
            nodes: Numbers::default(),
            vips: Numbers::default(),
            names: Names::default(),
            blocks: Vec::new(),
            bases: HashMap::new(),
            tables: BTreeMap::new(),
            dirty: BTreeSet::new(),
            node_names: BTreeMap::new(),
            attachments: Vec::new(),
            missing: Vec::new(),
            generation: 0,
        }
    }
}

/// Numbers that flows use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Of claimed addresses.
    pub vips: BTreeSet<u16>,
    /// Of paths.
    pub paths: BTreeSet<u16>,
    /// Of names.
    pub names: BTreeSet<u32>,
}

/// What a release set free and the maps still hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Nodes.
    pub nodes: Vec<(u16, SocketAddr)>,
    /// Claimed addresses and ports.
    pub vips: Vec<(u16, (IpAddr, u16))>,
}

impl Registry {
    /// Starts over with what is configured; numbers are kept.
    pub fn begin(&mut self) {
        self.listeners.begin();
        self.routes.begin();
        self.pools.begin();
        self.nodes.begin();
        self.vips.begin();
        self.bases.clear();
        for block in &mut self.blocks {
            block.live = false;
            let parts = (block.listener, block.route, block.pool);
            self.bases.entry(parts).or_insert(block.base);
        }
    }

    /// First path of a block with these parts: an old one, or a new one in the first gap.
    pub fn block(&mut self, listener: u16, route: u16, pool: u16, nodes: &[u16]) -> Option<u16> {
        let parts = (listener, route, pool);
        let is_same = |block: &Block| {
            (block.listener, block.route, block.pool) == parts && block.nodes == nodes
        };
        let known = self.bases.get(&parts).and_then(|base| {
            let at = self
                .blocks
                .binary_search_by_key(base, |own| own.base)
                .ok()?;
            is_same(&self.blocks[at]).then_some(at)
        });
        if let Some(at) = known.or_else(|| self.blocks.iter().position(is_same)) {
            let block = &mut self.blocks[at];
            block.live = true;
            return Some(block.base);
        }
        let mut base = 0;
        let mut position = 0;
        for block in &self.blocks {
            if usize::from(block.base) >= base + nodes.len() {
                break;
            }
            base = block.end();
            position += 1;
        }
        let new = Block {
            base: u16::try_from(base).ok()?,
            listener,
            route,
            pool,
            nodes: nodes.to_vec(),
            live: true,
        };
        self.bases.insert(parts, new.base);
        self.blocks.insert(position, new);
        self.blocks[position]
            .end()
            .le(&usize::from(u16::MAX))
            .then_some(base as u16)
    }

    /// Enters a path that is known from elsewhere, as one that lingers.
    pub fn restore_path(&mut self, path: u16, listener: u16, route: u16, pool: u16, node: u16) {
        let at = self.blocks.partition_point(|block| block.base < path);
        let block = Block {
            base: path,
            listener,
            route,
            pool,
            nodes: vec![node],
            live: false,
        };
        self.blocks.insert(at, block);
    }

    /// One more than the highest path given.
    pub fn paths_end(&self) -> usize {
        self.blocks.last().map_or(0, Block::end)
    }

    /// The block that a path belongs to, and the path's place in it.
    pub fn path(&self, path: u16) -> Option<(&Block, usize)> {
        let at = self.blocks.partition_point(|block| block.base <= path);
        let block = self.blocks.get(at.checked_sub(1)?)?;
        let ordinal = usize::from(path - block.base);
        (ordinal < block.nodes.len()).then_some((block, ordinal))
    }

    /// Whether anything is numbered that is no longer configured.
    pub fn has_lingering(&self) -> bool {
        self.listeners.has_lingering()
            || self.routes.has_lingering()
            || self.pools.has_lingering()
            || self.nodes.has_lingering()
            || self.vips.has_lingering()
            || self.names.has_lingering()
            || self.blocks.iter().any(|block| !block.live)
    }

    /// Frees every number that is neither configured nor in use.
    pub fn release(&mut self, in_use: &InUse) -> Released {
        self.blocks.retain(|block| {
            let mut paths = block.base..block.base + block.nodes.len() as u16;
            block.live || paths.any(|path| in_use.paths.contains(&path))
        });
        let blocks = &self.blocks;
        let by_block = |is: &dyn Fn(&Block) -> bool| blocks.iter().any(is);
        self.listeners
            .release(|n| by_block(&|block| usize::from(block.listener) == n));
        self.routes
            .release(|n| by_block(&|block| usize::from(block.route) == n));
        self.pools
            .release(|n| by_block(&|block| usize::from(block.pool) == n));
        let in_block =
            |n: usize| by_block(&|block| block.nodes.iter().any(|own| usize::from(*own) == n));
        let nodes = self.nodes.release(in_block);
        let fits = |n: usize| u16::try_from(n).ok();
        let vips = self
            .vips
            .release(|n| fits(n).is_some_and(|n| in_use.vips.contains(&n)));
        self.names.release(|n| in_use.names.contains(&n));
        let nodes: Vec<_> = nodes
            .into_iter()
            .filter_map(|(n, at)| Some((fits(n)?, at)))
            .collect();
        for (number, _) in &nodes {
            self.node_names.remove(number);
        }
        let vips = vips.into_iter();
        let vips = vips.filter_map(|(n, at)| Some((fits(n)?, at))).collect();
        Released { nodes, vips }
    }

    /// The numbers alone, for maps that are yet to be filled.
    pub fn carried_over(self) -> Self {
        Self {
            version: ABI_VERSION,
            tables: BTreeMap::new(),
            dirty: BTreeSet::new(),
            attachments: Vec::new(),
            missing: Vec::new(),
            generation: 0,
            ..self
        }
    }

    /// Whether it came from a file of this version.
    pub fn is_saved(&self) -> bool {
        self.generation != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::registry::file::RegistryFile;

    #[test]
    fn blocks_fill_gaps_and_find_themselves() {
        let mut registry = Registry::default();
        assert_eq!(registry.block(0, 0, 0, &[0, 1, 2]), Some(0));
        assert_eq!(registry.block(0, 1, 1, &[3]), Some(3));
        assert_eq!(registry.block(0, 0, 0, &[0, 1, 2]), Some(0));
        registry.begin();
        assert_eq!(registry.block(0, 1, 1, &[3]), Some(3));
        assert!(registry.has_lingering());
        let mut in_use = InUse::default();
        in_use.paths.insert(1);
        registry.release(&in_use);
        assert_eq!(registry.block(0, 2, 2, &[4]), Some(4), "0 to 2 are in use");
        registry.release(&InUse::default());
        assert_eq!(registry.block(0, 3, 3, &[5, 6]), Some(0));
        assert_eq!(
            registry.block(0, 4, 4, &[5, 6]),
            Some(5),
            "a gap of one is too small"
        );
        assert_eq!(registry.block(0, 5, 5, &[7]), Some(2));
        assert_eq!(registry.paths_end(), 7);
    }

    #[test]
    fn a_path_knows_its_block() {
        let mut registry = Registry::default();
        registry.block(1, 2, 3, &[7, 8]);
        registry.block(1, 3, 4, &[9]);
        let (block, ordinal) = registry.path(1).unwrap();
        assert_eq!((block.route, block.nodes[ordinal]), (2, 8));
        assert_eq!(registry.path(2).unwrap().0.route, 3);
        assert!(registry.path(3).is_none());
    }

    #[test]
    fn too_many_paths_are_refused() {
        let mut registry = Registry::default();
        let nodes: Vec<u16> = (0..40_000).collect();
        assert_eq!(registry.block(0, 0, 0, &nodes), Some(0));
        assert_eq!(registry.block(0, 1, 0, &nodes), None);
    }

    #[test]
    fn the_file_brings_everything_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.json");
        assert_eq!(file::load(&path).unwrap(), None);
        let mut registry = Registry::default();
        registry.listeners.number(&String::from("https"));
        registry.nodes.number(&"10.0.0.2:443".parse().unwrap());
        registry.vips.number(&("2001:db8::7".parse().unwrap(), 443));
        registry.block(0, 0, 0, &[0]);
        registry.tables.insert(0, TableState { id: 1, digest: 7 });
        RegistryFile::new(&path).save(&mut registry).unwrap();
        let mut loaded = file::load(&path).unwrap().unwrap();
        assert_eq!(loaded.listeners.number(&String::from("https")), 0);
        assert_eq!(loaded.listeners.number(&String::from("other")), 1);
        assert_eq!(loaded.block(0, 0, 0, &[0]), Some(0));
        assert_eq!(loaded.tables[&0].id, 1);
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            file::load(&path),
            Err(RegistryError::Damaged { .. })
        ));
    }
}
