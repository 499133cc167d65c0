//! Numbers from the maps of an earlier layout, whose registry was lost.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use aya::maps::{Array, HashMap, IterableMap, MapData};
use forwarder_common::abi::map;

use super::carry::CarryError;
use super::error::UpgradeError;
use super::predecessor::Predecessor;
use super::v5;
use crate::dataplane::address::ip;
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::maps::{OfMap, found};
use crate::dataplane::recover::{client_address, restore_names};
use crate::dataplane::registry::Registry;

/// A registry of what the flows there use.
pub fn recover(old: &Predecessor) -> Result<Registry, UpgradeError> {
    let vips: Array<MapData, v5::Vip> = old.open(map::VIPS)?;
    let paths: Array<MapData, v5::Path> = old.open(map::PATHS)?;
    let nodes: HashMap<MapData, v5::Endpoint, u32> = old.open(map::NODE_INDEX)?;
    let mut flows = Vec::new();
    let maps = old.maps()?;
    batch::scan(
        maps.flows.map().fd().as_fd(),
        |key: v5::FlowKey, flow: v5::Flow| {
            flows.push((key.vip, flow.path, flow.name, flow.client_address));
        },
    )
    .map_err(|source| CarryError::List {
        name: map::FLOWS,
        source,
    })?;
    let mut registry = Registry::default();
    for entry in nodes.iter() {
        let (key, number) = entry.reading(map::NODE_INDEX)?;
        let address = SocketAddr::new(ip(&key.address), u16::from_be(key.port_be));
        registry.nodes.restore(number as usize, address);
    }
    flows.sort_unstable();
    flows.dedup();
    for (vip, path, name, mode) in flows {
        if let Some(own) = found(vips.get(&u32::from(vip), 0)).reading(map::VIPS)? {
            let place = (ip(&own.address), u16::from_be(own.port_be));
            registry.vips.restore(usize::from(vip), place);
        }
        if registry.path(path).is_none()
            && let Some(own) = found(paths.get(&u32::from(path), 0)).reading(map::PATHS)?
        {
            registry.restore_path(path, own.listener, own.route, own.pool, own.node);
            let mode = client_address(mode)?;
            restore_names(&mut registry, own.listener, own.route, own.pool, mode);
        }
        registry
            .names
            .restore(name, format!("(unknown name {name})"));
    }
    Ok(registry)
}
