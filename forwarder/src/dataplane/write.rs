//! Brings the maps to a [`Plan`], in an order in which no packet meets half of it.
//!
//! What is referred to is written before what refers to it: nodes, paths, tables of pools, pools, names,
//! claimed addresses, and last the index by which packets find them. What is no longer referred to goes in the
//! opposite order. Where many names of a listener change, all are written under a table id nobody uses; the claimed
//! address then changes over to it with one store. Where few do, each changes over with one store of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, MapData};
use forwarder_common::abi::{self, Endpoint, NameEntry, PublicLink, map, slot};
use forwarder_common::name::PatternKind;

use super::bpf::maps::{MapsError, OfMap, found};
use super::config_maps::ConfigMaps;
use super::names::listed::{Step, Way};
use super::names::retire::{self, Retired};
use super::plan::source_rules::{self, SourceRules};
use super::plan::{Plan, PoolPlan};
use super::registry::{Registry, Released};
use crate::config::model::Pattern;

/// A packet that did not find its name among the exact ones is still about to look among the wildcards. It is done
/// within microseconds, unless its processor is taken away.
const LOOK_UP: Duration = Duration::from_millis(10);

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

impl ConfigMaps {
    /// Brings the maps to `plan`, and the names there by `steps`; tables that are written anew have their `ids`,
    /// by listener. `has_predecessor` is for [`abi::Settings::predecessor`].
    pub fn apply(
        &mut self,
        plan: &Plan,
        steps: &[Step],
        ids: &BTreeMap<u16, u16>,
        registry: &Registry,
        has_predecessor: bool,
    ) -> Result<Changes, MapsError> {
        let mut changes = Changes::default();
        let settings = found(self.settings.get(&0, 0)).reading(map::SETTINGS)?;
        let planned = abi::Settings {
            name_secret: self.names.secret(),
            predecessor: u32::from(has_predecessor),
            ..plan.settings
        };
        if settings != Some(planned) {
            self.settings.set(0, planned, 0).writing(map::SETTINGS)?;
        }
        self.write_source_rules(&plan.source_rules)?;
        self.write_public_links(&plan.public_links)?;
        for (number, node) in &plan.nodes {
            changes.nodes += usize::from(self.node(*number, node, registry)?);
        }
        self.write_node_slots(|_| true)?;
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
        changes.names = self.write_names(steps, ids, registry)?;
        changes.vips += self.claim(plan, registry, ids)?;
        changes.vips += self.disclaim(plan)?;
        for step in steps {
            if let Way::InPlace { put, gone } = &step.way {
                let is_wildcard = |pattern: &Pattern| pattern.kind() != PatternKind::Exact;
                if !put.is_empty() && gone.iter().any(is_wildcard) {
                    thread::sleep(LOOK_UP);
                }
                let id = table_of(step, registry);
                for pattern in gone {
                    self.names.remove(id, pattern)?;
                }
            }
        }
        Ok(changes)
    }

    /// New rules come before old ones go. A packet in between may meet the rule of a shorter prefix.
    fn write_source_rules(&mut self, rules: &SourceRules) -> Result<(), MapsError> {
        let name = map::SOURCE_RULES;
        let planned: BTreeMap<_, _> = rules
            .iter()
            .map(|(prefix, kind)| (source_rules::key(prefix), source_rules::value(*kind)))
            .collect();
        let present: BTreeMap<_, _> = self
            .source_rules
            .iter()
            .map(|entry| entry.map(|(key, rule)| ((key.prefix_len(), key.data()), rule)))
            .collect::<Result<_, _>>()
            .reading(name)?;
        for (key, rule) in &planned {
            if present.get(key) != Some(rule) {
                let key = Key::new(key.0, key.1);
                self.source_rules.insert(&key, rule, 0).writing(name)?;
            }
        }
        for key in present.keys().filter(|key| !planned.contains_key(key)) {
            found(self.source_rules.remove(&Key::new(key.0, key.1))).writing(name)?;
        }
        Ok(())
    }

    fn write_public_links(&mut self, links: &BTreeMap<u32, PublicLink>) -> Result<(), MapsError> {
        let name = map::PUBLIC_LINKS;
        let present: BTreeMap<u32, PublicLink> = self
            .public_links
            .iter()
            .collect::<Result<_, _>>()
            .reading(name)?;
        for (ifindex, link) in links {
            if present.get(ifindex) != Some(link) {
                self.public_links.insert(ifindex, link, 0).writing(name)?;
            }
        }
        for ifindex in present.keys().filter(|own| !links.contains_key(own)) {
            found(self.public_links.remove(ifindex)).writing(name)?;
        }
        Ok(())
    }

