//! What a valid configuration meets on this machine: interfaces that are missing, nodes that no tunnel
//! leads to, ports that are taken. All of it may change while the forwarder runs, hence warnings only.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_spanned::Spanned;

use super::claim;
use super::diagnostic::{Diagnostic, Span};
use super::model::{ClientAddress, Config, Node, Pool};
use super::suggest;
use crate::link::{LinkKind, Network};

/// Where the kernel says which ports it gives to outgoing connections.
const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Below this an interface cannot carry IPv6 (RFC 8200, section 5), nor a replayed hello.
const LEAST_MTU: u32 = 1_280;

/// What WireGuard gives its interfaces where the internet has 1500.
const USUAL_MTU: u32 = 1_420;

/// What the checks look at.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Interfaces, and routes to every node.
    pub network: Network,
    /// Ports of the machine's own outgoing connections, if they could be read.
    pub local_ports: Option<RangeInclusive<u16>>,
}

impl Surroundings {
    /// The kernel's range of ports for outgoing connections.
    pub fn local_ports() -> Option<RangeInclusive<u16>> {
        let text = std::fs::read_to_string(LOCAL_PORT_RANGE).ok()?;
        let (first, last) = text.trim().split_once(char::is_whitespace)?;
        Some(first.parse().ok()?..=last.trim().parse().ok()?)
    }
}

