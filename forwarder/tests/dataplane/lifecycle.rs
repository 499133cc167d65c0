//! Made, taken over, refused, recovered, removed.

use std::fs;
use std::path::Path;

use aya::maps::{Array, MapData};
use forwarder::dataplane::bpf::pins::Side;
use forwarder::dataplane::config_maps::ConfigMaps;
use forwarder::dataplane::registry::InUse;
use forwarder::dataplane::{Origin, unload};
use forwarder_common::abi::{Endpoint, address_v4, map};

use crate::sandbox::{interfaces, run, sandboxed, survey};
use crate::{TEXT, config, follow, open, pins};

fn ifindex(interface: &str) -> u32 {
    survey(&[]).link(interface).unwrap().ifindex
}

/// The kernel's ids of the programs attached to the ingress of an interface.
fn attached(interface: &str) -> Vec<u32> {
    use aya::programs::tc::{SchedClassifier, TcAttachType};
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
    programs.iter().map(|program| program.id()).collect()
}

/// Whether nothing is attached. The kernel lets go of a link a moment after its pin is gone (RCU).
fn is_let_go(interface: &str) -> bool {
    for _ in 0..200 {
        if attached(interface).is_empty() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

#[test]
fn a_restart_takes_over_without_a_gap() {
    sandboxed(|directory| {
        interfaces();
        let (mut first, origin) = open(directory, TEXT).unwrap();
        assert_eq!(origin, Origin::Fresh);
        let changes = follow(&mut first, TEXT);
        assert_eq!((changes.nodes, changes.names, changes.vips), (2, 2, 1));
        first.publish().unwrap();
        let before = attached("pub0");
        assert_eq!((before.len(), attached("tun0").len()), (1, 1));

        drop(first);
        assert_eq!(
            attached("pub0"),
            before,
            "a daemon that ends leaves its programs"
        );

        let (mut second, origin) = open(directory, TEXT).unwrap();
        assert_eq!(origin, Origin::Adopted);
        assert!(
            follow(&mut second, TEXT).is_empty(),
            "the maps hold all of it"
        );
        second.publish().unwrap();
        let after = attached("pub0");
        assert_eq!(after.len(), 1);
        assert_ne!(after, before, "the program was replaced");
    });
}

#[test]
fn programs_of_an_interrupted_start_keep_their_tail_calls() {
    sandboxed(|directory| {
        interfaces();
        let (mut first, _) = open(directory, TEXT).unwrap();
        follow(&mut first, TEXT);
        first.publish().unwrap();
        let tables = || {
            let pinned = pins(directory).attached_stages().unwrap();
            let id = |path: &Path| aya::maps::MapInfo::from_pin(path).unwrap().id();
            let ids = pinned.iter().map(|(_, _, path)| id(path));
            ids.collect::<Vec<_>>()
        };
        let [one, other] = tables()[..] else {
            panic!("a table for each of two interfaces")
        };
        assert_eq!(one, other);
        // Killed when it has attached its programs, and killed before.
        let (mut second, _) = open(directory, TEXT).unwrap();
        follow(&mut second, TEXT);
        drop(second);
        let attached = tables();
        assert!(attached.len() == 2 && attached[0] != one, "{attached:?}");
        let (third, _) = open(directory, TEXT).unwrap();
        drop(third);
        let (mut fourth, _) = open(directory, TEXT).unwrap();
        assert_eq!(tables(), attached, "those of the attached programs");
        follow(&mut fourth, TEXT);
        fourth.publish().unwrap();
        assert!(tables().len() == 2 && tables() != attached);
        run("ip link del tun0");
        follow(&mut fourth, TEXT);
        assert_eq!(tables().len(), 1);
    });
}

#[test]
fn what_the_packets_meet_is_what_was_configured() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let vip = Endpoint::new(address_v4([203, 0, 113, 7]), 443_u16.to_be());
        let vip = tables.vip_index.get(&vip, 0).unwrap();
        let vip = tables.vips.get(&vip, 0).unwrap();
        assert_eq!(vip.mss, 1_380);
        let look_up = |name| tables.names.look_up(vip.table, name).unwrap();
        assert!(look_up("www.example.org").is_some());
        assert_eq!(look_up("apps.example.org"), None);
        let entry = look_up("a.b.apps.example.org").unwrap();
        let path = tables.paths.get(&u32::from(entry.path_base), 0).unwrap();
        let node = tables.nodes.get(&u32::from(path.node), 0).unwrap();
        assert_eq!(node.address, address_v4([10, 0, 0, 2]));
        assert_eq!(node.local, address_v4([10, 0, 0, 1]));
        assert_eq!((node.ifindex, node.mtu), (ifindex("tun0"), 1_420));
        let limit = "max_flows = 256\nmax_flows_per_source = 7";
        let text = TEXT.replace("max_flows = 256", limit);
        follow(&mut dataplane, &text);
        let settings = tables.settings.get(&0, 0).unwrap();
        assert_eq!((settings.flows, settings.flows_per_source), (256, 7));
    });
}