    /// Takes what was released out of the indices. Values stay until the number is given away again.
    pub fn forget(&mut self, released: &Released) -> Result<(), MapsError> {
        let gone: Vec<Endpoint> = released
            .nodes
            .iter()
            .map(|(_, address)| {
                Endpoint::new(
                    super::address::address(address.ip()),
                    address.port().to_be(),
                )
            })
            .collect();
        self.write_node_slots(|key| !gone.contains(key))?;
        for key in &gone {
            found(self.node_index.remove(key)).writing(map::NODE_INDEX)?;
        }
        let gone = released.vips.iter();
        let gone: Vec<Endpoint> = gone
            .map(|(_, (ip, port))| Endpoint::new(super::address::address(*ip), port.to_be()))
            .collect();
        self.write_vip_slots(|key| !gone.contains(key))?;
        for key in &gone {
            found(self.vip_index.remove(key)).writing(map::VIP_INDEX)?;
        }
        Ok(())
    }

    /// Writes new tables, and what is new or changed in those that stay. Returns how many names were touched, those
    /// that are still to be removed included.
    fn write_names(
        &mut self,
        steps: &[Step],
        ids: &BTreeMap<u16, u16>,
        registry: &Registry,
    ) -> Result<usize, MapsError> {
        let mut anew = Vec::new();
        let mut count = 0;
        for step in steps {
            match &step.way {
                Way::Anew { listings, .. } => {
                    let id = ids.get(&step.listener).copied().unwrap_or_default();
                    anew.push((id, listings.as_slice()));
                }
                Way::InPlace { put, gone } => {
                    self.put_in_place(table_of(step, registry), put)?;
                    count += put.len() + gone.len();
                }
                Way::Gone { .. } => {}
            }
        }
        Ok(count + self.names.put_tables(&anew)?)
    }

    /// Writes rows into a table that packets use. An exact name decides about itself alone, so these come first.
    fn put_in_place(&self, id: u16, rows: &[(Pattern, NameEntry)]) -> Result<(), MapsError> {
        let (exact, wildcards): (Vec<_>, Vec<_>) = rows
            .iter()
            .partition(|(pattern, _)| pattern.kind() == PatternKind::Exact);
        for (pattern, entry) in &exact {
            self.names.put(id, pattern, *entry)?;
        }
        if !exact.is_empty() && !wildcards.is_empty() {
            thread::sleep(LOOK_UP);
        }
        for (pattern, entry) in wildcards {
            self.names.put(id, pattern, *entry)?;
        }
        Ok(())
    }

