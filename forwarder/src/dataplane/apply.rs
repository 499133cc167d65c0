//! From a configuration to the maps, and what becomes of the name tables that nobody uses after that.

use std::collections::{BTreeMap, BTreeSet};

use super::bpf::maps::MapsError;
use super::names::listed::{Step, Way};
use super::names::retire::Retired;
use super::registry::TableState;
use super::write::Changes;
use super::{Dataplane, DataplaneError, plan};
use crate::config::Config;
use crate::link::Network;

impl Dataplane {
    /// Brings the maps in step.
    pub fn apply(&mut self, config: &Config, network: &Network) -> Result<Changes, DataplaneError> {
        let (plan, registry) =
            plan::fit(config, network, &self.registry, &self.sizes, &self.weights)?;
        let mut occupancy = Vec::from(plan::occupancy(&plan, &registry, &self.sizes));
        occupancy.retain(plan::Occupancy::is_tight);
        self.tight = occupancy;
        self.registry = registry;
        self.in_step = false;
        let steps = self.listed.steps(&plan.tables, &mut self.registry);
        let ids = self.prepare(&steps)?;
        // Numbers are on disk before any map holds them.
        self.file.save(&mut self.registry)?;
        self.settled = 0;
        let changes =
            self.tables
                .apply(&plan, &steps, &ids, &self.registry, self.upgrade.is_some())?;
        let retired = self.settle(&steps, &ids);
        self.planned = plan.nodes;
        self.in_step = true;
        self.file.save(&mut self.registry)?;
        if !retired.is_empty() {
            self.retire(retired)?;
        }
        Ok(changes)
    }

    /// Gives tables that are written anew their ids. Until that is done, the registry says that nobody knows what
    /// stands in them, nor in those that change where they are: the daemon may be killed half-way.
    fn prepare(&mut self, steps: &[Step]) -> Result<BTreeMap<u16, u16>, DataplaneError> {
        let mut ids = BTreeMap::new();
        if steps.iter().any(is_anew) {
            // Only two generations have room.
            for id in self.retiring.wait() {
                self.registry.dirty.remove(&id);
            }
            self.abandon_unused(steps)?;
            let left = self.left_over()?;
            for id in self.tables.remove_names(&left)? {
                self.registry.dirty.remove(&id);
            }
        }
        for step in steps {
            if is_anew(step) {
                // Packets are led by the present tables until all claimed addresses have changed over: an id that
                // one listener gives up is not yet free for the next.
                let used = self.registry.tables.values().map(|state| state.id);
                let taken: BTreeSet<u16> =
                    used.chain(self.registry.dirty.iter().copied()).collect();
                // There are fewer than half as many listeners as ids.
                let free = (1..=u16::MAX).find(|id| !taken.contains(id));
                let id = free.unwrap_or(u16::MAX);
                self.registry.dirty.insert(id);
                ids.insert(step.listener, id);
            } else if let Some(state) = self.registry.tables.get_mut(&step.listener) {
                state.digest = 0;
            }
        }
        Ok(ids)
    }

    /// A daemon that was killed right after claimed addresses changed over has left tables behind that the numbers
    /// still take for those in use.
    fn abandon_unused(&mut self, steps: &[Step]) -> Result<(), MapsError> {
        let used = self.tables.tables_in_use()?;
        // One that changes where it is stays, also while no address of its listener is there.
        let anew = steps.iter().filter(|step| is_anew(step));
        for step in anew {
            if let Some(state) = self.registry.tables.get(&step.listener)
                && !used.is_empty()
                && !used.contains(&state.id)
            {
                self.registry.dirty.insert(state.id);
            }
        }
        Ok(())
    }

    /// All steps are done: enters what tables there are now, and returns those that nobody uses any more.
    fn settle(&mut self, steps: &[Step], ids: &BTreeMap<u16, u16>) -> Vec<Retired> {
        let mut retired = Vec::new();
        for step in steps {
            let tables = &mut self.registry.tables;
            let (id, names) = match &step.way {
                Way::Gone { former } => (tables.remove(&step.listener), former),
                Way::Anew { former, .. } => {
                    let id = ids.get(&step.listener).copied().unwrap_or_default();
                    self.registry.dirty.remove(&id);
                    let digest = step.digest;
                    (
                        tables.insert(step.listener, TableState { id, digest }),
                        former,
                    )
                }
                Way::InPlace { .. } => {
                    if let Some(state) = tables.get_mut(&step.listener) {
                        state.digest = step.digest;
                    }
                    (None, &None)
                }
            };
            self.listed.is_written(step.listener);
            if let Some(TableState { id, .. }) = id {
                self.registry.dirty.insert(id);
                retired.push(Retired {
                    id,
                    listings: names.clone(),
                });
            }
        }
        retired
    }

    /// After a start over maps of a former daemon: it may have been killed while it wrote names or removed them.
    pub(super) fn find_left_over(&mut self) -> Result<(), DataplaneError> {
        if !self.registry.is_saved() {
            // Made from the maps, or by a version that did not note them.
            let used = self
                .registry
                .tables
                .values()
                .map(|state| state.id)
                .collect();
            self.registry.dirty = &self.tables.tables_there()? - &used;
        }
        self.retire(Vec::new())
    }

    /// Tables that no packet is led by and whose names nobody knows.
    fn left_over(&self) -> Result<Vec<Retired>, MapsError> {
        if self.registry.dirty.is_empty() {
            return Ok(Vec::new());
        }
        let used = self.tables.tables_in_use()?;
        let ids = self.registry.dirty.difference(&used);
        Ok(ids
            .map(|id| Retired {
                id: *id,
                listings: None,
            })
            .collect())
    }

    /// Lets tables go that nobody uses any more, and those that are left over.
    pub(super) fn retire(&mut self, mut tables: Vec<Retired>) -> Result<(), DataplaneError> {
        if self.retiring.is_under_way() {
            // They are left over when those that go now have gone.
            return Ok(());
        }
        let known: BTreeSet<u16> = tables.iter().map(|table| table.id).collect();
        let left = self.left_over()?.into_iter();
        tables.extend(left.filter(|table| !known.contains(&table.id)));
        if !tables.is_empty() {
            self.retiring.begin(&self.pins, tables);
        }
        Ok(())
    }
}

fn is_anew(step: &Step) -> bool {
    matches!(step.way, Way::Anew { .. })
}
