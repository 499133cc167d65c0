//! Ways to nodes: routes, WireGuard's AllowedIPs, and what does not matter although one might think so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::catalog::Code;
use super::configuration;
use super::finding::{Finding, Fix};
use super::patient::Patient;
use super::wireguard::WireGuard;
use crate::config::claim;
use crate::config::model::{ClientAddress, Node, Pool};
use crate::config::surroundings::is_tailscale;
use crate::link::driver::Driver;

/// What is known about each tunnel that is WireGuard.
pub type WireGuards = BTreeMap<String, WireGuard>;

/// Asks WireGuard about every tunnel; what is none of its interfaces, or cannot be asked, is a finding.
pub fn wireguards(
    patient: &Patient<'_>,
    drivers: &BTreeMap<String, Driver>,
) -> (WireGuards, Vec<Finding>) {
    let mut all = WireGuards::new();
    let mut findings = Vec::new();
    for name in patient.tunnels().filter(|name| patient.is_there(name)) {
        let driver = drivers.get(name).cloned().unwrap_or_default();
        if !driver.is_tunnel() || is_tailscale(name) {
            continue;
        }
        match WireGuard::of(name) {
            Ok(own) => {
                all.insert(name.to_owned(), own);
            }
            Err(error) => {
                let why = format!("`wg show {name}` does not answer: {error}");
                findings.push(Finding::skipped(Code::AllowedIps, name, why));
            }
        }
    }
    (all, findings)
}

/// Findings about ways to nodes, and the nodes to which none leads. That the kernel has a route is found by
/// `check` and comes in as `lost`.
pub fn judge(
    patient: &Patient<'_>,
    wireguards: &WireGuards,
    lost: &BTreeSet<String>,
) -> (Vec<Finding>, BTreeSet<IpAddr>) {
    let mut findings = Vec::new();
    let mut blocked = BTreeSet::new();
    for (pool, node) in patient.nodes() {
        let ip = node.address.get_ref().ip();
        let Some(tunnel) = patient.tunnel_towards(ip) else {
            blocked.insert(ip);
            continue;
        };
        if lost.contains(&node.name) {
            blocked.insert(ip);
            continue;
        }
        let through = tunnel.name.as_str();
        let source = patient.network.egress.get(&ip).and_then(|way| way.source);
        let source = source.map_or(String::new(), |source| format!(" from {source}"));
        findings.push(Finding::ok(
            Code::NoTunnel,
            node.name.as_str(),
            format!("{ip} by {through}{source}"),
        ));
        if let Some(own) = wireguards.get(through) {
            let (finding, held) = allowed_ips(through, own, node);
            findings.push(finding);
            if !held {
                blocked.insert(ip);
            }
        }
        if pool.client_address == ClientAddress::Transparent && is_tailscale(through) {
            findings.push(behind_tailscale(patient, pool, node, through));
        }
    }
    findings.extend(families(patient));
    findings.extend(transparent(patient));
    findings.push(reverse_path(patient));
    findings.push(forwarding());
    (findings, blocked)
}

fn allowed_ips(through: &str, own: &WireGuard, node: &Node) -> (Finding, bool) {
    let ip = node.address.get_ref().ip();
    let subject = node.name.as_str();
    if let Some(peer) = own.peer_of(ip) {
        let key = peer.key.get(..8).unwrap_or(&peer.key);
        let seen = format!("peer {key}… of {through} holds {ip}");
        return (Finding::ok(Code::AllowedIps, subject, seen), true);
    }
    let seen =
        format!("no peer of {through} has {ip} in its AllowedIPs: WireGuard drops its packets");
    let mut finding = Finding::failure(Code::AllowedIps, subject, seen);
    // Whose address it is, only one peer leaves no doubt about.
    if let [peer] = own.peers.as_slice() {
        finding = finding.fix(Fix::here(format!(
            "wg set {through} peer {} allowed-ips {}",
            peer.key,
            peer.allowed_with(ip)
        )));
    }
    let file = format!(
        "add {ip} to `AllowedIPs` of the node's [Peer] in /etc/wireguard/{through}.conf, then `wg syncconf {through} <(wg-quick strip {through})`"
    );
    (finding.fix(Fix::advice(file)), false)
}

fn behind_tailscale(patient: &Patient<'_>, pool: &Pool, node: &Node, through: &str) -> Finding {
    let seen = format!(
        "pool `{}` keeps clients' addresses, and {through} drops packets with foreign sources",
        pool.name.get_ref()
    );
    let proxy = configuration::line(
        patient.report,
        &pool.name.span(),
        "client_address",
        "\"proxy-v2\"",
    );
    Finding::failure(Code::TransparentTailscale, node.name.as_str(), seen).fix(proxy)
}

/// Clients are connected to nodes of their own family only.
fn families(patient: &Patient<'_>) -> Vec<Finding> {
    let found = claim::check(patient.config, &patient.network);
    found
        .into_iter()
        .map(|own| {
            let seen = format!("{}; {}", own.message, own.label);
            let mut finding = Finding::warning(Code::NodeFamily, "", seen);
            for help in own.help {
                finding = finding.fix(Fix::advice(help));
            }
            finding
        })
        .collect()
}

/// What cannot be seen from here.
fn transparent(patient: &Patient<'_>) -> Vec<Finding> {
    let pools = patient.config.pools.iter();
    let pools = pools.filter(|pool| pool.client_address == ClientAddress::Transparent);
    pools
        .map(|pool| {
            let seen = "the nodes must accept any source in AllowedIPs and send answers back into the tunnel; \
                        that cannot be seen from here (docs/node-transparent.md)";
            Finding::skipped(Code::TransparentReturn, pool.name.get_ref(), seen)
        })
        .collect()
}

/// The kernel uses the larger of `all` and the interface's own value.
fn reverse_path(patient: &Patient<'_>) -> Finding {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<u8>().ok()
    };
    let all = read("all").unwrap_or_default();
    let strict = patient.interfaces().filter(|(_, name)| {
        let own = read(name).unwrap_or_default();
        own.max(all) == 1
    });
    let strict: Vec<_> = strict.map(|(_, name)| name).collect();
    let seen = if strict.is_empty() {
        String::from("not strict")
    } else {
        format!(
            "strict on {}: no harm, packets of flows are taken before it",
            strict.join(", ")
        )
    };
    Finding::ok(Code::ReversePath, "", seen)
}

fn forwarding() -> Finding {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.trim() == "1" { "on" } else { "off" }
    };
    let seen = format!(
        "IPv4 {}, IPv6 {}: not needed, nor are nftables rules and connection tracking, which flows do not pass",
        read("/proc/sys/net/ipv4/ip_forward"),
        read("/proc/sys/net/ipv6/conf/all/forwarding"),
    );
    Finding::ok(Code::Forwarding, "", seen)
}