#[test]
fn a_tunnel_that_comes_back_is_followed() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let node = || {
            ConfigMaps::open(&pins(directory))
                .unwrap()
                .nodes
                .get(&0, 0)
                .unwrap()
        };
        let old = ifindex("tun0");
        run("ip link del tun0");
        follow(&mut dataplane, TEXT);
        assert_eq!(node().ifindex, 0, "no tunnel, no packet");
        assert_eq!(pins(directory).pinned_links().unwrap().len(), 1);

        run("ip link add tun0 type veth peer name nod0");
        run("ip addr add 10.0.0.1/24 dev tun0");
        run("ip link set tun0 mtu 1300");
        run("ip link set tun0 up");
        follow(&mut dataplane, TEXT);
        let new = ifindex("tun0");
        assert_ne!(new, old);
        assert_eq!((node().ifindex, node().mss), (new, 1_260));
        assert_eq!(attached("tun0").len(), 1);
        let links: Vec<_> = pins(directory).pinned_links().unwrap();
        let places: Vec<_> = links
            .iter()
            .map(|(side, ifindex, _)| (*side, *ifindex))
            .collect();
        assert_eq!(
            places,
            [(Side::Public, ifindex("pub0")), (Side::Tunnel, new)]
        );
    });
}

#[test]
fn another_size_waits_for_new_maps() {
    sandboxed(|directory| {
        interfaces();
        drop(open(directory, TEXT).unwrap());
        // Nothing was written yet, so this was not a finished start and does not bind anybody.
        let larger = TEXT.replace("max_flows = 256", "max_flows = 512");
        let (mut dataplane, origin) = open(directory, &larger).unwrap();
        assert_eq!(origin, Origin::Fresh);
        follow(&mut dataplane, &larger);
        // From now on the maps stay as they are, whatever is asked for: flows live in them.
        let moved = TEXT
            .replace("2000-2099", "2050-2249")
            .replace("hello_buffers = 16", "hello_buffers = 32");
        let mut config = config(&moved);
        let (dataplane, origin) = open(directory, &moved).unwrap();
        assert_eq!(origin, Origin::Adopted);
        let kept = dataplane.keep_pinned(&mut config);
        let keys: Vec<_> = kept.iter().map(|own| own.key.as_str()).collect();
        assert_eq!(keys, ["max_flows", "hello_buffers", "source_ports"]);
        assert_eq!(kept[2].running, "2000-2099");
        assert_eq!(
            (config.entrance.max_flows, config.entrance.hello_buffers),
            (512, 16)
        );
        let mut dataplane = dataplane;
        follow(&mut dataplane, &moved);
        let settings = ConfigMaps::open(&pins(directory)).unwrap().settings;
        let settings = settings.get(&0, 0).unwrap();
        assert_eq!((settings.hellos, settings.first_port), (16, 2_000));
    });
}

/// 600 routes are no reason to refuse a start over maps that a reload has put them into.
#[test]
fn a_start_takes_what_a_reload_took() {
    sandboxed(|directory| {
        interfaces();
        let (mut first, _) = open(directory, TEXT).unwrap();
        follow(&mut first, TEXT);
        first.publish().unwrap();
        let grown = with_routes(450);
        follow(&mut first, &grown);
        let tight = first.tight().iter();
        let tight: Vec<String> = tight.map(ToString::to_string).collect();
        assert_eq!(tight.len(), 1, "{tight:?}");
        assert!(
            tight[0].starts_with("paths") && tight[0].contains("902 of 1024"),
            "{tight:?}"
        );
        drop(first);
        let (mut second, origin) = open(directory, &grown).unwrap();
        assert_eq!(origin, Origin::Adopted);
        assert!(follow(&mut second, &grown).is_empty());
        // More than fits is refused by both, for one reason.
        let larger = config(&with_routes(600));
        let error = second.apply(&larger, &survey(&[])).unwrap_err().to_string();
        assert!(
            error.contains("paths") && error.contains("unload"),
            "{error}"
        );
        drop(second);
        let (mut third, _) = open(directory, &with_routes(600)).unwrap();
        assert_eq!(
            third.apply(&larger, &survey(&[])).unwrap_err().to_string(),
            error
        );
    });
}

/// The usual configuration with so many routes more, each to two nodes.
fn with_routes(count: usize) -> String {
    let routes = (0..count)
        .map(|at| format!("[[route]]\nnames = [\"n{at}.example.org\"]\npool = \"k3s\"\n"));
    TEXT.to_owned() + &routes.collect::<String>()
}

#[test]
fn unload_leaves_nothing() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        dataplane.publish().unwrap();
        drop(dataplane);
        let registry = directory.with_extension("json");
        let removed = unload::unload(&pins(directory), &registry, &survey(&[])).unwrap();
        assert_eq!((removed.links, removed.versions), (2, 1));
        assert!(is_let_go("pub0") && is_let_go("tun0"));
        assert!(!directory.join("forwarder").exists() && !registry.exists());
        assert_eq!(unload::open_flows(&pins(directory)), None);
    });
}

