//! Which addresses nobody out there has: our own, the nodes', and those that are reached by a tunnel. A connection
//! from one of them that comes in by a public interface is a forged one; a node would take it for somebody it trusts.
//!
//! The longest prefix decides, as it does for routes. A default route by a tunnel, or half the internet by one (an exit
//! node), says nothing about who is out there: then only its private prefixes count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use forwarder_common::abi::{self, SourceRule, source_rule};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Config;
use crate::dataplane::address;
use crate::link::Network;

/// The rules by prefix: what the map holds.
pub type SourceRules = BTreeMap<IpNet, u32>;

/// Room of the map. Where there are more prefixes, those of routes are left out.
pub const ROOM: usize = 4_096;

/// Plans the rules for these claimed addresses and nodes.
pub fn source_rules(
    config: &Config,
    network: &Network,
    vips: &[(u16, abi::Vip)],
    nodes: &[(u16, abi::Node)],
) -> SourceRules {
    let mut rules = SourceRules::new();
    let vips = vips.iter().map(|(_, vip)| address::ip(&vip.address));
    let links = network.links.iter().flat_map(|link| link.addresses.clone());
    let own = network.routes.iter().filter(|route| route.own);
    for prefix in own.map(|route| route.prefix) {
        rules.insert(prefix, source_rule::OWN);
    }
    for ip in vips.chain(links) {
        rules.insert(IpNet::from(ip), source_rule::OWN);
    }
    for (_, node) in nodes {
        let ip = IpNet::from(address::ip(&node.address));
        rules.entry(ip).or_insert(source_rule::NODE);
    }
    let routed = routed(config, network);
    if rules.len() + routed.len() > ROOM {
        let (room, routes) = (ROOM, routed.len());
        tracing::warn!(
            room,
            routes,
            "too many routes: sources that tunnels lead to are not refused"
        );
        return rules;
    }
    for (prefix, kind) in routed {
        rules.entry(prefix).or_insert(kind);
    }
    rules
}

/// The prefixes that lead into tunnels, and those inside them that do not.
fn routed(config: &Config, network: &Network) -> SourceRules {
    let names = config.entrance.tunnels.iter();
    let links = names.filter_map(|name| network.link(name.get_ref()));
    let tunnels: BTreeSet<u32> = links.map(|link| link.ifindex).collect();
    // A prefix that another table sends elsewhere may be somebody out there's.
    let mut by_tunnel: BTreeMap<IpNet, bool> = BTreeMap::new();
    for route in network.routes.iter().filter(|route| !route.own) {
        let inside =
            !route.links.is_empty() && route.links.iter().all(|link| tunnels.contains(link));
        *by_tunnel.entry(route.prefix).or_insert(true) &= inside;
    }
    let mut inside: BTreeSet<IpNet> = by_tunnel
        .iter()
        .filter(|(prefix, inside)| **inside && prefix.prefix_len() > 0)
        .map(|(prefix, _)| *prefix)
        .collect();
    for v4 in [true, false] {
        let of_family = |prefix: &IpNet| prefix.addr().is_ipv4() == v4;
        if is_most_of_the_internet(inside.iter().filter(|prefix| of_family(prefix))) {
            inside.retain(|prefix| !of_family(prefix) || is_private(prefix));
        }
    }
    let elsewhere = by_tunnel
        .iter()
        .filter(|(prefix, own)| !**own && inside.iter().any(|net| net.contains(*prefix)))
        .map(|(prefix, _)| (*prefix, source_rule::ELSEWHERE));
    let elsewhere: Vec<_> = elsewhere.collect();
    let tunnel = inside.iter().map(|prefix| (*prefix, source_rule::TUNNEL));
    tunnel.chain(elsewhere).collect()
}

/// Whether prefixes of one family cover a quarter or more of its addresses: of all IPv4, or of what IPv6 has given away
/// (2000::/3).
fn is_most_of_the_internet<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> bool {
    let mut covered = 0_u128;
    for prefix in prefixes.filter(|prefix| !is_private(prefix)) {
        let (host_bits, quarter) = match prefix {
            IpNet::V4(net) => (32 - net.prefix_len(), 30),
            IpNet::V6(net) => (128 - net.prefix_len(), 123),
        };
        // In units of 2^-32 of a quarter, so that a sum of many does not overflow.
        covered += 1_u128 << (host_bits + 32_u8).saturating_sub(quarter).min(100);
    }
    covered >= 1 << 32
}

/// Prefixes whose addresses mean nothing on the internet.
fn is_private(prefix: &IpNet) -> bool {
    let v4 = [
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
    ];
    let v6 = [(0xfc00, 7), (0xfe80, 10)];
    match prefix {
        IpNet::V4(net) => v4.iter().any(|(octets, length)| {
            Ipv4Net::new((*octets).into(), *length).is_ok_and(|private| private.contains(net))
        }),
        IpNet::V6(net) => v6.iter().any(|(first, length)| {
            Ipv6Net::new([*first, 0, 0, 0, 0, 0, 0, 0].into(), *length)
                .is_ok_and(|private| private.contains(net))
        }),
    }
}

/// Length in bits and address of a prefix, as the map's key has them.
pub fn key(prefix: &IpNet) -> (u32, abi::Address) {
    let before = match prefix.addr() {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    let bits = before + u32::from(prefix.prefix_len());
    (bits, address::address(prefix.addr()))
}

/// The map's value.
pub fn value(kind: u32) -> SourceRule {
    SourceRule { kind, pad: 0 }
}

#[cfg(test)]
mod tests;
