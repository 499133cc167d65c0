//! Another configuration over the same maps: at no moment is a listed name unknown or half a table seen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forwarder::dataplane::config_maps::ConfigMaps;
use forwarder::dataplane::flows::sweep::Swept;
use forwarder::dataplane::plan;
use forwarder::dataplane::registry::InUse;
use forwarder_common::abi::{NO_HOME, NameEntry, Vip, address_v4};

use crate::sandbox::{interfaces, run, sandboxed, survey};
use crate::{TEXT, config, follow, open, pins};

/// How long the former names may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

fn vip(tables: &ConfigMaps) -> Vip {
    tables.vips.get(&0, 0).unwrap()
}

fn look_up(tables: &ConfigMaps, table: u16, name: &str) -> Option<NameEntry> {
    tables.names.look_up(table, name).unwrap()
}

/// Listed names of the given number, generation by generation under different pools.
fn many(count: usize, generation: usize) -> String {
    let names: Vec<String> = (0..count)
        .map(|n| format!("\"n{n}.example.net\""))
        .collect();
    let pool = ["k3s", "other"][generation % 2];
    format!(
        "{TEXT}[[pool]]\nclient_address = \"transparent\"\nname = \"other\"\nnodes = [\"10.0.0.9:443\"]\n[[route]]\nnames = [{}, \"g{generation}.example.net\"]\npool = \"{pool}\"\n[[route]]\nnames = [\"both.example.net\"]\npool = \"other\"\n",
        names.join(", ")
    )
}

#[test]
fn names_change_over_at_once() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, &many(2_000, 0)).unwrap();
        follow(&mut dataplane, &many(2_000, 0));
        let stop = Arc::new(AtomicBool::new(false));
        let looks = Arc::new(AtomicU64::new(0));
        let reader = watch(directory, stop.clone(), looks.clone());
        for generation in 1..6 {
            let text = many(2_000, generation);
            let changes = follow(&mut dataplane, &text);
            assert_eq!(changes.names, 2_004);
            let tables = ConfigMaps::open(&pins(directory)).unwrap();
            let table = vip(&tables).table;
            let own = format!("g{generation}.example.net");
            let old = format!("g{}.example.net", generation - 1);
            assert!(look_up(&tables, table, &own).is_some());
            assert!(look_up(&tables, table, &old).is_none());
            let begin = Instant::now();
            while tables.names.count() > 2_004 {
                assert!(begin.elapsed() < PATIENCE, "the old table is still there");
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(follow(&mut dataplane, &text).is_empty());
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(looks.load(Ordering::Relaxed) > 1_000);
    });
}

#[test]
fn a_name_more_or_less_touches_no_other() {
    sandboxed(|directory| {
        interfaces();
        let text = many(2_000, 0);
        let more = format!("{text}[[route]]\nnames = [\"late.example.net\"]\npool = \"k3s\"\n");
        let less = text.replace("\"n7.example.net\",", "");
        let (mut dataplane, _) = open(directory, &text).unwrap();
        follow(&mut dataplane, &text);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let table = vip(&tables).table;
        for (text, name, there) in [
            (&more, "late.example.net", true),
            (&text, "late.example.net", false),
            (&less, "n7.example.net", false),
            (&text, "n7.example.net", true),
        ] {
            assert_eq!(follow(&mut dataplane, text).names, 1);
            assert_eq!(vip(&tables).table, table);
            assert_eq!(look_up(&tables, table, name).is_some(), there, "{name}");
        }
        // The next daemon knows what stands there.
        drop(dataplane);
        let (mut dataplane, _) = open(directory, &text).unwrap();
        assert_eq!(follow(&mut dataplane, &text).names, 0);
    });
}

/// Looks names up like the data path: by whatever table the claimed address says.
fn watch(
    directory: &Path,
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
) -> std::thread::JoinHandle<()> {
    let tables = ConfigMaps::open(&pins(directory)).unwrap();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let before = vip(&tables).table;
            let first = look_up(&tables, before, "n0.example.net");
            let last = look_up(&tables, before, "n1999.example.net");
            // Between the two look-ups the table may have been retired; then this look does not count.
            if vip(&tables).table == before {
                let pools = [first, last].map(|entry| entry.expect("listed throughout").pool);
                assert_eq!(pools[0], pools[1], "half of one table and half of another");
                looks.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

#[test]
fn a_weight_changes_the_table_of_its_pool_only() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let heavier = TEXT.replace(
            "\"10.0.0.3:443\"",
            "{ address = \"10.0.0.3:443\", weight = 9 }",
        );
        let changes = follow(&mut dataplane, &heavier);
        assert_eq!(
            (changes.pools, changes.names, changes.nodes, changes.paths),
            (1, 0, 0, 0)
        );
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let pool = tables.pools.get(&0, 0).unwrap();
        assert_eq!(pool.maglev, 1, "the other of its two tables");
        let table = tables.maglev.get(&pool.maglev, 0).unwrap();
        let share = table.v4[..1_021]
            .iter()
            .filter(|ordinal| **ordinal == 1)
            .count();
        assert!((900..940).contains(&share), "{share} of 1021");
        follow(&mut dataplane, TEXT);
        assert_eq!(tables.pools.get(&0, 0).unwrap().maglev, 0);
    });
}

