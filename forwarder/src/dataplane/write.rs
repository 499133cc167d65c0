//! Brings the maps to a [`Plan`], in an order in which no packet meets half of it.
//!
//! What is referred to is written before what refers to it: nodes, paths, tables of pools, pools, names,
//! claimed addresses, and last the index by which packets find them. What is no longer referred to goes in the
//! opposite order. Names are written under a table id nobody uses; the claimed address then changes over
//! to it with one store.

use std::collections::BTreeSet;

use aya::maps::lpm_trie::Key;
use forwarder_common::abi::{self, Endpoint, map};
use forwarder_common::name::TABLE_ID_BYTES;

use super::maps::{MapsError, OfMap, Tables, found};
use super::plan::{NameTable, Plan, PoolPlan};
use super::registry::{Registry, Released, TableState};

/// How many entries were written or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes.
    pub nodes: usize,
    /// Paths.
    pub paths: usize,
    /// Pools.
    pub pools: usize,
    /// Names.
    pub names: usize,
    /// Claimed addresses.
    pub vips: usize,
}

impl Changes {
    /// Whether nothing had to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Tables {
    /// Brings the maps to `plan`. Which table each listener uses is entered in `registry`, which the caller
    /// saves before (numbers) and after (tables).
    pub fn apply(&mut self, plan: &Plan, registry: &mut Registry) -> Result<Changes, MapsError> {
        let mut changes = Changes::default();
        let settings = found(self.settings.get(&0, 0)).reading(map::SETTINGS)?;
        if settings != Some(plan.settings) {
            self.settings
                .set(0, plan.settings, 0)
                .writing(map::SETTINGS)?;
        }
        for (number, node) in &plan.nodes {
            changes.nodes += usize::from(self.node(*number, node)?);
        }
        for (number, path) in &plan.paths {
            let index = u32::from(*number);
            if found(self.paths.get(&index, 0)).reading(map::PATHS)? != Some(*path) {
                self.paths.set(index, path, 0).writing(map::PATHS)?;
                changes.paths += 1;
            }
        }
        for (number, pool) in &plan.pools {
            changes.pools += usize::from(self.pool(*number, pool)?);
        }
        let differs = |table: &&NameTable| {
            let known = registry.tables.get(&table.listener);
            known.is_none_or(|known| known.digest != table.digest)
        };
        let tables: Vec<_> = plan.tables.iter().filter(differs).collect();
        if !tables.is_empty() {
            // Rows of an id may be left over from a writer that was interrupted.
            self.remove_names_but(&ids(registry))?;
        }
        // Packets go on being led by the present tables until all claimed addresses have changed over: an id
        // that one listener gives up here is not yet free for the next.
        let mut taken = ids(registry);
        for table in &tables {
            changes.names += self.name_table(table, &mut taken, registry)?;
        }
        changes.vips += self.claim(plan, registry)?;
        changes.vips += self.disclaim(plan)?;
        if !tables.is_empty() {
            self.remove_names_but(&ids(registry))?;
        }
        Ok(changes)
    }

    /// Takes released nodes out of the index. Their values stay until the number is given away again.
    pub fn forget(&mut self, released: &Released) -> Result<(), MapsError> {
        for (_, address) in &released.nodes {
            let key = Endpoint::new(super::plan::address(address.ip()), address.port().to_be());
            found(self.node_index.remove(&key)).writing(map::NODE_INDEX)?;
        }
        Ok(())
    }

    fn node(&mut self, number: u16, node: &abi::Node) -> Result<bool, MapsError> {
        let index = u32::from(number);
        let same = found(self.nodes.get(&index, 0)).reading(map::NODES)? == Some(*node);
        if !same {
            self.nodes.set(index, node, 0).writing(map::NODES)?;
        }
        let key = Endpoint::new(node.address, node.port_be);
        let known = found(self.node_index.get(&key, 0)).reading(map::NODE_INDEX)?;
        if known != Some(index) {
            self.node_index
                .insert(key, index, 0)
                .writing(map::NODE_INDEX)?;
        }
        Ok(!same)
    }

