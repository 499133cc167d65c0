//! The kernel side as the daemon sees it: programs, maps, and what is attached where.
//!
//! ```text
//! config + network ──plan──▶ Plan ──write──▶ maps ◀── programs ◀──attach── interfaces
//!                     ▲                        │
//!                  registry (numbers)          ├── sweep    (flows that went silent)
//!                                              ├── counters (status)
//!                                              └── events   (log)
//! ```
//!
//! Everything the programs need is pinned ([`bpf::pins`]), so that the daemon may come and go. [`Dataplane`]
//! makes it or takes it over, and keeps it in step with the configuration and the network.

pub mod address;
mod apply;
pub mod bpf;
pub mod clock;
pub mod config_maps;
pub mod flows;
pub mod names;
pub mod plan;
mod recover;
pub mod registry;
pub mod unload;
pub mod upgrade;
pub mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use forwarder_common::abi::{self, map};
use serde_spanned::Spanned;
use thiserror::Error;
use tracing::{info, warn};

use self::bpf::attach::Attachment;
use self::bpf::attach::{self, AttachError, Hook};
use self::bpf::keys::{self, KeyRing, KeysError};
use self::bpf::load::{LoadError, Programs};
use self::bpf::maps::{FlowMaps, MapsError, OfMap, found};
use self::bpf::pins::{self, Pins, PinsError, Side};
use self::bpf::sizes::{Sizes, SizesError};
use self::config_maps::ConfigMaps;
use self::flows::expired::Expired;
use self::flows::sweep::{SweepError, Sweeper, Swept};
use self::names::listed::Listed;
use self::names::retire::Retiring;
use self::plan::weights::Weights;
use self::plan::{Occupancy, PlanError};
use self::registry::file::RegistryFile;
use self::registry::{InUse, Registry, RegistryError};
use self::upgrade::predecessor::Predecessor;
use self::upgrade::{Upgrade, UpgradeError};
use crate::config::Config;
use crate::config::difference::{Fixed, keep_fixed};
use crate::link::{Link, Network};

/// Why the data plane is not in step.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The tree of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Pinned maps do not fit.
    #[error(transparent)]
    Sizes(#[from] SizesError),
    /// The programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The cookie keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The numbers.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The configuration does not fit the maps.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An interface.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The XDP filter's answers may not arrive.
    #[error(
        "{interface} is a veth, which loses what XDP sends unless its other end has an XDP program too; \
         `xdp_veth = true` says that it has"
    )]
    Deaf {
        /// The interface.
        interface: String,
    },
    /// The XDP filter is for Ethernet.
    #[error("{interface} has no Ethernet header")]
    NoEthernet {
        /// The interface.
        interface: String,
    },
    /// The flows of a former version.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The flows of a former daemon.
    #[error(transparent)]
    Sweep(#[from] SweepError),
}

impl DataplaneError {
    /// Whether the next start will fail for the same reason, unless somebody does something.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Pins(PinsError::OtherVersion { .. })
                | Self::Sizes(SizesError::Layout { .. })
                | Self::Plan(_)
        )
    }
}

/// Sweeps after a change whose findings say nothing yet about what is no longer in use.
const SETTLED: u32 = 1;

/// Whether there was something to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Maps were made.
    Fresh,
    /// Maps of a former daemon go on being used, and the flows in them.
    Adopted,
    /// Maps were made, and flows are carried over from those of an earlier layout.
    Upgraded,
}

/// The kernel side.
pub struct Dataplane {
    pins: Pins,
    programs: Programs,
    tables: ConfigMaps,
    sizes: Sizes,
    keys: KeyRing,
    registry: Registry,
    file: RegistryFile,
    listed: Listed,
    retiring: Retiring,
    expired: Expired,
    weights: Weights,
    /// Sweeps that saw nothing but the present plan at work.
    settled: u32,
    /// What there is little room left for.
    tight: Vec<Occupancy>,
    /// While programs of an earlier layout run behind ours.
    upgrade: Option<Upgrade>,
    /// Whether the maps hold what was planned last: not while they are written, nor when that failed.
    in_step: bool,
    /// The nodes that were planned last.
    planned: Vec<(u16, abi::Node)>,
    /// What this process has attached or taken over.
    attached: BTreeSet<(Side, u32)>,
}

