//! Flows of an earlier layout, in maps as its daemon left them.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, Queue};
use forwarder::dataplane::Origin;
use forwarder::dataplane::bpf::maps::FlowMaps;
use forwarder::dataplane::clock::monotonic_ms;
use forwarder::dataplane::config_maps::ConfigMaps;
use forwarder::dataplane::upgrade::carry::{Carried, Carrier};
use forwarder::dataplane::upgrade::predecessor::Predecessor;
use forwarder::dataplane::upgrade::v5;
use forwarder_common::abi::{FlowKey, ReverseKey, address_v4, client_address, map, state};

use crate::sandbox::{interfaces, sandboxed, survey};
use crate::{TEXT, follow, open, pins};

/// A tree of layout v5 with ports from 2000 to 2099 and a registry that numbers more than is configured now.
struct Old {
    path: PathBuf,
    flows: HashMap<MapData, v5::FlowKey, v5::Flow>,
    ports: Queue<MapData, u32>,
}

const REGISTRY: &str = r#"{"version":5,"listeners":["https"],
"routes":[{"first_name":"gone.example.org","pool":"old","listeners":["https"]}],
"pools":[{"name":"old","client_address":"transparent","nodes":["10.0.0.9:443"]}],
"nodes":["10.0.0.9:443","10.0.0.3:443"],
"vips":[["203.0.113.9",443],["203.0.113.7",443]],
"names":["gone.example.org"],
"blocks":[{"base":0,"listener":0,"route":0,"pool":0,"nodes":[0]}],
"tables":{"0":{"id":1,"digest":5}},"dirty":[],"node_names":{"0":"nine"},
"attachments":[],"missing":[],"generation":77}"#;

impl Old {
    fn make(directory: &Path) -> Self {
        let path = directory.join("forwarder/v5");
        fs::create_dir_all(path.join("links")).unwrap();
        let flows: HashMap<MapData, v5::FlowKey, v5::Flow> = HashMap::create(64, 0).unwrap();
        flows.pin(path.join(map::FLOWS)).unwrap();
        let flows: HashMap<MapData, v5::FlowKey, v5::Flow> = reopened(path.join(map::FLOWS));
        let hellos: HashMap<MapData, v5::FlowKey, u32> = HashMap::create(16, 0).unwrap();
        hellos.pin(path.join(map::HELLO_INDEX)).unwrap();
        let _hellos: HashMap<MapData, v5::FlowKey, u32> = reopened(path.join(map::HELLO_INDEX));
        let ports: Queue<MapData, u32> = Queue::create(100, 0).unwrap();
        ports.pin(path.join(map::SOURCE_PORTS)).unwrap();
        let mut ports: Queue<MapData, u32> = reopened(path.join(map::SOURCE_PORTS));
        for port in 2_000..2_100 {
            ports.push(port, 0).unwrap();
        }
        let settings: Array<MapData, v5::Settings> = Array::create(1, 0).unwrap();
        settings.pin(path.join(map::SETTINGS)).unwrap();
        let mut settings: Array<MapData, v5::Settings> = reopened(path.join(map::SETTINGS));
        let known = v5::Settings {
            name_secret: [1, 2],
            reset_interval_ns: 0,
            reset_fill_ns: 0,
            syn_interval_us: 0,
            syns_per_node: 2,
            hello_steal_ms: 0,
            events: 0,
            hellos: 16,
            first_port: 2_000,
        };
        settings.set(0, known, 0).unwrap();
        fs::write(directory.with_extension("json"), REGISTRY).unwrap();
        Self { path, flows, ports }
    }

    /// Enters a flow of a client's port; one that hides its client takes a source port.
    fn enter(&mut self, port: u16, state: u8, mode: u8) -> v5::Flow {
        let transparent = mode == client_address::TRANSPARENT;
        let source = if transparent {
            u32::from(port)
        } else {
            self.ports.pop(0).unwrap()
        };
        let now = monotonic_ms();
        let flow = v5::Flow {
            client_isn: 100 + u32::from(port),
            entrance_isn: 200,
            delta: 300,
            name: 0,
            // Later than now: making our maps may take long.
            opened_ms: now + 60_000,
            seen_ms: now + 60_000,
            client_end: 0,
            node_end: 0,
            client_acked: 5 << 30,
            node_acked: 6 << 30,
            public_link: 2,
            node: 0,
            path: 0,
            source_port_be: (source as u16).to_be(),
            client_address: mode,
            pad: 0,
            state,
            node_scale: 7,
            client_marks: 0,
            node_marks: 0,
        };
        self.flows.insert(old_key(port), flow, 0).unwrap();
        flow
    }

    fn predecessor(&self) -> Predecessor {
        Predecessor::at(&self.path).unwrap()
    }
}

fn reopened<T: TryFrom<Map, Error = MapError>>(path: PathBuf) -> T {
    let data = MapData::from_pin(path).unwrap();
    Map::from_map_data(data).and_then(T::try_from).unwrap()
}

