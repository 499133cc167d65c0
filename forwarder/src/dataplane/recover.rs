//! Makes a registry from the maps when its file is lost while they are pinned.
//!
//! Addresses are in the maps and keep their numbers. What flows use beyond that (paths, names) is entered as
//! lingering, under made-up names, so that no flow is led astray; it is released with the last of them.

use std::net::SocketAddr;

use forwarder_common::abi::map;

use super::registry::{InUse, PoolKey, Registry, RouteKey, TableState};
use crate::config::model::ClientAddress;
use crate::dataplane::address::ip;
use crate::dataplane::bpf::maps::{MapsError, OfMap, found};
use crate::dataplane::config_maps::ConfigMaps;

/// A registry for maps that `in_use` says flows use.
pub fn recover(tables: &ConfigMaps, in_use: &InUse) -> Result<Registry, MapsError> {
    let mut registry = Registry::default();
    for entry in tables.vip_index.iter() {
        let (key, index) = entry.reading(map::VIP_INDEX)?;
        let place = (ip(&key.address), u16::from_be(key.port_be));
        registry.vips.restore(index as usize, place);
        let vip = found(tables.vips.get(&index, 0)).reading(map::VIPS)?;
        if let Some(vip) = vip.filter(|vip| vip.closed == 0) {
            // No digest matches, so the names are written anew, under another id.
            let state = TableState {
                id: vip.table,
                digest: 0,
            };
            registry.tables.insert(vip.listener, state);
        }
    }
    for number in &in_use.vips {
        let vip = found(tables.vips.get(&u32::from(*number), 0)).reading(map::VIPS)?;
        if let Some(vip) = vip {
            // Those that are claimed are known already.
            let place = (ip(&vip.address), u16::from_be(vip.port_be));
            registry.vips.restore(usize::from(*number), place);
        }
    }
    for entry in tables.node_index.iter() {
        let (key, index) = entry.reading(map::NODE_INDEX)?;
        let address = SocketAddr::new(ip(&key.address), u16::from_be(key.port_be));
        registry.nodes.restore(index as usize, address);
    }
    for path in &in_use.paths {
        let value = found(tables.paths.get(&u32::from(*path), 0)).reading(map::PATHS)?;
        if let Some(value) = value {
            registry.restore_path(*path, value.listener, value.route, value.pool, value.node);
            let mode = client_address(value.client_address)?;
            restore_names(&mut registry, value.listener, value.route, value.pool, mode);
        }
    }
    for name in &in_use.names {
        registry
            .names
            .restore(*name, format!("(unknown name {name})"));
    }
    Ok(registry)
}

/// What a number among [`map::PATHS`] stands for.
pub(crate) fn client_address(number: u8) -> Result<ClientAddress, MapsError> {
    ClientAddress::from_number(number).ok_or(MapsError::Value {
        name: map::PATHS,
        value: number,
    })
}

/// Enters what a flow uses under made-up names.
pub(crate) fn restore_names(
    registry: &mut Registry,
    listener: u16,
    route: u16,
    pool: u16,
    client_address: ClientAddress,
) {
    let unknown = |what: &str, number: u16| format!("(unknown {what} {number})");
    registry
        .listeners
        .restore(listener.into(), unknown("listener", listener));
    let route_key = RouteKey {
        first_name: unknown("route", route),
        pool: unknown("pool", pool),
        listeners: Vec::new(),
    };
    registry.routes.restore(route.into(), route_key);
    let pool_key = PoolKey {
        name: unknown("pool", pool),
        client_address,
        nodes: Vec::new(),
    };
    registry.pools.restore(pool.into(), pool_key);
}