    /// A pool has two tables and uses one; a new one is written to the other before the pool turns to it.
    pub fn pool(&mut self, number: u16, pool: &PoolPlan) -> Result<bool, MapsError> {
        let index = u32::from(number);
        let slots = [index * 2, index * 2 + 1];
        let known = found(self.pools.get(&index, 0)).reading(map::POOLS)?;
        let known = known.filter(|known| known.nodes != 0 && slots.contains(&known.maglev));
        let current = match known {
            Some(known) => {
                let table = found(self.maglev.get(&known.maglev, 0)).reading(map::MAGLEV)?;
                table
                    .filter(|table| *table == *pool.table)
                    .map(|_| known.maglev)
            }
            None => None,
        };
        let slot = match (current, known) {
            (Some(current), _) => current,
            (None, Some(known)) => slots[usize::from(known.maglev == slots[0])],
            (None, None) => slots[0],
        };
        if current.is_none() {
            self.maglev
                .set(slot, pool.table.as_ref(), 0)
                .writing(map::MAGLEV)?;
        }
        let value = abi::Pool {
            maglev: slot,
            // Written by [`Self::refuse`] alone.
            refuse_until_ns: known.map_or(0, |known| known.refuse_until_ns),
            ..pool.value
        };
        if known == Some(value) {
            return Ok(false);
        }
        self.pools.set(index, value, 0).writing(map::POOLS)?;
        Ok(true)
    }

    /// Until then, ns of the monotonic clock, new connections to a pool are refused; 0 ends that.
    pub fn refuse(&mut self, number: u16, until_ns: u64) -> Result<(), MapsError> {
        let index = u32::from(number);
        let known = found(self.pools.get(&index, 0)).reading(map::POOLS)?;
        let Some(mut pool) = known.filter(|pool| pool.refuse_until_ns != until_ns) else {
            return Ok(());
        };
        pool.refuse_until_ns = until_ns;
        self.pools.set(index, pool, 0).writing(map::POOLS)
    }

    fn name_table(
        &mut self,
        table: &NameTable,
        taken: &mut BTreeSet<u16>,
        registry: &mut Registry,
    ) -> Result<usize, MapsError> {
        let free = (1..=u16::MAX).find(|id| !taken.contains(id));
        // There are fewer than half as many listeners as ids.
        let id = free.unwrap_or(u16::MAX);
        taken.insert(id);
        for (pattern, entry) in &table.rows {
            let (bits, bytes) = pattern.key(id);
            self.names
                .insert(&Key::new(bits, bytes), entry, 0)
                .writing(map::NAMES)?;
        }
        let digest = table.digest;
        registry
            .tables
            .insert(table.listener, TableState { id, digest });
        Ok(table.rows.len())
    }

    fn claim(&mut self, plan: &Plan, registry: &Registry) -> Result<usize, MapsError> {
        let mut changed = 0;
        for (number, vip) in &plan.vips {
            let index = u32::from(*number);
            let table = registry
                .tables
                .get(&vip.listener)
                .map_or(0, |state| state.id);
            let vip = abi::Vip { table, ..*vip };
            let same = found(self.vips.get(&index, 0)).reading(map::VIPS)? == Some(vip);
            if !same {
                self.vips.set(index, vip, 0).writing(map::VIPS)?;
            }
            let key = Endpoint::new(vip.address, vip.port_be);
            let claimed = found(self.vip_index.get(&key, 0)).reading(map::VIP_INDEX)?;
            if claimed != Some(index) {
                self.vip_index
                    .insert(key, index, 0)
                    .writing(map::VIP_INDEX)?;
            }
            changed += usize::from(!same || claimed != Some(index));
        }
        Ok(changed)
    }

    fn disclaim(&mut self, plan: &Plan) -> Result<usize, MapsError> {
        let wanted = |key: &Endpoint| {
            plan.vips
                .iter()
                .any(|(_, vip)| vip.address == key.address && vip.port_be == key.port_be)
        };
        let keys: Vec<Endpoint> = self
            .vip_index
            .keys()
            .collect::<Result<_, _>>()
            .reading(map::VIP_INDEX)?;
        let unwanted: Vec<_> = keys.iter().filter(|key| !wanted(key)).collect();
        for key in &unwanted {
            found(self.vip_index.remove(key)).writing(map::VIP_INDEX)?;
        }
        Ok(unwanted.len())
    }

    fn remove_names_but(&mut self, used: &BTreeSet<u16>) -> Result<(), MapsError> {
        let keys: Vec<_> = self
            .names
            .keys()
            .collect::<Result<_, _>>()
            .reading(map::NAMES)?;
        for key in keys {
            if !used.contains(&table_of(&key.data())) {
                found(self.names.remove(&key)).writing(map::NAMES)?;
            }
        }
        Ok(())
    }
}

/// The tables that listeners use.
fn ids(registry: &Registry) -> BTreeSet<u16> {
    registry.tables.values().map(|state| state.id).collect()
}

/// The table a key belongs to, read the way `Pattern::key` writes it.
fn table_of(bytes: &[u8; abi::NAME_KEY_BYTES]) -> u16 {
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