#[test]
fn a_node_in_use_keeps_its_number_until_its_flows_end() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let other = TEXT.replace("\"10.0.0.2:443\", ", "");
        follow(&mut dataplane, &other);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let known = |last: u8| {
            let nodes = tables.node_index.keys().map(Result::unwrap);
            nodes
                .into_iter()
                .any(|key| key.address == address_v4([10, 0, 0, last]))
        };
        let mut in_use = InUse::default();
        in_use.paths.insert(0);
        dataplane.release(&in_use).unwrap();
        assert!(
            known(2) && known(3),
            "path 0 leads to 10.0.0.2 and a flow uses it"
        );
        dataplane.release(&InUse::default()).unwrap();
        assert!(!known(2) && known(3));
    });
}

/// Flows that began while a claimed address was a node's home have no entry that names it: the home stays while they
/// do, whatever the configuration says meanwhile, and over a restart.
#[test]
fn a_node_keeps_its_home_while_flows_use_it() {
    sandboxed(|directory| {
        interfaces();
        let text = TEXT.replace("proxy-v2", "transparent");
        let (mut dataplane, _) = open(directory, &text).unwrap();
        follow(&mut dataplane, &text);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let node = || tables.nodes.get(&0, 0).unwrap();
        let homes = || {
            let node = node();
            assert_eq!(node.address, address_v4([10, 0, 0, 2]));
            let ports = node.homes.iter().filter_map(|home| {
                let vip = tables.vips.get(&u32::from(*home), 0).ok()?;
                (vip.address == address_v4([203, 0, 113, 7])).then_some(u16::from_be(vip.port_be))
            });
            ports.collect::<Vec<u16>>()
        };
        assert_eq!(homes(), [443]);
        let first = node().homes[0];
        let other = text.replace("port = 443", "port = 8443");
        follow(&mut dataplane, &other);
        assert_eq!(homes(), [443, 8443]);
        let mut in_use = InUse::default();
        in_use.vips.insert(first);
        dataplane.release(&in_use).unwrap();
        drop(dataplane);
        let (mut dataplane, _) = open(directory, &other).unwrap();
        follow(&mut dataplane, &other);
        assert_eq!(homes(), [443, 8443]);
        // Most flows use the second.
        let second = node().homes[1];
        let mut swept = Swept::default();
        swept.seen_by.extend([((0, first), 3), ((0, second), 4)]);
        dataplane.swept(&swept).unwrap();
        assert_eq!(node().first, 1);
        dataplane.release(&InUse::default()).unwrap();
        assert_eq!(homes(), [8443]);
        assert!(follow(&mut dataplane, &other).is_empty());
        assert_eq!((node().homes[0], node().homes[1]), (NO_HOME, second));
    });
}

/// More claimed addresses than a node has homes: the rest are not forgotten, they just are none.
#[test]
fn a_fifth_claimed_address_is_no_home() {
    sandboxed(|directory| {
        interfaces();
        let ports: String = (1..=5)
            .map(|n| format!("[[listener]]\nname = \"l{n}\"\nprotocol = \"tls\"\nport = {n}443\n"))
            .collect();
        let text = format!("{TEXT}{ports}").replace("proxy-v2", "transparent");
        let (mut dataplane, _) = open(directory, &text).unwrap();
        follow(&mut dataplane, &text);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let homes = tables.nodes.get(&0, 0).unwrap().homes;
        assert!(homes.iter().all(|home| *home != NO_HOME), "{homes:?}");
        assert!(follow(&mut dataplane, &text).is_empty());
    });
}

/// A pool that hides the clients needs no homes; one that shows them has the places to itself.
#[test]
fn hidden_clients_need_no_home() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        assert_eq!(tables.nodes.get(&0, 0).unwrap().homes, [NO_HOME; 4]);
    });
}

/// Flows that a node answers under our address stay known while its tunnel is away.
#[test]
fn a_node_without_a_way_keeps_our_address() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let tables = ConfigMaps::open(&pins(directory)).unwrap();
        let node = || tables.nodes.get(&0, 0).unwrap();
        assert_eq!(node().local, address_v4([10, 0, 0, 1]));
        run("ip link set tun0 down");
        follow(&mut dataplane, TEXT);
        assert_eq!(
            (node().ifindex, node().local),
            (0, address_v4([10, 0, 0, 1]))
        );
        run("ip link set tun0 up");
        follow(&mut dataplane, TEXT);
        assert_ne!(node().ifindex, 0);
    });
}

/// Room is counted in rows, those of the next generation included: what a reload takes, a restart takes.
#[test]
fn more_names_than_there_is_room_for_are_refused_before_any_is_written() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let text = many(33_000, 0);
        let config = config(&text);
        let network = survey(&plan::destinations(&config, dataplane.registry()));
        let refused = dataplane.apply(&config, &network).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("listed names") && refused.contains("unload"),
            "{refused}"
        );
        assert!(dataplane.is_in_step());
        assert_eq!(ConfigMaps::open(&pins(directory)).unwrap().names.count(), 2);
        follow(&mut dataplane, &many(32_000, 0));
        drop(dataplane);
        open(directory, &many(32_000, 0)).unwrap();
    });
}
