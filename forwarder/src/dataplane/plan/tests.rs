//! Plans for small configurations on an imagined machine.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::model::Keyword;
use crate::dataplane::address::ip;
use crate::dataplane::recover::restore_names;
use crate::link::{Egress, Link};

const TEXT: &str = r#"
[entrance]
public = ["eth0"]
tunnels = ["wg0", "vx0"]
[[listener]]
name = "https"
protocol = "tls"
port = 443
on_refuse = "reset"
[[pool]]
name = "k3s"
client_address = "proxy-v2"
nodes = ["10.0.0.2:443", { address = "10.1.0.3:8443", weight = 3 }, "[fd00::2]:443"]
[[pool]]
client_address = "transparent"
name = "nas"
balance = "random"
nodes = ["10.0.0.9:443"]
[[route]]
names = ["www.example.org", "*.example.org"]
pool = "k3s"
[[route]]
names = ["nas.example.org"]
pool = "nas"
"#;

fn config(text: &str) -> Config {
    let outcome = crate::config::parse(Path::new("test.toml"), text);
    outcome
        .config
        .unwrap_or_else(|| panic!("{}", outcome.report.render(false)))
}

fn network() -> Network {
    let link = |name: &str, ifindex, kind, mtu, addresses: &[&str]| Link {
        name: name.to_owned(),
        ifindex,
        kind,
        wireguard: false,
        mac: None,
        mtu,
        up: true,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let egress = |to: &str, ifindex, source: &str| {
        let egress = Egress {
            ifindex,
            source: source.parse().ok(),
            local: false,
            mtu: None,
        };
        (to.parse().unwrap(), egress)
    };
    Network {
        links: vec![
            link(
                "eth0",
                2,
                LinkKind::L2,
                1_500,
                &["203.0.113.7", "2001:db8::7"],
            ),
            link("wg0", 3, LinkKind::L3, 1_420, &["10.0.0.1", "fd00::1"]),
            link("vx0", 4, LinkKind::L2, 1_370, &["10.1.0.1"]),
        ],
        egress: [
            egress("10.0.0.2", 3, "10.0.0.1"),
            egress("fd00::2", 3, "fd00::1"),
            egress("10.1.0.3", 4, "10.1.0.1"),
            // Not through a tunnel: by the public interface.
            egress("10.0.0.9", 2, "203.0.113.7"),
        ]
        .into(),
        routes: Vec::new(),
    }
}

fn planned(text: &str, network: &Network, registry: &mut Registry) -> Plan {
    let config = config(text);
    let sizes = Sizes::of(&config);
    plan(&config, network, registry, &sizes, &Weights::default()).unwrap()
}

#[test]
fn nodes_know_their_tunnel() {
    let plan = planned(TEXT, &network(), &mut Registry::default());
    let node = |number: usize| plan.nodes[number].1;
    assert_eq!(plan.nodes.len(), 4);
    assert_eq!(
        (node(0).ifindex, node(0).link, node(0).mss),
        (3, abi::link::L3, 1_380)
    );
    assert_eq!(ip(&node(0).local), "10.0.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(
        (node(1).ifindex, node(1).link, node(1).mss),
        (4, abi::link::L2, 1_330)
    );
    assert_eq!(node(1).port_be, 8_443_u16.to_be());
    assert_eq!((node(2).ifindex, node(2).mss), (3, 1_360));
    assert_eq!(ip(&node(2).address), "fd00::2".parse::<IpAddr>().unwrap());
}

/// A node is at home where clients of its family come in.
#[test]
fn homes_are_the_claimed_addresses_of_the_family() {
    let text = TEXT.replace("proxy-v2", "transparent");
    let plan = planned(&text, &network(), &mut Registry::default());
    let of = |number: u16| {
        let known = plan.vips.iter().find(|(own, _)| *own == number);
        known.expect("a claimed address").1
    };
    for (_, node) in &plan.nodes {
        let homes: Vec<u16> = node
            .homes
            .into_iter()
            .filter(|home| *home != abi::NO_HOME)
            .collect();
        assert!(!homes.is_empty(), "{node:?}");
        let is_of_family = |home: &u16| abi::is_v4(&of(*home).address) == abi::is_v4(&node.address);
        assert!(homes.iter().all(is_of_family), "{node:?}");
    }
}

#[test]
fn a_narrow_public_interface_bounds_segments_too() {
    let mut narrow = network();
    narrow.links[0].mtu = 1_400;
    let plan = planned(TEXT, &narrow, &mut Registry::default());
    assert_eq!(plan.nodes[0].1.mss, 1_360, "by eth0, not wg0");
    assert_eq!(plan.nodes[1].1.mss, 1_330, "by vx0 still");
}

#[test]
fn no_packet_goes_to_a_node_outside_a_tunnel() {
    let plan = planned(TEXT, &network(), &mut Registry::default());
    assert_eq!(plan.nodes[3].1.ifindex, 0, "routed by eth0");
    let mut down = network();
    down.links[1].up = false;
    let plan = planned(TEXT, &down, &mut Registry::default());
    assert_eq!(plan.nodes[0].1.ifindex, 0, "wg0 is down");
    let plan = planned(TEXT, &Network::default(), &mut Registry::default());
    assert!(plan.nodes.iter().all(|(_, node)| node.ifindex == 0));
}

#[test]
fn the_smallest_tunnel_of_a_family_is_advertised() {
    let plan = planned(TEXT, &network(), &mut Registry::default());
    let mss = |number: usize| plan.vips[number].1.mss;
    assert_eq!(plan.vips.len(), 2);
    assert_eq!(
        ip(&plan.vips[0].1.address),
        "203.0.113.7".parse::<IpAddr>().unwrap()
    );
    assert_eq!(mss(0), 1_330, "10.1.0.3 by vx0");
    assert_eq!(mss(1), 1_360, "fd00::2 by wg0");
    let mut unreachable = network();
    unreachable.egress.clear();
    let plan = planned(TEXT, &unreachable, &mut Registry::default());
    assert_eq!(plan.vips[0].1.mss, 1_330, "vx0 is the smallest tunnel");
    assert_eq!(plan.vips[0].1.on_refuse, abi::on_refuse::RESET);
    assert_eq!(plan.vips[0].1.ifindex, 2);
}

#[test]
fn names_lead_to_blocks_of_paths() {
    let mut registry = Registry::default();
    let plan = planned(TEXT, &network(), &mut registry);
    let table = &plan.tables[0];
    assert_eq!(table.len(), 3);
    let leads: Vec<_> = table
        .parts
        .iter()
        .map(|part| (part.base, part.pool))
        .collect();
    assert_eq!(leads, [(0, 0), (3, 1)]);
    assert_eq!(plan.paths.len(), 4);
    assert_eq!(plan.paths[1].1.node, 1);
    assert_eq!((plan.paths[3].1.route, plan.paths[3].1.node), (1, 3));
}

#[test]
fn weights_become_shares() {
    let plan = planned(TEXT, &network(), &mut Registry::default());
    let pool = &plan.pools[0].1;
    assert_eq!(pool.value.nodes, 3);
    assert_eq!(pool.value.client_address, abi::client_address::PROXY_V2);
    let share = |ordinal| {
        let used = &pool.table.v4[..maglev::TABLE_SIZE];
        used.iter().filter(|own| **own == ordinal).count() as f64 / maglev::TABLE_SIZE as f64
    };
    assert!((share(1) - 0.75).abs() < 0.02, "{}", share(1));
    assert!((share(0) - 0.25).abs() < 0.02, "{}", share(0));
    assert!(
        pool.table.v6[..maglev::TABLE_SIZE]
            .iter()
            .all(|own| *own == 2)
    );
    assert_eq!(plan.pools[1].1.value.balance, abi::balance::RANDOM);
}

#[test]
fn the_same_again_is_the_same() {
    let mut registry = Registry::default();
    let first = planned(TEXT, &network(), &mut registry);
    assert_eq!(planned(TEXT, &network(), &mut registry), first);
    assert!(!registry.has_lingering());
}

#[test]
fn numbers_survive_a_changed_configuration() {
    let mut registry = Registry::default();
    let first = planned(TEXT, &network(), &mut registry);
    let without_k3s = TEXT
        .replace("names = [\"www.example.org\", \"*.example.org\"]\npool = \"k3s\"", "names = [\"www.example.org\"]\npool = \"nas\"")
        .replace("[[pool]]\nname = \"k3s\"\nclient_address = \"proxy-v2\"\nnodes = [\"10.0.0.2:443\", { address = \"10.1.0.3:8443\", weight = 3 }, \"[fd00::2]:443\"]\n", "");
    let second = planned(&without_k3s, &network(), &mut registry);
    for ((number, node), (first_number, first)) in second.nodes.iter().zip(&first.nodes) {
        let moved = abi::Node {
            homes: first.homes,
            ..*node
        };
        assert_eq!(
            (*number, moved),
            (*first_number, *first),
            "open flows still use it"
        );
    }
    assert_eq!(second.nodes.len(), first.nodes.len());
    assert!(second.paths.starts_with(&first.paths), "and their paths");
    assert!(registry.has_lingering());
    assert_eq!(second.tables[0].parts[0].base, 4);

    let released = registry.release(&Default::default());
    assert_eq!(released.nodes.len(), 3);
    let third = planned(&without_k3s, &network(), &mut registry);
    assert_eq!(third.nodes, [second.nodes[3]]);
    // The pool that is left has no node of IPv6: that address lingered for its flows.
    assert_eq!((second.vips.len(), third.vips.len()), (2, 1));
}

#[test]
fn another_list_of_nodes_is_another_pool() {
    let mut registry = Registry::default();
    planned(TEXT, &network(), &mut registry);
    let other = TEXT.replace("\"10.0.0.2:443\", ", "");
    let plan = planned(&other, &network(), &mut registry);
    assert_eq!(plan.pools[0].0, 2, "0 and 1 are the old ones");
    let heavier = other.replace("weight = 3", "weight = 9");
    let plan = planned(&heavier, &network(), &mut registry);
    assert_eq!(plan.pools[0].0, 2, "a weight only changes its table");
}

#[test]
fn too_many_are_refused_by_name() {
    let config = config(TEXT);
    let mut sizes = Sizes::of(&config);
    sizes.nodes = 2;
    let mut registry = Registry::default();
    let weights = Weights::default();
    let error = plan(&config, &network(), &mut registry, &sizes, &weights).unwrap_err();
    assert_eq!((error.what, error.count, error.room), ("nodes", 4, 2));
}

#[test]
fn addresses_are_read_back() {
    for text in ["203.0.113.7", "2001:db8::7", "::1"] {
        let own: IpAddr = text.parse().unwrap();
        assert_eq!(ip(&address(own)), own);
    }
}

/// A family without a node is left to the host: clients that come by it are reset at once and try the other.
#[test]
fn a_family_without_a_node_is_not_claimed() {
    let claimed = |text: &str| -> Vec<String> {
        let plan = planned(text, &network(), &mut Registry::default());
        let mut all: Vec<_> = plan
            .vips
            .iter()
            .map(|(_, vip)| ip(&vip.address).to_string())
            .collect();
        all.sort();
        all
    };
    assert_eq!(claimed(TEXT), ["2001:db8::7", "203.0.113.7"]);
    let four = TEXT.replace(", \"[fd00::2]:443\"", "");
    assert_eq!(claimed(&four), ["203.0.113.7"]);
    let listed = four.replace(
        "on_refuse",
        "addresses = [\"203.0.113.7\", \"2001:db8::7\"]\non_refuse",
    );
    assert_eq!(claimed(&listed), ["203.0.113.7"], "listed or not");
    let six = TEXT
        .replace(
            "\"10.0.0.2:443\", { address = \"10.1.0.3:8443\", weight = 3 }, ",
            "",
        )
        .replace("10.0.0.9:443", "[fd00::9]:443");
    assert_eq!(claimed(&six), ["2001:db8::7"]);
}

fn mode() -> impl Strategy<Value = ClientAddress> {
    prop::sample::select(vec![
        ClientAddress::Transparent,
        ClientAddress::ProxyV2,
        ClientAddress::Masquerade,
    ])
}

fn word(mode: ClientAddress) -> &'static str {
    let found = ClientAddress::WORDS.iter().find(|(_, own)| *own == mode);
    found.unwrap().0
}