    /// Writes the homes of nodes anew, for claimed addresses that were released.
    pub fn rehome(
        &mut self,
        nodes: &[(u16, abi::Node)],
        registry: &Registry,
    ) -> Result<(), MapsError> {
        for (number, node) in nodes {
            if registry.nodes.key(usize::from(*number)).is_some() {
                self.node(*number, node, registry)?;
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        number: u16,
        node: &abi::Node,
        registry: &Registry,
    ) -> Result<bool, MapsError> {
        let index = u32::from(number);
        let present = found(self.nodes.get(&index, 0)).reading(map::NODES)?;
        let node = homes(present, node, registry);
        let same = present == Some(node);
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

    /// Which of a node's homes the data path looks at first.
    pub fn prefer(&mut self, number: u16, vip: u16) -> Result<(), MapsError> {
        let index = u32::from(number);
        let Some(node) = found(self.nodes.get(&index, 0)).reading(map::NODES)? else {
            return Ok(());
        };
        let Some(first) = node.homes.iter().position(|home| *home == vip) else {
            return Ok(());
        };
        if usize::from(node.first) == first {
            return Ok(());
        }
        let first = first as u8;
        let node = abi::Node { first, ..node };
        self.nodes.set(index, node, 0).writing(map::NODES)
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

    /// Tables that packets may be led by.
    pub fn tables_in_use(&self) -> Result<BTreeSet<u16>, MapsError> {
        let mut ids = BTreeSet::new();
        for entry in self.vip_index.iter() {
            let (_, index) = entry.reading(map::VIP_INDEX)?;
            let vip = found(self.vips.get(&index, 0)).reading(map::VIPS)?;
            let open = vip.filter(|vip| vip.closed == 0);
            ids.extend(open.map(|vip| vip.table));
        }
        Ok(ids)
    }

    /// Tables that hold names.
    pub fn tables_there(&self) -> Result<BTreeSet<u16>, MapsError> {
        self.names.tables()
    }

    /// Removes what tables hold that nobody uses.
    pub fn remove_names(&self, tables: &[Retired]) -> Result<BTreeSet<u16>, MapsError> {
        retire::remove(&self.names, tables)
    }

    fn claim(
        &mut self,
        plan: &Plan,
        registry: &Registry,
        ids: &BTreeMap<u16, u16>,
    ) -> Result<usize, MapsError> {
        let mut changed = 0;
        for (number, vip) in &plan.vips {
            let index = u32::from(*number);
            let present = registry.tables.get(&vip.listener).map(|state| state.id);
            let table = ids.get(&vip.listener).copied().or(present);
            let table = table.unwrap_or_default();
            let present = found(self.vips.get(&index, 0)).reading(map::VIPS)?;
            let vip = if vip.closed == 0 {
                abi::Vip { table, ..*vip }
            } else {
                closed(present, vip)
            };
            let same = present == Some(vip);
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
        self.write_vip_slots(|_| true)?;
        Ok(changed)
    }

    fn write_vip_slots(&mut self, wanted: impl Fn(&Endpoint) -> bool) -> Result<(), MapsError> {
        let index = (&self.vip_index, map::VIP_INDEX);
        write_slots(index, (&mut self.vip_slots, map::VIP_SLOTS), wanted)
    }

    fn write_node_slots(&mut self, wanted: impl Fn(&Endpoint) -> bool) -> Result<(), MapsError> {
        let index = (&self.node_index, map::NODE_INDEX);
        write_slots(index, (&mut self.node_slots, map::NODE_SLOTS), wanted)
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
        self.write_vip_slots(wanted)?;
        for key in &unwanted {
            found(self.vip_index.remove(key)).writing(map::VIP_INDEX)?;
        }
        Ok(unwanted.len())
    }
}

/// A claimed address that is no longer configured stays the listener's whose flows it has, as far as the map knows.
fn closed(present: Option<abi::Vip>, planned: &abi::Vip) -> abi::Vip {
    let same = |own: &abi::Vip| own.address == planned.address && own.port_be == planned.port_be;
    match present.filter(same) {
        Some(present) => abi::Vip {
            table: 0,
            closed: 1,
            ..present
        },
        None => *planned,
    }
}

/// Slots say what an index does of the `wanted` ones. Each slot changes at once, and what it names is there already.
fn write_slots(
    (index, index_name): (&HashMap<MapData, Endpoint, u32>, &'static str),
    (slots, slots_name): (&mut Array<MapData, u32>, &'static str),
    wanted: impl Fn(&Endpoint) -> bool,
) -> Result<(), MapsError> {
    let mut all = [slot::NOTHING; slot::COUNT as usize];
    for entry in index.iter() {
        let (key, number) = entry.reading(index_name)?;
        if wanted(&key) {
            let own = &mut all[slot::of(&key.address, key.port_be) as usize];
            *own = slot::with(*own, number);
        }
    }
    for (at, own) in (0..).zip(all) {
        if slots.get(&at, 0).reading(slots_name)? != own {
            slots.set(at, own, 0).writing(slots_name)?;
        }
    }
    Ok(())
}

/// A home stays where it is as long as its number may be in use: flows that began under it have no other entry.
fn homes(present: Option<abi::Node>, planned: &abi::Node, registry: &Registry) -> abi::Node {
    let same = |own: &abi::Node| own.address == planned.address && own.port_be == planned.port_be;
    let Some(present) = present.filter(same) else {
        return *planned;
    };
    let mut node = abi::Node {
        first: present.first,
        homes: present.homes,
        ..*planned
    };
    if planned.ifindex == 0 {
        // Flows that are answered for under this address stay known while the tunnel is away.
        node.local = present.local;
    }
    for home in &mut node.homes {
        if registry.vips.key(usize::from(*home)).is_none() {
            *home = abi::NO_HOME;
        }
    }
    for vip in planned.homes {
        let free = node.homes.iter().position(|own| *own == abi::NO_HOME);
        if let Some(free) = free
            && !node.homes.contains(&vip)
        {
            node.homes[free] = vip;
        }
    }
    node
}

/// The table that a listener uses.
fn table_of(step: &Step, registry: &Registry) -> u16 {
    let state = registry.tables.get(&step.listener);
    state.map_or(0, |own| own.id)
}
