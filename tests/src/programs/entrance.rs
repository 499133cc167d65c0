//! The entrance of every bench: three listeners, a pool for each mode, three nodes of each address family.

use std::net::{IpAddr, SocketAddr};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, MapData};
use forwarder_common::abi::{
    Address, Endpoint, MaglevTable, NameEntry, Path, Pool, Settings, Vip, address_v4, address_v6,
    balance, events, slot,
};
use forwarder_common::name::{Pattern, PatternKind};
use forwarder_common::name_key;

use super::maps::Maps;
use super::shape::{Mode, Refusal};

/// The names of all listeners.
pub const NAME_TABLE: u16 = 7;
/// SipHash key of the names.
pub(super) const NAME_SECRET: [u64; 2] = [0x6e61_6d65, 0x7365_6372_6574];
/// Paths of each route: as many as there are nodes, rounded up.
pub const PATHS_PER_ROUTE: u32 = 8;
/// Nodes of each address family.
pub const NODES: u32 = 3;
/// Keys of the cookies, slot by slot.
pub const COOKIE_KEYS: [[u64; 2]; 4] = [[11, 12], [21, 22], [31, 32], [41, 42]];
/// The first source port of the tunnel side.
pub const FIRST_SOURCE_PORT: u32 = 2_000;

/// An address as the maps hold it.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => address_v4(ip.octets()),
        IpAddr::V6(ip) => address_v6(ip.octets()),
    }
}

pub(super) fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint::new(address(at.ip()), at.port().to_be())
}

pub(super) fn vip(v6: bool, refusal: Refusal) -> SocketAddr {
    let ip = if v6 {
        "2001:db8:ffff::7"
    } else {
        "203.0.113.7"
    };
    SocketAddr::new(ip.parse().expect("an address"), 443 + refusal.listener())
}

pub(super) fn vip_number(v6: bool, refusal: Refusal) -> u16 {
    2 * refusal.listener() + u16::from(v6)
}

pub(super) fn node_address(number: u32) -> SocketAddr {
    let text = if number < NODES {
        format!("8.0.10.{}:8443", number + 1)
    } else {
        format!("[fd00:0:86dd::{}]:8443", number - NODES + 1)
    };
    text.parse().expect("an address")
}

pub(super) fn local(v6: bool) -> IpAddr {
    let text = if v6 { "fd00:0:86dd::99" } else { "8.0.10.99" };
    text.parse().expect("an address")
}

/// Enters a claimed address and port.
pub(super) fn claim(maps: &mut Maps, at: SocketAddr, number: u32) {
    let key = endpoint(at);
    maps.vip_index.insert(key, number, 0).expect("VIP_INDEX");
    take_slot(&mut maps.vip_slots, &key, number);
}

fn take_slot(slots: &mut Array<MapData, u32>, key: &Endpoint, number: u32) {
    let at = slot::of(&key.address, key.port_be);
    let present = slots.get(&at, 0).expect("a slot");
    let with = slot::with(present, number);
    slots.set(at, with, 0).expect("a slot");
}

/// Three listeners that share names, a pool for each mode, and three nodes of each family in all of them.
pub(super) fn fill(maps: &mut Maps, flows: u32, hellos: u32, ports: u32) {
    for refusal in Refusal::ALL {
        for v6 in [false, true] {
            let (at, number) = (vip(v6, refusal), vip_number(v6, refusal));
            let entry = Vip {
                address: address(at.ip()),
                port_be: at.port().to_be(),
                listener: refusal.listener(),
                table: NAME_TABLE,
                on_refuse: refusal.number(),
                closed: 0,
                mss: if v6 { 1_360 } else { 1_380 },
                pad2: [0; 3],
                ifindex: 0,
                pad3: 0,
            };
            maps.vips.set(u32::from(number), entry, 0).expect("VIPS");
            claim(maps, at, u32::from(number));
        }
    }
    let half = |first| {
        let mut half = [0; 1_024];
        half[..forwarder_common::maglev::TABLE_SIZE].fill(first);
        half
    };
    let table = MaglevTable {
        v4: half(0),
        v6: half(NODES as u16),
    };
    maps.maglev.set(0, table, 0).expect("MAGLEV");
    for number in 0..2 * NODES {
        let key = endpoint(node_address(number));
        maps.node_index.insert(key, number, 0).expect("NODE_INDEX");
        take_slot(&mut maps.node_slots, &key, number);
    }
    for mode in Mode::ALL {
        let number = u16::from(mode.number());
        pool(maps, number, 2 * NODES as u16, mode);
        name(maps, mode.name(), number, number);
    }
    // A pool without nodes, and a wildcard.
    pool(maps, 3, 0, Mode::Transparent);
    name(maps, "empty.example.org", 3, 3);
    name(maps, "*.wild.example.org", 0, 0);
    for (slot, key) in (0..).zip(COOKIE_KEYS) {
        maps.cookie_keys.set(slot, key, 0).expect("COOKIE_KEYS");
    }
    for slot in 0..hellos {
        maps.hello_free.push(slot, 0).expect("HELLO_FREE");
    }
    for port in 0..ports {
        maps.source_ports
            .push(FIRST_SOURCE_PORT + port, 0)
            .expect("SOURCE_PORTS");
    }
    let settings = Settings {
        name_secret: NAME_SECRET,
        reset_interval_ns: 0,
        reset_fill_ns: 0,
        syn_interval_us: 60_000_000,
        syns_per_node: 2,
        hello_steal_ms: 60_000,
        hello_timeout_ms: 60_000,
        events: events::FLOWS | events::REFUSALS,
        hellos,
        flows,
        flows_per_source: 0,
        first_port: FIRST_SOURCE_PORT,
        predecessor: 0,
    };
    maps.settings.set(0, settings, 0).expect("SETTINGS");
}

pub(super) fn pool(maps: &mut Maps, number: u16, nodes: u16, mode: Mode) {
    let pool = Pool {
        maglev: 0,
        nodes,
        client_address: mode.number(),
        balance: balance::SOURCE,
        refuse_until_ns: 0,
    };
    maps.pools.set(u32::from(number), pool, 0).expect("POOLS");
    for node in 0..nodes {
        let path = Path {
            listener: 0,
            route: number,
            pool: number,
            node,
            client_address: mode.number(),
            pad: [0; 7],
        };
        let index = u32::from(number) * PATHS_PER_ROUTE + u32::from(node);
        maps.paths.set(index, path, 0).expect("PATHS");
    }
}

pub(super) fn name(maps: &mut Maps, text: &str, pool: u16, route: u16) {
    let entry = NameEntry {
        name: 100 + u32::from(route),
        path_base: route * PATHS_PER_ROUTE as u16,
        pool,
    };
    name_in(maps, NAME_TABLE, text, entry);
}

/// Lists a name or a wildcard in a table.
pub(super) fn name_in(maps: &mut Maps, table: u16, text: &str, entry: NameEntry) {
    let pattern = Pattern::<String>::parse(text).expect("a pattern");
    if pattern.kind() == PatternKind::Exact {
        let key = name_key::of(NAME_SECRET, table, pattern.name());
        maps.names.insert(key, entry, 0).expect("NAMES");
        return;
    }
    let (bits, key) = pattern.key(table);
    maps.wildcards
        .insert(&Key::new(bits, key), entry, 0)
        .expect("WILDCARDS");
}