impl Dataplane {
    /// Loads the programs over new maps, or over those that are pinned already. Nothing is attached yet.
    pub fn open(
        object: &[u8],
        config: &Config,
        pins: Pins,
        registry_path: &Path,
    ) -> Result<(Self, Origin), DataplaneError> {
        let predecessor = pins
            .prepare(|version| Predecessor::at(version).is_some())?
            .and_then(|version| Predecessor::at(&version));
        if pins.exists() {
            // Maps of another layout are no interrupted start of ours: whoever left them may have open flows.
            Sizes::of(config).adopt(&pins, object)?;
        }
        if pins.exists() && !is_complete(&pins)? {
            warn!("maps of a start that was interrupted are made anew");
            pins.remove_maps()?;
        }
        let origin = match (pins.exists(), &predecessor) {
            (true, _) => Origin::Adopted,
            (false, Some(_)) => Origin::Upgraded,
            (false, None) => Origin::Fresh,
        };
        let mut sizes = Sizes::of(config).adopt(&pins, object)?;
        if origin == Origin::Adopted {
            let pinned = ConfigMaps::open(&pins)?.settings.get(&0, 0);
            sizes.first_port = pinned.reading(map::SETTINGS)?.first_port;
        } else if let Some(old) = &predecessor {
            // Open flows have their ports already, and all of them must find room.
            (sizes.first_port, sizes.source_ports) = old.ports()?;
            if sizes.flows < old.max_flows() && upgrade::carry::left(old) * 2 > sizes.flows as usize
            {
                sizes.flows = old.max_flows();
            }
        }
        let programs = Programs::load(object, &pins, &sizes)?;
        if origin != Origin::Adopted {
            keys::make_name_secret(&pins)?;
        }
        let mut tables = ConfigMaps::open(&pins)?;
        let registry = match origin {
            Origin::Fresh => {
                fill_hellos(&pins, &sizes)?;
                fill_ports(&pins, &sizes)?;
                KeyRing::fill(&mut tables.cookie_keys)?;
                Registry::default()
            }
            Origin::Upgraded => {
                fill_hellos(&pins, &sizes)?;
                KeyRing::fill(&mut tables.cookie_keys)?;
                match &predecessor {
                    Some(old) => upgrade::numbers(old, registry_path)?,
                    None => Registry::default(),
                }
            }
            Origin::Adopted => match load_registry(registry_path)? {
                Some(registry) => registry,
                None => {
                    warn!(path = %registry_path.display(), "registry lost, made from the maps");
                    let mut sweeper =
                        Sweeper::new(FlowMaps::open(&pins)?, config.entrance.idle_timeout);
                    recover::recover(&tables, &sweeper.sweep()?.in_use)?
                }
            },
        };
        let mut dataplane = Self {
            expired: Expired::open_or_make(&pins, sizes.paths)?,
            pins,
            programs,
            tables,
            sizes,
            keys: KeyRing::default(),
            registry,
            file: RegistryFile::new(registry_path),
            listed: Listed::default(),
            retiring: Retiring::default(),
            weights: Weights::default(),
            settled: 0,
            tight: Vec::new(),
            upgrade: None,
            in_step: true,
            planned: Vec::new(),
            attached: BTreeSet::new(),
        };
        if let Some(old) = predecessor {
            info!(
                from = old.version,
                to = abi::ABI_VERSION,
                flows = upgrade::carry::left(&old),
                "flows of another version are taken over"
            );
            dataplane.upgrade = Some(Upgrade::new(old, &dataplane.pins));
        }
        if origin == Origin::Adopted {
            dataplane.find_left_over()?;
        }
        Ok((dataplane, origin))
    }

    /// Sets what pinned maps fix in a configuration to what they hold. Returns what it said instead.
    pub fn keep_pinned(&self, config: &mut Config) -> Vec<Fixed> {
        let mut running = config.clone();
        let entrance = &mut running.entrance;
        entrance.max_flows = self.sizes.flows;
        entrance.hello_buffers = self.sizes.hellos;
        let span = entrance.source_ports.span();
        entrance.source_ports = Spanned::new(span, self.sizes.ports());
        keep_fixed(&running, config)
    }