#[test]
fn an_interface_that_is_no_longer_configured_is_let_go() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let other = TEXT.replace("\"pub0\"", "\"cli0\"");
        follow(&mut dataplane, &other);
        assert!(is_let_go("pub0"));
        assert_eq!(attached("cli0").len(), 1);
        // Flows may use the address that pub0 had. The host has everything else.
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let key = Endpoint::new(address_v4([203, 0, 113, 7]), 443_u16.to_be());
        let vip = tables.vip_index.get(&key, 0).unwrap();
        assert_eq!(tables.vips.get(&vip, 0).unwrap().closed, 1);
        let mut in_use = InUse::default();
        in_use.vips.insert(vip as u16);
        dataplane.release(&in_use).unwrap();
        assert_eq!(tables.vip_index.keys().count(), 1);
        dataplane.release(&InUse::default()).unwrap();
        assert_eq!(tables.vip_index.keys().count(), 0, "cli0 has no address");
    });
}

#[test]
fn a_lost_registry_is_made_from_the_maps() {
    sandboxed(|directory| {
        interfaces();
        let two = format!(
            "{TEXT}[[pool]]\nclient_address = \"transparent\"\nname = \"b\"\nnodes = [\"10.0.0.4:443\"]\n[[route]]\nnames = [\"b.example.org\"]\npool = \"b\"\n"
        );
        let (mut dataplane, _) = open(directory, &two).unwrap();
        follow(&mut dataplane, &two);
        dataplane.publish().unwrap();
        drop(dataplane);
        fs::remove_file(Path::new(&directory.with_extension("json"))).unwrap();
        // A node is left out, so that numbering from scratch would give its number to another.
        let less = two.replace("\"10.0.0.2:443\", ", "");
        let (mut dataplane, origin) = open(directory, &less).unwrap();
        assert_eq!(origin, Origin::Adopted);
        follow(&mut dataplane, &less);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let number = |last| {
            let key = Endpoint::new(address_v4([10, 0, 0, last]), 443_u16.to_be());
            tables.node_index.get(&key, 0).ok()
        };
        assert_eq!(
            (number(2), number(3), number(4)),
            (Some(0), Some(1), Some(2))
        );
    });
}

/// As an earlier state of the same version leaves them: they are refused, and whoever they belong to keeps its flows.
#[test]
fn maps_of_another_layout_are_left_alone() {
    sandboxed(|directory| {
        interfaces();
        drop(open(directory, TEXT).unwrap());
        let pins = pins(directory);
        for name in [map::SOURCE_FLOWS, map::SETTINGS] {
            fs::remove_file(pins.map(name)).unwrap();
        }
        let other: Array<MapData, u64> = Array::create(1, 0).unwrap();
        other.pin(pins.map(map::SETTINGS)).unwrap();
        let Err(error) = open(directory, TEXT) else {
            panic!("they were taken for those of a start that was interrupted")
        };
        assert!(error.is_lasting(), "a restart does not mend it: {error}");
        assert!(pins.map(map::FLOWS).exists());
    });
}

#[test]
fn a_damaged_registry_is_put_aside() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        dataplane.publish().unwrap();
        drop(dataplane);
        let registry = directory.with_extension("json");
        let nodes = || ConfigMaps::open(&pins(directory)).unwrap().node_index;
        let numbers = |last| {
            let key = Endpoint::new(address_v4([10, 0, 0, last]), 443_u16.to_be());
            nodes().get(&key, 0).ok()
        };
        let before = (numbers(2), numbers(3));
        for damage in ["{ \"version\": ", "", "{ \"version\": 99 }"] {
            fs::write(&registry, damage).unwrap();
            let (mut dataplane, origin) = open(directory, TEXT).unwrap();
            assert_eq!(origin, Origin::Adopted);
            follow(&mut dataplane, TEXT);
            assert_eq!((numbers(2), numbers(3)), before);
        }
        let beside = fs::read_dir(registry.parent().unwrap()).unwrap().flatten();
        let aside = beside.filter(|file| file.file_name().to_string_lossy().contains(".damaged-"));
        assert!(aside.count() >= 1);
    });
}

/// A sweep that changes nothing writes nothing.
#[test]
fn what_lingers_is_not_written_again_and_again() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        // A flow holds the first node, which is then no longer configured.
        let less = TEXT.replace("\"10.0.0.2:443\", ", "");
        let (path, in_use) = {
            let registry = dataplane.registry();
            let (block, at) = registry.path(0).unwrap();
            let path = block.base + at as u16;
            let mut in_use = InUse::default();
            in_use.paths.insert(path);
            (path, in_use)
        };
        follow(&mut dataplane, &less);
        let journal = directory.with_extension("journal");
        let length = || fs::metadata(&journal).unwrap().len();
        dataplane.release(&in_use).unwrap();
        let before = length();
        for _ in 0..3 {
            dataplane.release(&in_use).unwrap();
        }
        assert_eq!(length(), before);
        assert!(dataplane.registry().path(path).is_some());
        dataplane.release(&InUse::default()).unwrap();
        assert!(length() > before, "something was released");
    });
}
