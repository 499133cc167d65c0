use std::path::Path;

use super::*;
use crate::link::{Link, LinkKind, Route};

const TEXT: &str = r#"
[entrance]
public = ["eth0"]
tunnels = ["wg0"]

[[listener]]
name = "https"
protocol = "tls"
port = 443

[[pool]]
name = "home"
client_address = "transparent"
nodes = ["10.0.0.2:443"]

[[route]]
names = ["www.example.org"]
pool = "home"
"#;

/// What the rules say of an address: that of the longest prefix.
fn says(rules: &SourceRules, ip: &str) -> u32 {
    let ip: IpAddr = ip.parse().unwrap();
    let covering = rules.iter().filter(|(prefix, _)| prefix.contains(&ip));
    let longest = covering.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map_or(source_rule::ELSEWHERE, |(_, kind)| *kind)
}

fn rules(routes: &[(&str, u32)]) -> SourceRules {
    let link = |name: &str, ifindex, addresses: &[&str]| Link {
        name: name.to_owned(),
        ifindex,
        kind: LinkKind::L2,
        wireguard: false,
        mac: None,
        mtu: 1_500,
        up: true,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let route = |(prefix, link): &(&str, u32)| Route {
        prefix: prefix.parse().unwrap(),
        own: *link == 1,
        links: vec![*link],
    };
    let network = Network {
        links: vec![
            link("eth0", 2, &["203.0.113.7", "2001:db8::7"]),
            link("wg0", 3, &["10.0.0.1"]),
        ],
        routes: routes.iter().map(route).collect(),
        ..Network::default()
    };
    let config = crate::config::parse(Path::new("test.toml"), TEXT)
        .config
        .unwrap();
    let node = abi::Node {
        address: address::address("10.0.0.2".parse().unwrap()),
        local: [0; 4],
        port_be: 0,
        mss: 0,
        ifindex: 3,
        link: 0,
        closed: 0,
        first: 0,
        transparent: 0,
        mtu: 0,
        homes: [0; abi::HOMES],
    };
    source_rules(&config, &network, &[], &[(0, node)])
}

#[test]
fn own_nodes_and_what_tunnels_lead_to() {
    let rules = rules(&[
        ("127.0.0.0/8", 1),
        ("203.0.113.255/32", 1),
        ("10.0.0.0/24", 3),
        ("192.0.2.0/28", 3),
        ("203.0.113.0/24", 2),
        ("fd00::/64", 3),
        ("0.0.0.0/0", 2),
    ]);
    for own in [
        "203.0.113.7",
        "2001:db8::7",
        "10.0.0.1",
        "127.1.2.3",
        "203.0.113.255",
    ] {
        assert_eq!(says(&rules, own), source_rule::OWN, "{own}");
    }
    assert_eq!(says(&rules, "10.0.0.2"), source_rule::NODE);
    for inside in ["10.0.0.77", "192.0.2.1", "fd00::9"] {
        assert_eq!(says(&rules, inside), source_rule::TUNNEL, "{inside}");
    }
    for outside in [
        "203.0.113.8",
        "10.0.1.1",
        "192.0.2.16",
        "8.8.8.8",
        "2001:db8::8",
    ] {
        assert_eq!(says(&rules, outside), source_rule::ELSEWHERE, "{outside}");
    }
}

/// The public network is a part of what leads into the tunnel.
#[test]
fn a_longer_prefix_elsewhere_wins() {
    let rules = rules(&[("10.0.0.0/8", 3), ("10.9.0.0/16", 2), ("10.9.7.0/24", 3)]);
    assert_eq!(says(&rules, "10.8.0.1"), source_rule::TUNNEL);
    assert_eq!(says(&rules, "10.9.0.1"), source_rule::ELSEWHERE);
    assert_eq!(says(&rules, "10.9.7.1"), source_rule::TUNNEL);
}

/// Another table sends it elsewhere.
#[test]
fn a_prefix_with_two_ways_is_elsewhere() {
    let rules = rules(&[("198.51.100.0/24", 3), ("198.51.100.0/24", 2)]);
    assert_eq!(says(&rules, "198.51.100.1"), source_rule::ELSEWHERE);
}

#[test]
fn an_exit_node_does_not_make_the_internet_invalid() {
    for exit in [
        &[("0.0.0.0/0", 3), ("::/0", 3)][..],
        &[("0.0.0.0/1", 3), ("128.0.0.0/1", 3), ("2000::/3", 3)],
        // Everything but private addresses, as people write it.
        &[
            ("0.0.0.0/5", 3),
            ("8.0.0.0/7", 3),
            ("11.0.0.0/8", 3),
            ("12.0.0.0/6", 3),
            ("16.0.0.0/4", 3),
            ("32.0.0.0/3", 3),
            ("64.0.0.0/2", 3),
            ("128.0.0.0/3", 3),
            ("198.51.100.0/24", 3),
        ],
    ] {
        let mut routes = exit.to_vec();
        routes.extend([("10.0.0.0/24", 3), ("fd00::/64", 3)]);
        let rules = rules(&routes);
        for client in [
            "8.8.8.8",
            "198.51.100.1",
            "9.9.9.9",
            "2001:db8:1::1",
            "192.168.1.1",
        ] {
            assert_eq!(
                says(&rules, client),
                source_rule::ELSEWHERE,
                "{client} {exit:?}"
            );
        }
        assert_eq!(says(&rules, "10.0.0.9"), source_rule::TUNNEL);
        assert_eq!(says(&rules, "fd00::9"), source_rule::TUNNEL);
    }
}

#[test]
fn keys_are_those_of_mapped_addresses() {
    let of = |text: &str| key(&text.parse().unwrap());
    assert_eq!(of("10.0.0.0/8"), (104, abi::address_v4([10, 0, 0, 0])));
    assert_eq!(of("fd00::/7").0, 7);
}