    /// What there is little room left for, with what is configured.
    pub fn tight(&self) -> &[Occupancy] {
        &self.tight
    }

    /// The weights that count from the next [`Self::apply`] on.
    pub fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }

    /// Makes other weights count at once, without a look at anything else: only tables of pools that they
    /// change are written, each before its pool turns to it. Returns how many pools did.
    pub fn rebalance(
        &mut self,
        config: &Config,
        weights: Weights,
    ) -> Result<usize, DataplaneError> {
        if weights == self.weights {
            return Ok(0);
        }
        self.weights = weights;
        let mut changed = 0;
        for (number, (_, pool)) in plan::pools(config, &mut self.registry, &self.weights) {
            changed += usize::from(self.tables.pool(number, &pool)?);
        }
        Ok(changed)
    }

    /// Refuses new connections to these pools until then, time of the monotonic clock, and to no other pool.
    pub fn refuse(
        &mut self,
        config: &Config,
        pools: &BTreeSet<&str>,
        until: Duration,
    ) -> Result<(), DataplaneError> {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        for (number, (pool, _)) in plan::pools(config, &mut self.registry, &self.weights) {
            let refused = pools.contains(pool.name.get_ref().as_str());
            self.tables
                .refuse(number, if refused { until } else { 0 })?;
        }
        Ok(())
    }

    /// Attaches to interfaces that are there and not attached yet, tunnels first, so that nodes' answers
    /// are understood before the first client is served; then detaches from those that should not be.
    /// Returns the interfaces that are not there.
    pub fn attach<'a>(
        &mut self,
        config: &'a Config,
        network: &Network,
    ) -> Result<Vec<&'a str>, DataplaneError> {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.prepare()?;
        }
        let tunnels = config
            .entrance
            .tunnels
            .iter()
            .map(|name| (Side::Tunnel, name));
        let public = config
            .entrance
            .public
            .iter()
            .map(|name| (Side::Public, name));
        let mut missing = Vec::new();
        let mut wanted = BTreeSet::new();
        let mut attachments = Vec::new();
        for (side, name) in tunnels.chain(public) {
            let Some(link) = network.link(name.get_ref()) else {
                missing.push(name.get_ref().as_str());
                continue;
            };
            wanted.insert((side, link.ifindex));
            let hook = self.attach_one(side, link)?;
            attachments.push(Attachment {
                interface: link.name.clone(),
                ifindex: link.ifindex,
                side,
                hook,
            });
        }
        self.detach_others(&wanted, network)?;
        self.attached.retain(|place| wanted.contains(place));
        if self.registry.attachments != attachments || self.registry.missing != missing {
            self.registry.attachments = attachments;
            self.registry.missing = missing.iter().map(|name| String::from(*name)).collect();
            self.file.save(&mut self.registry)?;
        }
        Ok(missing)
    }

    /// Interfaces that programs are attached to, as far as this process knows, each with the program's id.
    pub fn places(&self, network: &Network) -> Vec<(Attachment, u32)> {
        let known = self.registry.attachments.iter();
        let known = known.filter(|own| self.attached.contains(&(own.side, own.ifindex)));
        known
            .filter_map(|own| {
                let link = network.link_by_index(own.ifindex)?;
                Some((own.clone(), self.programs.id(own.side, link)?))
            })
            .collect()
    }

    /// Somebody else has detached the program of an interface: nothing says any more that it is there, and the next
    /// [`Self::attach`] attaches it again.
    pub fn lost(&mut self, place: &Attachment) -> Result<(), DataplaneError> {
        self.attached.remove(&(place.side, place.ifindex));
        self.registry.attachments.retain(|own| own != place);
        Ok(self.file.save(&mut self.registry)?)
    }

    fn attach_one(&mut self, side: Side, link: &Link) -> Result<Hook, DataplaneError> {
        if self.attached.contains(&(side, link.ifindex)) {
            let mut known = self.registry.attachments.iter();
            let known = known.find(|own| own.ifindex == link.ifindex && own.side == side);
            if let Some(known) = known {
                return Ok(known.hook);
            }
        }
        let hook = self.programs.attach(side, link)?;
        self.attached.insert((side, link.ifindex));
        info!(
            interface = link.name,
            ifindex = link.ifindex,
            side = side.word(),
            ?hook,
            "attached"
        );
        Ok(hook)
    }

    fn detach_others(
        &mut self,
        wanted: &BTreeSet<(Side, u32)>,
        network: &Network,
    ) -> Result<(), DataplaneError> {
        for (side, ifindex, pin) in self.pins.pinned_links()? {
            if !wanted.contains(&(side, ifindex)) {
                pins::remove_file(&pin)?;
                info!(ifindex, side = side.word(), "detached");
            }
        }
        for old in &self.registry.attachments {
            let still_there = network.link_by_index(old.ifindex);
            if let Some(link) = still_there
                && old.hook == Hook::Clsact
                && !wanted.iter().any(|(_, ifindex)| *ifindex == old.ifindex)
                && attach::detach_clsact(&link.name)
            {
                info!(interface = link.name, side = old.side.word(), "detached");
            }
        }
        let gone = |place, _: &Path| !wanted.contains(&place);
        Ok(self.programs.forget_stages(gone)?)
    }

    /// Attaches the XDP filter to an interface; the one that is attached there is replaced.
    pub fn attach_xdp(&mut self, link: &Link) -> Result<(), DataplaneError> {
        Ok(bpf::xdp::attach_xdp(
            self.programs.xdp()?,
            &self.pins,
            link,
        )?)
    }

    /// Takes it off.
    pub fn detach_xdp(&self, link: &Link) -> Result<(), DataplaneError> {
        Ok(pins::remove_file(&self.pins.xdp_of(link.ifindex)?)?)
    }

    /// Whether it is attached to an interface.
    pub fn has_xdp_filter(&self, link: &Link) -> Result<bool, DataplaneError> {
        let mut attached = self.pins.pinned_xdp()?.into_iter();
        Ok(attached.any(|(ifindex, _)| ifindex == link.ifindex))
    }

    /// Takes it off every interface but these.
    pub fn forget_xdp(&self, but: &[u32]) -> Result<(), DataplaneError> {
        for (ifindex, pin) in self.pins.pinned_xdp()? {
            if !but.contains(&ifindex) {
                pins::remove_file(&pin)?;
            }
        }
        Ok(())
    }

    /// Call once after the first [`Self::attach`]: the new programs' tail-call table replaces the old.
    pub fn publish(&mut self) -> Result<(), DataplaneError> {
        self.programs.publish()?;
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.begin();
        }
        Ok(())
    }

    /// Ends the change from an earlier layout, once every flow is carried over. Call it now and then.
    pub fn follow_upgrade(&mut self, network: &Network) -> Result<(), DataplaneError> {
        let Some(upgrade) = &mut self.upgrade else {
            return Ok(());
        };
        let Some(carried) = upgrade.finished() else {
            return Ok(());
        };
        let lost = upgrade.finish(&mut self.tables, network)?;
        info!(
            moved = carried.moved,
            ended = carried.ended + lost,
            "the former version is gone; its flows go on here"
        );
        self.upgrade = None;
        Ok(())
    }

    /// The change from an earlier layout, while it lasts.
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_ref()
    }

    /// Renews the cookie key whose turn it is. Says whether there was one.
    pub fn rotate_keys(&mut self) -> Result<bool, DataplaneError> {
        Ok(self.keys.rotate(&mut self.tables.cookie_keys)?)
    }

    /// Counts what the sweeper ended, and gives numbers free that nobody uses any more. The sweep that is
    /// under way while the maps change may have passed a flow's place before the flow was made by an
    /// old plan; so numbers are given free by the second sweep after it.
    pub fn swept(&mut self, swept: &Swept) -> Result<(), DataplaneError> {
        for id in self.retiring.finished() {
            self.registry.dirty.remove(&id);
        }
        self.retire(Vec::new())?;
        for (_, flow, why) in &swept.expired {
            self.expired.count(flow.path, *why)?;
        }
        let mut seen_by: Vec<_> = swept.seen_by.iter().collect();
        seen_by.sort_unstable_by_key(|(_, flows)| **flows);
        let most: BTreeMap<u16, u16> = seen_by.into_iter().map(|(own, _)| *own).collect();
        for (node, vip) in most {
            self.tables.prefer(node, vip)?;
        }
        self.settled += 1;
        // Flows that are yet to be carried over use numbers, too.
        if self.in_step && self.settled > SETTLED && self.upgrade.is_none() {
            self.release(&swept.in_use)?;
        }
        Ok(())
    }

    /// Gives numbers free that neither the configuration nor a flow uses.
    pub fn release(&mut self, in_use: &InUse) -> Result<(), DataplaneError> {
        if !self.registry.has_lingering() {
            return Ok(());
        }
        let released = self.registry.release(in_use);
        // A node that leaves the index is unknown to the data path before its number can be given again.
        self.tables.forget(&released)?;
        self.tables.rehome(&self.planned, &self.registry)?;
        Ok(self.file.save(&mut self.registry)?)
    }

    /// What the maps hold may not be what is wanted.
    pub fn mark_dirty(&mut self) {
        self.in_step = false;
    }

    /// Whether the maps hold what was planned last.
    pub fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// What the numbers stand for.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The tree of pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