/// Pools of one node each and these modes.
fn pools_of(modes: &[ClientAddress]) -> String {
    let head = &TEXT[..TEXT.find("[[pool]]").unwrap()];
    let pools = modes.iter().enumerate().map(|(at, mode)| {
        format!(
            "[[pool]]\nname = \"p{at}\"\nclient_address = \"{}\"\nnodes = [\"10.0.0.{}:443\"]\n[[route]]\nnames = [\"{at}.example.org\"]\npool = \"p{at}\"\n",
            word(*mode),
            at + 2
        )
    });
    head.to_owned() + &pools.collect::<String>()
}

/// The mode in the maps of each path, by its node.
fn modes_of(plan: &Plan) -> BTreeMap<(u16, u16), u8> {
    let paths = plan.paths.iter();
    paths
        .map(|(_, path)| ((path.pool, path.node), path.client_address))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What the file says of a pool is what pool and paths say in the maps: at first, while they linger behind another
    /// configuration, and after the registry was written and read.
    #[test]
    fn the_mode_reaches_the_maps_unchanged(
        modes in prop::collection::vec(mode(), 1..6),
        later in prop::collection::vec(mode(), 1..6),
    ) {
        let mut registry = Registry::default();
        let first = planned(&pools_of(&modes), &network(), &mut registry);
        prop_assert_eq!(first.pools.len(), modes.len());
        for ((_, own), mode) in first.pools.iter().zip(&modes) {
            prop_assert_eq!(own.value.client_address, mode.number());
        }
        let written = modes_of(&first);
        prop_assert_eq!(written.len(), modes.len());
        for (at, (_, number)) in written.iter().enumerate() {
            prop_assert_eq!(*number, modes[at].number());
        }
        let text = serde_json::to_string(&registry.pools).unwrap();
        registry.pools = serde_json::from_str(&text).unwrap();
        let second = planned(&pools_of(&later), &network(), &mut registry);
        let after = modes_of(&second);
        for (path, number) in &written {
            prop_assert_eq!(after.get(path), Some(number), "open flows still use it");
        }
    }

    /// Also where the registry was lost and is made from the maps.
    #[test]
    fn a_recovered_path_keeps_its_mode(modes in prop::collection::vec(mode(), 1..6)) {
        let mut registry = Registry::default();
        for (number, mode) in (0_u16..).zip(&modes) {
            let node = format!("10.9.0.{}:443", number + 2).parse().unwrap();
            registry.nodes.restore(number.into(), node);
            registry.restore_path(number, 0, number, number, number);
            restore_names(&mut registry, 0, number, number, *mode);
        }
        let plan = planned(TEXT, &network(), &mut registry);
        let after = modes_of(&plan);
        for (number, mode) in (0_u16..).zip(&modes) {
            prop_assert_eq!(after.get(&(number, number)), Some(&mode.number()));
        }
    }
}