/// Every node address once: what a survey has to ask routes for.
pub fn destinations(config: &Config) -> impl Iterator<Item = IpAddr> {
    let nodes = config.pools.iter().flat_map(|pool| &pool.nodes);
    let mut all: Vec<_> = nodes.map(|node| node.address.get_ref().ip()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// Warnings about `config` on this machine.
pub fn check(config: &Config, surroundings: &Surroundings) -> Vec<Diagnostic> {
    let network = &surroundings.network;
    let mut findings = Vec::new();
    for name in config
        .entrance
        .public
        .iter()
        .chain(&config.entrance.tunnels)
    {
        findings.extend(interface(name, network));
    }
    for listener in &config.listeners {
        match &listener.addresses {
            None => findings.extend(no_public_address(config, &listener.name, network)),
            Some(addresses) => {
                let foreign = addresses
                    .iter()
                    .filter_map(|a| foreign_address(config, a, network));
                findings.extend(foreign);
            }
        }
    }
    findings.extend(claim::check(config, network));
    for pool in &config.pools {
        findings.extend(
            pool.nodes
                .iter()
                .filter_map(|node| way(config, pool, node, network)),
        );
    }
    if let Some(local) = &surroundings.local_ports {
        findings.extend(source_ports(config, local));
    }
    findings
}

fn interface(name: &Spanned<String>, network: &Network) -> Option<Diagnostic> {
    let warn = |code, message: String| Diagnostic::warning(code, name.span(), message);
    let text = name.get_ref();
    let Some(link) = network.link(text) else {
        let known = network.links.iter().map(|link| link.name.as_str());
        let known = known.filter(|known| *known != "lo");
        return Some(
            warn(
                "missing-interface",
                format!("there is no interface `{text}` now"),
            )
            .label("it is used as soon as it appears")
            .suggest(suggest::closest(text, known.clone()))
            .help(format!("this machine has {}", suggest::alternatives(known))),
        );
    };
    if link.kind == LinkKind::Unsupported || text == "lo" {
        return Some(
            warn("unsupported-interface", format!("`{text}` cannot be used"))
                .label("neither Ethernet nor plain IP")
                .help("use an Ethernet interface, or a tunnel such as WireGuard"),
        );
    }
    if !link.up {
        return Some(
            warn("interface-down", format!("`{text}` is down"))
                .command(format!("ip link set dev {text} up")),
        );
    }
    (link.mtu < LEAST_MTU).then(|| {
        warn("small-mtu", format!("`{text}` has an MTU of {}", link.mtu))
            .label("too small for IPv6 and for whole ClientHellos")
            .command(format!("ip link set dev {text} mtu {USUAL_MTU}"))
    })
}

/// A listener without `addresses` while no public interface has one.
fn no_public_address(
    config: &Config,
    listener: &Spanned<String>,
    network: &Network,
) -> Option<Diagnostic> {
    let public = config
        .entrance
        .public
        .iter()
        .map(|name| name.get_ref().as_str());
    network.addresses(public).is_empty().then(|| {
        Diagnostic::warning(
            "no-public-address",
            listener.span(),
            format!("listener `{}` has no address now", listener.get_ref()),
        )
        .label("no public interface has a global address")
        .help("give a public interface an address, or name `addresses` here")
    })
}

fn foreign_address(
    config: &Config,
    address: &Spanned<IpAddr>,
    network: &Network,
) -> Option<Diagnostic> {
    let public = config
        .entrance
        .public
        .iter()
        .map(|name| name.get_ref().as_str());
    let own = network.addresses(public);
    (!own.contains(address.get_ref())).then(|| {
        let text = address.get_ref().to_string();
        let known: Vec<_> = own.iter().map(IpAddr::to_string).collect();
        let finding = Diagnostic::warning(
            "foreign-address",
            address.span(),
            format!("no public interface has the address {text} now"),
        )
        .label("right for a floating or routed address, otherwise nobody arrives here");
        match suggest::closest(&text, known.iter().map(String::as_str)) {
            Some(meant) => finding.suggest(Some(meant)),
            None if known.is_empty() => finding,
            None => finding.help(format!(
                "theirs are {}",
                suggest::alternatives(known.iter().map(String::as_str))
            )),
        }
    })
}

/// Whether a tunnel leads to the node, and whether its address in it can be used as a source.
fn way(config: &Config, pool: &Pool, node: &Node, network: &Network) -> Option<Diagnostic> {
    let span: Span = node.address.span();
    let address = node.address.get_ref();
    let warn = |code, message: String| Diagnostic::warning(code, span.clone(), message);
    let tunnels = || {
        let names = config.entrance.tunnels.iter();
        suggest::alternatives(names.map(|name| name.get_ref().as_str()))
    };
    let title = format!("no tunnel leads to node `{}`", node.name);
    let first_tunnel = config
        .entrance
        .tunnels
        .first()
        .map(|name| name.get_ref().as_str());
    let add_route = format!(
        "ip route replace {}/{} dev {}",
        address.ip(),
        if address.is_ipv4() { 32 } else { 128 },
        first_tunnel.unwrap_or("wg0")
    );
    let absent = config.entrance.tunnels.iter().map(Spanned::get_ref);
    let absent = absent.filter(|name| network.link(name).is_none_or(|link| !link.up));
    let absent = absent.map(String::as_str).next();
    let Some(egress) = network.egress.get(&address.ip()) else {
        let finding = warn("no-tunnel", title).label("this machine has no route to it");
        return Some(match absent {
            Some(tunnel) => finding.help(up_first(tunnel)),
            None => finding
                .command(add_route)
                .help("or add it to the peer's AllowedIPs"),
        });
    };
    if egress.local {
        return Some(
            warn("local-node", title)
                .label("this is an address of this machine itself")
                .help("a node is another machine, behind a tunnel"),
        );
    }
    let link = network.link_by_index(egress.ifindex);
    let through = link.map_or("?", |link| link.name.as_str());
    if !config
        .entrance
        .tunnels
        .iter()
        .any(|name| name.get_ref() == through)
    {
        let finding = warn("no-tunnel", title).label(format!(
            "packets to it leave by `{through}`, which is not in `tunnels` ({})",
            tunnels()
        ));
        let mut public = config.entrance.public.iter();
        let is_public = public.any(|name| name.get_ref() == through);
        return Some(match absent {
            Some(tunnel) => finding.help(up_first(tunnel)),
            // What faces the internet is no tunnel, whatever else is wrong.
            None if is_public => finding.command(add_route),
            None => finding
                .command(add_route)
                .help(format!("or add `{through}` to `tunnels` if it is one")),
        });
    }
    if pool.client_address == ClientAddress::Transparent && is_tailscale(through) {
        return Some(
            warn(
                "transparent-tailscale",
                format!("clients of node `{}` get no answer", node.name),
            )
            .label(format!(
                "Tailscale drops packets with clients' addresses, and `{through}` leads to it"
            ))
            .related(pool.name.span(), "this pool is `transparent`")
            .help("write `client_address = \"proxy-v2\"`, or `\"masquerade\"` if its server knows no PROXY protocol"),
        );
    }
    let needs_source = pool.client_address != ClientAddress::Transparent;
    let source = egress
        .source
        .filter(|source| source.is_ipv4() == address.is_ipv4());
    (needs_source && source.is_none()).then(|| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        warn(
            "no-source-address",
            format!("no source address towards node `{}`", node.name),
        )
        .label(format!("`{through}` has no {family} address"))
        .help(format!(
            "give `{through}` an {family} address; `proxy-v2` and `masquerade` need one"
        ))
    })
}

fn up_first(tunnel: &str) -> String {
    format!("bring `{tunnel}` up first: the route to the node comes with it")
}

/// Whether an interface is one of Tailscale's, by its usual name.
pub fn is_tailscale(interface: &str) -> bool {
    interface.starts_with("tailscale")
}

fn source_ports(config: &Config, local: &RangeInclusive<u16>) -> Option<Diagnostic> {
    let used = config
        .pools
        .iter()
        .any(|pool| pool.client_address != ClientAddress::Transparent);
    let ports = &config.entrance.source_ports;
    let own = ports.get_ref();
    let overlap = own.start() <= local.end() && local.start() <= own.end();
    (used && overlap).then(|| {
        Diagnostic::warning(
            "source-ports-shared",
            ports.span(),
            format!(
                "source ports {}-{} overlap those of this machine's own connections ({}-{})",
                own.start(),
                own.end(),
                local.start(),
                local.end()
            ),
        )
        .label("a connection of this machine to a node may meet one of a client")
        .help(format!(
            "set `source_ports` below {} or above {}, or change `sysctl net.ipv4.ip_local_port_range`",
            local.start(),
            local.end()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::link::{Egress, Link};

    const TEXT: &str = r#"
        [entrance]
        public = ["eth0"]
        tunnels = ["wg0"]
        [[listener]]
        name = "https"
        protocol = "tls"
        port = 443
        [[pool]]
        name = "k3s"
        client_address = "proxy-v2"
        nodes = ["10.0.0.2:443"]
        [[route]]
        names = ["www.example.org"]
        pool = "k3s"
    "#;

    fn link(name: &str, ifindex: u32, address: &str) -> Link {
        Link {
            name: name.to_owned(),
            ifindex,
            kind: LinkKind::L2,
            wireguard: false,
            mac: None,
            mtu: 1_420,
            up: true,
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn healthy() -> Surroundings {
        let egress = Egress {
            ifindex: 3,
            source: Some("10.0.0.1".parse().unwrap()),
            local: false,
            mtu: None,
        };
        Surroundings {
            network: Network {
                links: vec![link("eth0", 2, "203.0.113.7"), link("wg0", 3, "10.0.0.1")],
                egress: [("10.0.0.2".parse().unwrap(), egress)].into(),
                routes: Vec::new(),
            },
            local_ports: Some(32_768..=60_999),
        }
    }

    fn codes(change: impl FnOnce(&mut Surroundings)) -> Vec<&'static str> {
        let outcome = crate::config::parse(Path::new("test.toml"), TEXT);
        let mut surroundings = healthy();
        change(&mut surroundings);
        let findings = check(&outcome.config.unwrap(), &surroundings);
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_healthy_machine_draws_no_warning() {
        assert_eq!(codes(|_| {}), [""; 0]);
    }

    #[test]
    fn interfaces_are_looked_at() {
        let missing = codes(|s| s.network.links[1].name = "wg1".into());
        assert_eq!(missing, ["missing-interface", "no-tunnel"]);
        assert_eq!(codes(|s| s.network.links[1].up = false), ["interface-down"]);
        assert_eq!(codes(|s| s.network.links[1].mtu = 1_000), ["small-mtu"]);
        let odd = codes(|s| s.network.links[1].kind = LinkKind::Unsupported);
        assert_eq!(odd, ["unsupported-interface"]);
        let bare = codes(|s| s.network.links[0].addresses.clear());
        assert_eq!(bare, ["no-public-address"]);
    }

    #[test]
    fn ways_to_nodes_are_looked_at() {
        assert_eq!(codes(|s| s.network.egress.clear()), ["no-tunnel"]);
        let egress =
            |change: fn(&mut Egress)| codes(|s| s.network.egress.values_mut().for_each(change));
        assert_eq!(egress(|e| e.ifindex = 2), ["no-tunnel"]);
        assert_eq!(egress(|e| e.local = true), ["local-node"]);
        assert_eq!(egress(|e| e.source = None), ["no-source-address"]);
    }

    /// The findings of a changed configuration where clients come by both families: codes and messages.
    fn by_both_families(change: impl Fn(&str) -> String) -> Vec<(&'static str, String)> {
        let outcome = crate::config::parse(Path::new("test.toml"), change(TEXT));
        let mut own = healthy();
        own.network.links[0]
            .addresses
            .push("2001:db8::7".parse().unwrap());
        let six = Egress {
            ifindex: 3,
            source: Some("fd00::1".parse().unwrap()),
            local: false,
            mtu: None,
        };
        own.network.egress.insert("fd00::2".parse().unwrap(), six);
        let findings = check(&outcome.config.unwrap(), &own);
        findings
            .into_iter()
            .map(|finding| (finding.code, finding.message))
            .collect()
    }

    #[test]
    fn a_family_that_nobody_serves_is_told() {
        let found = by_both_families(str::to_owned);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "family-not-claimed");
        assert!(
            found[0].1.contains("`https`") && found[0].1.contains("IPv6"),
            "{found:?}"
        );
        let both = |text: &str| {
            text.replace(
                "[\"10.0.0.2:443\"]",
                "[\"10.0.0.2:443\", \"[fd00::2]:443\"]",
            )
        };
        assert_eq!(by_both_families(both), []);
        let some = by_both_families(|text| {
            both(text)
                + "\n[[pool]]\nname = \"nas\"\nclient_address = \"masquerade\"\nnodes = [\"10.0.0.2:8443\"]\n\
             [[route]]\nnames = [\"nas.example.org\"]\npool = \"nas\"\n"
        });
        assert_eq!(some.len(), 1, "{some:?}");
        assert_eq!(some[0].0, "family-not-served");
        assert!(
            some[0].1.contains("`nas.example.org`"),
            "the route is named: {some:?}"
        );
    }

    #[test]
    fn a_foreign_source_behind_tailscale_is_told() {
        let outcome = |mode: &str| {
            let text = TEXT.replace("wg0", "tailscale0").replace("proxy-v2", mode);
            let config = crate::config::parse(Path::new("test.toml"), text)
                .config
                .unwrap();
            let mut own = healthy();
            own.network.links[1].name = String::from("tailscale0");
            let findings = check(&config, &own);
            findings
                .iter()
                .map(|finding| finding.code)
                .collect::<Vec<_>>()
        };
        assert_eq!(outcome("transparent"), ["transparent-tailscale"]);
        assert_eq!(outcome("proxy-v2"), [""; 0]);
    }

    #[test]
    fn a_missing_interface_is_told_with_those_that_are_there() {
        let text = TEXT.replace("eth0", "ens3");
        let config = crate::config::parse(Path::new("test.toml"), text)
            .config
            .unwrap();
        let findings = check(&config, &healthy());
        let missing = findings.iter().find(|own| own.code == "missing-interface");
        let help = missing.unwrap().help.join("\n");
        assert!(help.contains("`eth0` or `wg0`"), "{help}");
    }

    #[test]
    fn the_public_interface_is_never_advised_as_a_tunnel() {
        let config = crate::config::parse(Path::new("test.toml"), TEXT)
            .config
            .unwrap();
        let advice = |change: &dyn Fn(&mut Surroundings)| {
            let mut own = healthy();
            change(&mut own);
            let findings = check(&config, &own).into_iter();
            let way = findings.filter(|own| own.code == "no-tunnel");
            let advice = way.flat_map(|own| own.help.into_iter().chain(own.commands));
            advice.collect::<Vec<_>>().join("\n")
        };
        let by_public = |own: &mut Surroundings| {
            own.network
                .egress
                .values_mut()
                .for_each(|way| way.ifindex = 2);
        };
        let said = advice(&by_public);
        assert!(
            !said.contains("`eth0`") && said.contains("dev wg0"),
            "{said}"
        );
        let said = advice(&|own| {
            by_public(own);
            own.network.links[1].up = false;
        });
        assert!(said.contains("bring `wg0` up first"), "{said}");
        assert!(!said.contains("ip route"), "{said}");
    }

    #[test]
    fn shared_source_ports_are_found() {
        let shared = codes(|s| s.local_ports = Some(30_000..=60_999));
        assert_eq!(shared, ["source-ports-shared"]);
    }
}