fn old_key(port: u16) -> v5::FlowKey {
    v5::FlowKey {
        client: address_v4([198, 51, 100, 4]),
        port_be: port.to_be(),
        vip: 0,
    }
}

fn drained(mut ports: Queue<MapData, u32>) -> Vec<u32> {
    std::iter::from_fn(|| ports.pop(0).ok()).collect()
}

#[test]
fn numbers_and_flows_are_taken_over_and_the_rest_goes() {
    sandboxed(|directory| {
        interfaces();
        let mut old = Old::make(directory);
        let transparent = old.enter(1, state::SPLICED, client_address::TRANSPARENT);
        let proxied = old.enter(2, state::SPLICED, client_address::PROXY_V2);
        old.enter(3, state::CONNECTING, client_address::PROXY_V2);
        // The configuration asks for other ports, in vain.
        let text = TEXT.replace("2000-2099", "3000-3199");
        let (mut dataplane, origin) = open(directory, &text).unwrap();
        assert_eq!(origin, Origin::Upgraded);
        follow(&mut dataplane, &text);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let settings = tables.settings.get(&0, 0).unwrap();
        assert_eq!((settings.predecessor, settings.first_port), (1, 2_000));
        // What flows use is numbered as it was, configured or not.
        let vip = tables.vips.get(&0, 0).unwrap();
        assert_eq!((vip.address, vip.closed), (address_v4([203, 0, 113, 9]), 1));
        let node = tables.nodes.get(&0, 0).unwrap();
        assert_eq!(node.address, address_v4([10, 0, 0, 9]));
        assert_eq!(tables.paths.get(&0, 0).unwrap().node, 0);

        let mut carrier = Carrier::open(&old.predecessor(), &pins(directory)).unwrap();
        let pass = carrier.pass().unwrap();
        let expected = Carried {
            moved: 2,
            waiting: 1,
            ..Carried::default()
        };
        assert_eq!(pass, expected);
        let state = FlowMaps::open(&pins(directory)).unwrap();
        let ours = |port| state.flows.get(&v5::key(&old_key(port)), 0);
        assert!(v5::is_same(&transparent, &ours(1).unwrap()));
        assert!(v5::is_same(&proxied, &ours(2).unwrap()));
        assert!(ours(3).is_err());
        let counted = || state.source_flows.of(&v5::key(&old_key(1)).client);
        assert_eq!(counted(), (2, 2));
        let reverse = ReverseKey {
            client: old_key(1).client,
            port_be: 1_u16.to_be(),
            node: 0,
        };
        assert_eq!(state.reverse.get(&reverse, 0).unwrap(), 0, "no home");
        let port_flows = MapData::from_pin(pins(directory).map(map::PORT_FLOWS)).unwrap();
        let port_flows: Array<_, FlowKey> = Map::Array(port_flows).try_into().unwrap();
        assert_eq!(port_flows.get(&0, 0).unwrap(), v5::key(&old_key(2)));
        // Numbers of what is yet to come over are not given away.
        dataplane.swept(&Default::default()).unwrap();
        dataplane.swept(&Default::default()).unwrap();
        assert!(dataplane.registry().path(0).is_some());

        // The third is spliced by the programs behind, meanwhile.
        let mut third = old.flows.get(&old_key(3), 0).unwrap();
        third.state = state::SPLICED;
        old.flows.insert(old_key(3), third, 0).unwrap();
        assert_eq!(carrier.pass().unwrap().moved, 1);
        assert_eq!(carrier.pass().unwrap(), Carried::default());
        assert_eq!(counted(), (3, 3));

        let mut tables = ConfigMaps::open(&pins(directory)).unwrap();
        let upgrade = dataplane.upgrade().unwrap();
        assert_eq!(upgrade.finish(&mut tables, &survey(&[])).unwrap(), 0);
        assert_eq!(tables.settings.get(&0, 0).unwrap().predecessor, 0);
        assert!(!old.path.exists());
        // Every port is free or some flow's, once.
        let mut free = drained(FlowMaps::open(&pins(directory)).unwrap().source_ports);
        free.sort_unstable();
        assert_eq!(free, (2_002..2_100).collect::<Vec<_>>());
        drop(dataplane);
        assert_eq!(open(directory, &text).unwrap().1, Origin::Adopted);
    });
}

