//! Interfaces, their addresses, and what packets fit through them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::catalog::Code;
use super::configuration;
use super::finding::{Finding, Fix, Verdict};
use super::kernel;
use super::patient::Patient;
use crate::config::Config;
use crate::config::diagnostic::Diagnostic;
use crate::config::suggest;
use crate::link::driver::Driver;
use crate::link::{Link, LinkKind, mss};

/// Around a packet: IPv4, UDP and WireGuard; with IPv6 it is 20 more.
const WIREGUARD_V4: u32 = 60;
/// From here on `rx-gro-list` is for TCP, too.
const TCP_LISTS: (u32, u32) = (6, 10);
/// The ClientHello of a browser that offers a post-quantum key.
const HELLO: u32 = 2_048;

/// Turns a warning of `check` about this machine into a finding; `None` for codes that are looked at
/// elsewhere.
pub fn of_diagnostic(config: &Config, diagnostic: &Diagnostic) -> Option<Finding> {
    let code = Code::from_word(diagnostic.code)?;
    let verdict = match code {
        Code::ForeignAddress => Verdict::Warning,
        _ => Verdict::Failure,
    };
    let seen = match diagnostic.label.as_str() {
        "" => diagnostic.message.clone(),
        label => format!("{}: {label}", diagnostic.message),
    };
    let mut finding = Finding::new(verdict, code, subject(config, diagnostic), seen);
    for command in &diagnostic.commands {
        finding = finding.fix(Fix::here(command.as_str()));
    }
    for help in &diagnostic.help {
        finding = finding.fix(Fix::advice(help.as_str()));
    }
    Some(finding)
}

/// What the bytes that a finding marks name.
fn subject(config: &Config, diagnostic: &Diagnostic) -> String {
    let marked = |span: std::ops::Range<usize>| span == diagnostic.span;
    let entrance = &config.entrance;
    let interfaces = entrance.public.iter().chain(&entrance.tunnels);
    let interfaces = interfaces.map(|own| (own.span(), own.get_ref().clone()));
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|own| (own.name.span(), own.name.get_ref().clone()));
    let nodes = config.pools.iter().flat_map(|pool| &pool.nodes);
    let nodes = nodes.map(|own| (own.address.span(), own.name.clone()));
    let mut all = interfaces.chain(listeners).chain(nodes);
    let found = all.find(|(span, _)| marked(span.clone()));
    found.map(|(_, name)| name).unwrap_or_default()
}

