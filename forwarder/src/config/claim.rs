//! Which addresses a listener claims.
//!
//! A client is connected to nodes of its own address family only. A family in which no route of the listener has a
//! node is left to the host's stack: its reset makes a client try the other family at once (RFC 8305), which a
//! finished handshake and a refusal after it would not.

use std::net::IpAddr;

use super::diagnostic::Diagnostic;
use super::model::{Config, Node, Pool, Route};
use crate::link::Network;

/// The address families of a listener in which some route of it has a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    /// Those of the listener at this index. A listener without routes has both: it refuses every name.
    pub fn of(config: &Config, listener: usize) -> Self {
        let mut routed = false;
        let mut own = Self {
            v4: false,
            v6: false,
        };
        for route in &config.routes {
            if !route.listeners.contains(&listener) {
                continue;
            }
            routed = true;
            let pool = &config.pools[route.pool];
            own.v4 |= serves(pool, true);
            own.v6 |= serves(pool, false);
            if own.v4 && own.v6 {
                break;
            }
        }
        Self {
            v4: own.v4 || !routed,
            v6: own.v6 || !routed,
        }
    }

    /// Whether the family of an address is among them.
    pub fn hold(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Whether a pool has a node of a family.
pub fn serves(pool: &Pool, v4: bool) -> bool {
    let is_met = |node: &Node| node.address.get_ref().is_ipv4() == v4;
    pool.nodes.iter().any(is_met)
}

/// The addresses of the listener at this index, claimed or not: those it lists, or all of the public interfaces.
pub fn listed(config: &Config, network: &Network, listener: usize) -> Vec<IpAddr> {
    match &config.listeners[listener].addresses {
        Some(listed) => listed.iter().map(|ip| *ip.get_ref()).collect(),
        None => {
            let public = config.entrance.public.iter();
            network.addresses(public.map(|name| name.get_ref().as_str()))
        }
    }
}

/// The addresses that the listener at this index claims.
pub fn claimed(config: &Config, network: &Network, listener: usize) -> Vec<IpAddr> {
    let families = Families::of(config, listener);
    let mut all = listed(config, network, listener);
    all.retain(|ip| families.hold(*ip));
    all
}

/// Routes that a warning names.
const ROUTES: usize = 5;

/// Warnings about families that no node, or not every route, serves.
pub fn check(config: &Config, network: &Network) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (at, listener) in config.listeners.iter().enumerate() {
        let families = Families::of(config, at);
        let listed = listed(config, network, at);
        for v4 in [true, false] {
            let Some(address) = listed.iter().find(|ip| ip.is_ipv4() == v4) else {
                continue;
            };
            let lacking: Vec<&Route> = config
                .routes
                .iter()
                .map(std::convert::AsRef::as_ref)
                .filter(|route| route.listeners.contains(&at))
                .filter(|route| !serves(&config.pools[route.pool], v4))
                .collect();
            let name = &listener.name;
            findings.extend(if !families.hold(*address) {
                Some(not_claimed(name.get_ref(), name.span(), v4))
            } else {
                (!lacking.is_empty()).then(|| not_served(config, name.get_ref(), &lacking, v4))
            });
        }
    }
    findings
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn not_claimed(listener: &str, span: std::ops::Range<usize>, v4: bool) -> Diagnostic {
    let (own, other) = (family(v4), family(!v4));
    Diagnostic::warning(
        "family-not-claimed",
        span,
        format!(
            "listener `{listener}` does not claim {own}: no node behind it has an {own} address"
        ),
    )
    .label(format!(
        "{own} clients reach this machine's own stack; its reset makes them try {other}"
    ))
    .help(format!(
        "add the nodes' {own} addresses inside the tunnel to `nodes`, or leave {own} out of DNS"
    ))
}

fn not_served(config: &Config, listener: &str, routes: &[&Route], v4: bool) -> Diagnostic {
    let own = family(v4);
    let named = routes.iter().take(ROUTES);
    let named: Vec<_> = named
        .filter_map(|route| Some(format!("`{}`", route.names.first()?)))
        .collect();
    let more = match routes.len().saturating_sub(ROUTES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let pool = &config.pools[routes[0].pool].name;
    Diagnostic::warning(
        "family-not-served",
        pool.span(),
        format!(
            "{own} clients of {}{more} are refused: no node of the pool has an {own} address",
            named.join(", ")
        ),
    )
    .label(format!(
        "listener `{listener}` claims {own} because other routes have such nodes"
    ))
    .help(format!(
        "add the nodes' {own} addresses inside the tunnel to `nodes`, or leave {own} out of DNS for these names"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn families(nodes: &[&str]) -> (bool, bool) {
        let mut text = String::from(
            "[entrance]\npublic = ['eth0']\ntunnels = ['wg0']\n[[listener]]\nname = 'https'\nprotocol = 'tls'\nport = 443\n",
        );
        for (at, nodes) in nodes.iter().enumerate() {
            text += &format!(
                "[[pool]]\nname = 'p{at}'\nclient_address = 'masquerade'\nnodes = [{nodes}]\n[[route]]\nnames = ['{at}.example.org']\npool = 'p{at}'\n"
            );
        }
        let outcome = crate::config::parse(Path::new("test.toml"), text);
        let own = Families::of(&outcome.config.unwrap(), 0);
        let hold = |ip: &str| own.hold(ip.parse().unwrap());
        (hold("203.0.113.7"), hold("2001:db8::7"))
    }

    #[test]
    fn a_family_is_claimed_where_some_route_has_a_node_of_it() {
        assert_eq!(families(&["'10.0.0.2:443'"]), (true, false));
        assert_eq!(families(&["'[fd00::2]:443'"]), (false, true));
        assert_eq!(
            families(&["'10.0.0.2:443'", "'[fd00::2]:443'"]),
            (true, true)
        );
        assert_eq!(
            families(&["'10.0.0.2:443', '[fd00::2]:443'", "'10.0.0.3:443'"]),
            (true, true)
        );
        assert_eq!(families(&[]), (true, true), "no route: all is refused");
    }
}