#[test]
fn whoever_is_killed_goes_on_where_he_was() {
    sandboxed(|directory| {
        interfaces();
        let mut old = Old::make(directory);
        let flow = old.enter(1, state::SPLICED, client_address::MASQUERADE);
        // Killed when its maps were made, and when the ports had moved.
        drop(open(directory, TEXT).unwrap());
        let (mut dataplane, origin) = open(directory, TEXT).unwrap();
        assert_eq!(origin, Origin::Upgraded, "they were not finished");
        follow(&mut dataplane, TEXT);
        drop(dataplane);
        // Killed after a flow was entered here, and before it was removed there; its client has gone on meanwhile.
        let mut carrier = Carrier::open(&old.predecessor(), &pins(directory)).unwrap();
        assert_eq!(carrier.pass().unwrap().moved, 1);
        old.flows.insert(old_key(1), flow, 0).unwrap();
        let mut state = FlowMaps::open(&pins(directory)).unwrap();
        let key = v5::key(&old_key(1));
        let mut ours = state.flows.get(&key, 0).unwrap();
        ours.client_acked += 1_000;
        ours.node_end += 1_000;
        state.flows.insert(key, ours, 0).unwrap();

        let (mut dataplane, origin) = open(directory, TEXT).unwrap();
        assert_eq!(origin, Origin::Adopted);
        follow(&mut dataplane, TEXT);
        let mut carrier = Carrier::open(&old.predecessor(), &pins(directory)).unwrap();
        assert_eq!(carrier.pass().unwrap().moved, 1);
        assert_eq!(state.flows.get(&key, 0).unwrap(), ours, "no step back");
        assert_eq!(state.source_flows.of(&key.client), (1, 1));
        assert!(old.flows.get(&old_key(1), 0).is_err());
        // A client that has begun anew from the same port: the old flow is over, and its port is free.
        old.enter(2, state::SPLICED, client_address::MASQUERADE);
        let mut fresh = ours;
        fresh.client_isn ^= 1;
        state.flows.insert(v5::key(&old_key(2)), fresh, 0).unwrap();
        let pass = carrier.pass().unwrap();
        assert_eq!((pass.moved, pass.ended), (0, 1));
        assert_eq!(state.source_flows.of(&key.client), (1, 1));
        assert_eq!(state.flows.get(&v5::key(&old_key(2)), 0).unwrap(), fresh);
        let mut tables = ConfigMaps::open(&pins(directory)).unwrap();
        let upgrade = dataplane.upgrade().unwrap();
        upgrade.finish(&mut tables, &survey(&[])).unwrap();
        let mut free = drained(state.source_ports);
        free.sort_unstable();
        free.dedup();
        assert_eq!(free, (2_001..2_100).collect::<Vec<_>>());
    });
}

#[test]
fn a_lost_registry_is_made_from_the_former_maps() {
    sandboxed(|directory| {
        interfaces();
        let mut old = Old::make(directory);
        fs::write(directory.with_extension("json"), "{").unwrap();
        let vips: Array<MapData, v5::Vip> = Array::create(4, 0).unwrap();
        vips.pin(old.path.join(map::VIPS)).unwrap();
        let mut vips: Array<MapData, v5::Vip> = reopened(old.path.join(map::VIPS));
        let vip = v5::Vip {
            address: address_v4([203, 0, 113, 9]),
            port_be: 443_u16.to_be(),
            listener: 0,
            rest: [0; 5],
        };
        vips.set(0, vip, 0).unwrap();
        let paths: Array<MapData, v5::Path> = Array::create(4, 0).unwrap();
        paths.pin(old.path.join(map::PATHS)).unwrap();
        let mut paths: Array<MapData, v5::Path> = reopened(old.path.join(map::PATHS));
        let path = v5::Path {
            listener: 0,
            route: 0,
            pool: 0,
            node: 0,
            rest: [0; 2],
        };
        paths.set(0, path, 0).unwrap();
        let nodes: HashMap<MapData, v5::Endpoint, u32> = HashMap::create(4, 0).unwrap();
        nodes.pin(old.path.join(map::NODE_INDEX)).unwrap();
        let mut nodes: HashMap<MapData, v5::Endpoint, u32> =
            reopened(old.path.join(map::NODE_INDEX));
        let node = v5::Endpoint {
            address: address_v4([10, 0, 0, 9]),
            port_be: 443_u16.to_be(),
            pad: [0; 3],
        };
        nodes.insert(node, 0, 0).unwrap();
        old.enter(1, state::SPLICED, client_address::TRANSPARENT);
        let (mut dataplane, origin) = open(directory, TEXT).unwrap();
        assert_eq!(origin, Origin::Upgraded);
        follow(&mut dataplane, TEXT);
        let registry = dataplane.registry();
        assert_eq!(registry.vips.key(0).unwrap().0.to_string(), "203.0.113.9");
        assert_eq!(registry.nodes.key(0).unwrap().to_string(), "10.0.0.9:443");
        assert_eq!(registry.path(0).unwrap().0.nodes, [0]);
    });
}

#[test]
fn a_layout_that_nobody_can_read_is_left_alone() {
    sandboxed(|directory| {
        interfaces();
        fs::create_dir_all(directory.join("forwarder/v4/links")).unwrap();
        let error = open(directory, TEXT).err().unwrap();
        assert!(error.is_lasting(), "a restart does not mend it");
        let text = error.to_string();
        assert!(text.contains("v4") && text.contains("unload"), "{text}");
        let other = pins(directory).other_versions().unwrap();
        assert!(matches!(other[..], [ref own] if own.ends_with("v4")));
    });
}