/// Findings about the interfaces that the configuration names.
pub fn judge(patient: &Patient<'_>, drivers: &BTreeMap<String, Driver>) -> Vec<Finding> {
    let entrance = &patient.config.entrance;
    let mut findings = Vec::new();
    for (side, name) in patient.interfaces() {
        match patient.network.link(name) {
            None => findings.push(missing(patient, side, name)),
            Some(link) => {
                let driver = drivers.get(name).cloned().unwrap_or_default();
                findings.push(Finding::ok(
                    Code::Interface,
                    name,
                    describe(side, link, &driver),
                ));
            }
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    for (_, name) in patient.interfaces() {
        let driver = drivers.get(name).filter(|_| patient.is_there(name));
        findings.extend(driver.and_then(|driver| lists(name, driver, &release)));
    }
    for name in entrance.public.iter().map(|name| name.get_ref()) {
        let driver = drivers.get(name).filter(|_| patient.is_there(name));
        findings.extend(driver.map(|driver| native_xdp(name, driver)));
    }
    findings
}

fn describe(side: &str, link: &Link, driver: &Driver) -> String {
    let kind = match link.kind {
        LinkKind::L2 => "Ethernet",
        LinkKind::L3 => "plain IP",
        LinkKind::Unsupported => "of an unsupported kind",
    };
    let addresses: Vec<_> = link.addresses.iter().map(IpAddr::to_string).collect();
    let side = if side == "public" { side } else { "tunnel" };
    format!(
        "{side}, {kind}, {}, MTU {}, driver {}, {} queues, {}",
        if link.up { "up" } else { "down" },
        link.mtu,
        driver.name.as_deref().unwrap_or("unknown"),
        driver.queues,
        if addresses.is_empty() {
            String::from("no address")
        } else {
            addresses.join(" ")
        }
    )
}

/// An interface that is not there: perhaps misspelt, perhaps not started.
fn missing(patient: &Patient<'_>, side: &str, name: &str) -> Finding {
    let seen = "there is no such interface";
    let finding = Finding::failure(Code::MissingInterface, name, seen);
    let entrance = &patient.config.entrance;
    let (key, list) = match side {
        "public" => ("public", &entrance.public),
        _ => ("tunnels", &entrance.tunnels),
    };
    let unused = patient.network.links.iter().map(|link| link.name.as_str());
    let unused = unused.filter(|known| {
        *known != "lo"
            && patient
                .interfaces()
                .all(|(_, configured)| configured != *known)
    });
    if let Some(meant) = suggest::closest(name, unused) {
        let names = list.iter().map(|own| own.get_ref().as_str());
        let names = names.map(|own| if own == name { meant } else { own });
        let value = format!("{:?}", names.collect::<Vec<_>>());
        let span = list.first().map(|own| own.span()).unwrap_or_default();
        return finding.fix(configuration::line(patient.report, &span, key, &value));
    }
    if Path::new(&format!("/etc/wireguard/{name}.conf")).exists() {
        let start = format!("systemctl enable --now wg-quick@{name}");
        return finding.fix(Fix::here(start));
    }
    if name.starts_with("tailscale") {
        return finding.fix(Fix::here(
            "systemctl enable --now tailscaled && tailscale up",
        ));
    }
    finding.fix(Fix::advice(format!(
        "bring `{name}` up, or correct `{key}`; `ip -br link` lists what there is"
    )))
}

/// Of segments that are handed on as a list the programs see the first alone; the others would leave with numbers of
/// the other side.
fn lists(name: &str, driver: &Driver, release: &str) -> Option<Finding> {
    let of_tcp = kernel::parsed(release).is_none_or(|own| own >= TCP_LISTS);
    if driver.lists_segments? && of_tcp {
        let seen = "hands TCP segments on as lists (rx-gro-list), of which only the first can be translated: \
                    transfers stall or break";
        let off = format!("ethtool -K {name} rx-gro-list off");
        return Some(Finding::failure(Code::GroList, name, seen).fix(Fix::here(off)));
    }
    Some(Finding::ok(
        Code::GroList,
        name,
        "hands TCP segments on merged, or one by one",
    ))
}

fn native_xdp(name: &str, driver: &Driver) -> Finding {
    let own = driver.name.as_deref().unwrap_or("unknown");
    match driver.runs_xdp() {
        Some(true) => {
            let note = match own {
                "virtio_net" => {
                    "; it gives up GRO in hardware for it, and takes MTUs up to about 3,500"
                }
                "ena" => "; it needs half of the queues free, and an MTU up to 3,498",
                "bnxt_en" => "; it takes MTUs up to about 3,500",
                _ => "",
            };
            let seen = format!("{own} runs XDP natively{note}");
            Finding::ok(Code::NativeXdp, name, seen)
        }
        Some(false) => Finding::ok(
            Code::NativeXdp,
            name,
            format!("{own} is not known to; the TC hook serves all the same"),
        ),
        None => Finding::skipped(Code::NativeXdp, name, "the driver does not tell its name"),
    }
}

/// Findings about packet sizes. What is too small is found by `check` and comes as a diagnostic.
pub fn sizes(patient: &Patient<'_>, drivers: &BTreeMap<String, Driver>) -> Vec<Finding> {
    let entrance = &patient.config.entrance;
    let link = |name: &serde_spanned::Spanned<String>| patient.network.link(name.get_ref());
    let public = entrance.public.iter().filter_map(link);
    let public = public.map(|link| link.mtu).min();
    let tunnels: Vec<&Link> = entrance.tunnels.iter().filter_map(link).collect();
    let mut findings = Vec::new();
    for tunnel in &tunnels {
        let inside = drivers.get(&tunnel.name).is_some_and(Driver::is_tunnel);
        if let Some(public) = public.filter(|_| inside) {
            findings.push(tunnel_mtu(tunnel, public));
        }
    }
    for pool in &patient.config.pools {
        let nodes = pool.nodes.iter().map(|node| node.address.get_ref().ip());
        let sizes = nodes.filter_map(|ip| Some(mss(patient.mtu_towards(ip)?, ip)));
        if let Some(least) = sizes.min().filter(|least| *least > 0) {
            let segments = HELLO.div_ceil(u32::from(least));
            let seen = format!(
                "clients are told a segment size of at most {least}; a 2 KB hello takes {segments} segments"
            );
            findings.push(Finding::ok(Code::Segments, pool.name.get_ref(), seen));
        }
    }
    findings
}

fn tunnel_mtu(tunnel: &Link, public: u32) -> Finding {
    let (name, mtu) = (tunnel.name.as_str(), tunnel.mtu);
    let room = public.saturating_sub(WIREGUARD_V4);
    if mtu > room {
        let fitting = public.saturating_sub(WIREGUARD_V4 + 20);
        let seen =
            format!("an MTU of {mtu} and WireGuard's 60 bytes do not fit the public {public}");
        return Finding::warning(Code::TunnelMtu, name, seen)
            .fix(Fix::here(format!("ip link set dev {name} mtu {fitting}")));
    }
    let seen = format!("{mtu} in {public}: room for WireGuard's headers");
    Finding::ok(Code::TunnelMtu, name, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_has_to_fit_the_public_interface() {
        let tunnel = |mtu| Link {
            name: String::from("wg0"),
            ifindex: 3,
            kind: LinkKind::L3,
            mtu,
            up: true,
            addresses: Vec::new(),
            wireguard: false,
            mac: None,
        };
        let verdict = |mtu, public| tunnel_mtu(&tunnel(mtu), public).verdict;
        assert_eq!(verdict(1_420, 1_500), Verdict::Ok);
        assert_eq!(verdict(1_440, 1_500), Verdict::Ok, "over IPv4");
        assert_eq!(verdict(1_441, 1_500), Verdict::Warning);
        assert_eq!(verdict(1_420, 1_460), Verdict::Warning);
        let finding = tunnel_mtu(&tunnel(1_420), 1_450);
        assert_eq!(finding.fixes, [Fix::here("ip link set dev wg0 mtu 1370")]);
    }

    #[test]
    fn lists_are_for_nobody_who_translates() {
        let verdict = |lists_segments, release| {
            let driver = Driver {
                lists_segments,
                ..Driver::default()
            };
            lists("eth0", &driver, release).map(|own| own.verdict)
        };
        assert_eq!(verdict(Some(true), "6.12.9-amd64"), Some(Verdict::Failure));
        assert_eq!(
            verdict(Some(true), "6.1.0-40"),
            Some(Verdict::Ok),
            "of UDP only"
        );
        assert_eq!(verdict(Some(false), "6.18.0"), Some(Verdict::Ok));
        assert_eq!(verdict(None, "6.18.0"), None);
    }

    #[test]
    fn drivers_that_take_no_xdp_are_no_failure() {
        let driver = |name: Option<&str>| Driver {
            name: name.map(str::to_owned),
            queues: 1,
            lists_segments: None,
        };
        let verdict = |name| native_xdp("eth0", &driver(name)).verdict;
        assert_eq!(verdict(Some("virtio_net")), Verdict::Ok);
        assert_eq!(verdict(Some("e1000")), Verdict::Ok);
        assert_eq!(verdict(None), Verdict::Skipped);
    }
}
