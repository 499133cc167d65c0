//! Removes everything: programs, maps, numbers. Open flows end.

use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::IterableMap;
use forwarder_common::abi::{Flow, FlowKey};

use super::DataplaneError;
use super::bpf::attach;
use super::bpf::batch;
use super::bpf::maps::FlowMaps;
use super::bpf::pins::{self, Pins, Side};
use crate::instance::paths::journal_of;
use crate::link::Network;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Links: TCX, and XDP of the XDP filter.
    pub links: usize,
    /// Interfaces that had a filter under clsact.
    pub filters: Vec<String>,
    /// Directories of pinned maps.
    pub versions: usize,
}

/// How many flows would end; `None` if there is no flow table that can be read.
pub fn open_flows(pins: &Pins) -> Option<usize> {
    let state = FlowMaps::open(pins).ok()?;
    let mut count = 0;
    let scan = batch::scan(state.flows.map().fd().as_fd(), |_: FlowKey, _: Flow| {
        count += 1
    });
    scan.ok().map(|()| count)
}

/// Detaches from the public side first: no new connection begins while the rest goes.
pub fn unload(
    pins: &Pins,
    registry_path: &Path,
    network: &Network,
) -> Result<Removed, DataplaneError> {
    let mut removed = Removed::default();
    for (_, pin) in pins.pinned_xdp()? {
        pins::remove_file(&pin)?;
        removed.links += 1;
    }
    let mut links = pins.all_links()?;
    links.sort_unstable_by_key(|(side, ..)| *side != Side::Public);
    for (_, _, pin) in links {
        pins::remove_file(&pin)?;
        removed.links += 1;
    }
    for link in &network.links {
        if attach::detach_clsact(&link.name) {
            removed.filters.push(link.name.clone());
        }
    }
    removed.versions = pins.versions()?.len();
    pins.remove_all()?;
    pins::remove_file(registry_path)?;
    pins::remove_file(&journal_of(registry_path))?;
    Ok(removed)
}