/// The registry, if there is one that is about these maps. One that says nothing is put aside.
fn load_registry(path: &Path) -> Result<Option<Registry>, RegistryError> {
    match registry::file::load(path) {
        Err(error @ (RegistryError::Damaged { .. } | RegistryError::OtherVersion { .. })) => {
            let aside = registry::file::set_aside(path)?;
            warn!(
                error = &error as &dyn std::error::Error,
                aside = %aside.display(),
                "the registry is put aside"
            );
            Ok(None)
        }
        other => other,
    }
}

/// Settings are written last when maps are made; they tell whether that was finished.
fn is_complete(pins: &Pins) -> Result<bool, MapsError> {
    if pins.pinned_maps().count() < pins::MAPS.len() {
        return Ok(false);
    }
    let tables = ConfigMaps::open(pins)?;
    let settings = found(tables.settings.get(&0, 0)).reading(map::SETTINGS)?;
    Ok(settings.is_some_and(|settings| settings.hellos != 0))
}

/// Ports of a range, each once, from a random one on: nodes may still know connections from those that were used last
/// before this machine was started anew.
fn turned(ports: &RangeInclusive<u16>, random: u64) -> impl Iterator<Item = u16> + use<> {
    let (first, count) = (*ports.start(), ports.len() as u64);
    let start = random.checked_rem(count).unwrap_or_default();
    (0..count).map(move |n| first + ((start + n) % count) as u16)
}

fn fill_hellos(pins: &Pins, sizes: &Sizes) -> Result<(), MapsError> {
    let mut state = FlowMaps::open(pins)?;
    for slot in 0..sizes.hellos {
        state.hello_free.push(slot, 0).writing(map::HELLO_FREE)?;
    }
    Ok(())
}

fn fill_ports(pins: &Pins, sizes: &Sizes) -> Result<(), DataplaneError> {
    let mut state = FlowMaps::open(pins)?;
    for port in turned(&sizes.ports(), keys::random()?) {
        state
            .source_ports
            .push(u32::from(port), 0)
            .writing(map::SOURCE_PORTS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::turned;

    #[test]
    fn ports_start_anywhere_and_come_once_each() {
        for (range, random, first) in [
            (1_024..=1_027, 0, 1_024),
            (1_024..=1_027, 7, 1_027),
            (65_500..=65_535, u64::MAX, 65_500 + (u64::MAX % 36) as u16),
            (9..=9, 5, 9),
        ] {
            let mut ports: Vec<u16> = turned(&range, random).collect();
            assert_eq!(ports.first(), Some(&first));
            ports.sort_unstable();
            assert!(ports.into_iter().eq(range));
        }
    }
}
