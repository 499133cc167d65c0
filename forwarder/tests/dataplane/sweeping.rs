//! Flows that went silent, and what they leave.

use std::time::Duration;

use forwarder::dataplane::bpf::maps::FlowMaps;
use forwarder::dataplane::clock::monotonic_ms;
use forwarder::dataplane::flows::sweep::{Expiry, Sweeper};
use forwarder_common::abi::{Flow, FlowKey, ReverseKey, address_v4, client_address, mark, state};

use crate::sandbox::{interfaces, sandboxed};
use crate::{TEXT, follow, open, pins};

const IDLE: Duration = Duration::from_secs(7_440);

fn key(port: u16) -> FlowKey {
    FlowKey {
        client: address_v4([198, 51, 100, 4]),
        port_be: port.to_be(),
        vip: 0,
    }
}

fn flow(state: u8, source_port: u16, silent: Duration) -> Flow {
    let seen_ms = monotonic_ms().wrapping_sub(silent.as_millis() as u32);
    Flow {
        client_isn: 1,
        entrance_isn: 2,
        delta: 3,
        name: 1,
        opened_ms: seen_ms,
        seen_ms,
        client_end: 0,
        node_end: 0,
        client_acked: 1,
        node_acked: 1,
        public_link: 2,
        node: 1,
        path: 1,
        source_port_be: source_port.to_be(),
        client_address: client_address::PROXY_V2,
        state,
        node_options: forwarder_common::node_options::NodeOptions::NONE.0,
        client_marks: 0,
        node_marks: 0,
    }
}

/// As the programs enter a flow: by its second path, so to node 1.
fn enter(maps: &mut FlowMaps, key: FlowKey, flow: Flow) {
    maps.flows.insert(key, flow, 0).unwrap();
}

/// As they enter one whose client's address the node sees, and whose claimed address is not the node's home.
fn enter_transparent(maps: &mut FlowMaps, key: FlowKey, silent: Duration) -> ReverseKey {
    let flow = Flow {
        client_address: client_address::TRANSPARENT,
        ..flow(state::SPLICED, u16::from_be(key.port_be), silent)
    };
    let reverse = ReverseKey {
        client: key.client,
        port_be: key.port_be,
        node: flow.node,
    };
    enter(maps, key, flow);
    maps.reverse.insert(reverse, u32::from(key.vip), 0).unwrap();
    reverse
}

fn taken(maps: &mut FlowMaps) -> (u16, u32) {
    let port = maps.source_ports.pop(0).unwrap();
    (
        u16::try_from(port).unwrap(),
        maps.hello_free.pop(0).unwrap(),
    )
}

#[test]
fn a_silent_flow_goes_with_all_it_had() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let (freed, slot) = taken(&mut maps);
        assert_eq!(slot, 0);
        enter(
            &mut maps,
            key(1),
            flow(state::CONNECTING, freed, Duration::from_secs(11)),
        );
        maps.hello_index.insert(key(1), slot, 0).unwrap();
        let (port, _) = taken(&mut maps);
        enter(
            &mut maps,
            key(2),
            flow(state::SPLICED, port, Duration::from_secs(11)),
        );

        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        let swept = sweeper.sweep().unwrap();
        assert_eq!(swept.flows, 1);
        let why: Vec<_> = swept
            .expired
            .iter()
            .map(|(key, _, why)| (key.port_be, *why))
            .collect();
        assert_eq!(why, [(1_u16.to_be(), Expiry::Unanswered)]);
        assert_eq!(swept.in_use.paths.iter().copied().collect::<Vec<_>>(), [1]);

        assert!(maps.flows.get(&key(1), 0).is_err() && maps.flows.get(&key(2), 0).is_ok());
        assert!(maps.hello_index.get(&key(1), 0).is_err());
        let ports: Vec<u32> = std::iter::from_fn(|| maps.source_ports.pop(0).ok()).collect();
        assert_eq!(ports.len(), 99, "one of a hundred is in use");
        assert_eq!(
            ports.last(),
            Some(&u32::from(freed)),
            "the freed one is used last"
        );
        let slots: Vec<u32> = std::iter::from_fn(|| maps.hello_free.pop(0).ok()).collect();
        assert_eq!((slots.len(), slots.last()), (15, Some(&0)));
    });
}

#[test]
fn marks_make_their_nodes_be_asked() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let silent = Duration::from_secs(200);
        let ports: Vec<u16> = (0..4).map(|_| taken(&mut maps).0).collect();
        let marked = |port, client_marks, node_marks| Flow {
            client_marks,
            node_marks,
            ..flow(state::SPLICED, port, silent)
        };
        enter(&mut maps, key(1), marked(ports[0], mark::FIN, mark::FIN));
        enter(&mut maps, key(2), marked(ports[1], mark::FIN, 0));
        enter(&mut maps, key(3), marked(ports[2], 0, mark::RESET));
        enter(&mut maps, key(4), marked(ports[3], 0, 0));
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        let swept = sweeper.sweep().unwrap();
        assert_eq!(swept.expired.len(), 0, "anybody may have sent those");
        assert_eq!(swept.flows, 4);
        assert_eq!(sweeper.asked(), 3);
    });
}

/// A reset that anybody could have made is no reason to forget a flow; that its node does not answer is one.
#[test]
fn a_flow_that_was_reset_out_of_order_waits_for_its_node() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let silent = Duration::from_secs(70);
        let reset = |port| Flow {
            client_marks: mark::RESET,
            ..flow(state::SPLICED, port, silent)
        };
        let flows = [1, 2].map(|number| (key(number), reset(taken(&mut maps).0)));
        for (key, flow) in flows {
            enter(&mut maps, key, flow);
        }
        let away = Flow {
            node: 9,
            ..reset(taken(&mut maps).0)
        };
        enter(&mut maps, key(3), away);
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        let mut sweep = || {
            let swept = sweeper.sweep().unwrap();
            let gone = swept.expired.iter();
            let gone = gone.map(|(key, _, why)| (u16::from_be(key.port_be), *why));
            (swept.flows, gone.collect::<Vec<_>>())
        };
        assert_eq!(
            sweep(),
            (3, vec![]),
            "asked, but for the one to which there is no way"
        );
        assert_eq!(sweep(), (3, vec![]), "the answer may be on its way");
        let (answered, mut flow) = flows[1];
        flow.seen_ms = monotonic_ms();
        enter(&mut maps, answered, flow);
        for more in ["twice", "three times"] {
            std::thread::sleep(Duration::from_millis(5_200));
            assert_eq!(sweep(), (3, vec![]), "a question may be lost: asked {more}");
        }
        std::thread::sleep(Duration::from_millis(5_200));
        assert_eq!(sweep(), (2, vec![(1, Expiry::Reset)]));
        // Silent for a minute once more, it is asked once more.
        flow.seen_ms = flow.seen_ms.wrapping_sub(70_000);
        enter(&mut maps, answered, flow);
        assert_eq!(sweep(), (2, vec![]));
    });
}

#[test]
fn a_reverse_entry_without_flow_goes_at_the_second_look() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let lonely = enter_transparent(&mut maps, key(1), Duration::ZERO);
        maps.flows.remove(&key(1)).unwrap();
        // The flow of these ends goes to another node.
        let moved = enter_transparent(&mut maps, key(2), Duration::ZERO);
        let mut flow = maps.flows.get(&key(2), 0).unwrap();
        flow.node = 0;
        maps.flows.insert(key(2), flow, 0).unwrap();
        let kept = enter_transparent(&mut maps, key(3), Duration::ZERO);
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        assert_eq!(
            sweeper.sweep().unwrap().orphans,
            0,
            "its flow may be on the way"
        );
        assert_eq!(sweeper.sweep().unwrap().orphans, 2);
        for (reverse, stays) in [(&lonely, false), (&moved, false), (&kept, true)] {
            assert_eq!(maps.reverse.get(reverse, 0).is_ok(), stays);
        }
    });
}

#[test]
fn a_transparent_flow_takes_its_own_reverse_entry_along() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let own = enter_transparent(&mut maps, key(1), IDLE * 2);
        let others = enter_transparent(&mut maps, key(2), IDLE * 2);
        maps.reverse.insert(others, 9, 0).unwrap();
        let ports = maps.source_ports.pop(0).unwrap();
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        assert_eq!(sweeper.sweep().unwrap().expired.len(), 2);
        assert!(maps.reverse.get(&own, 0).is_err());
        assert_eq!(
            maps.reverse.get(&others, 0).unwrap(),
            9,
            "of another claimed address"
        );
        let left: Vec<u32> = std::iter::from_fn(|| maps.source_ports.pop(0).ok()).collect();
        assert!(
            left.len() == 99 && !left.contains(&ports),
            "no port was its own"
        );
    });
}

/// After a reboot the first connections do not meet what nodes know of those before.
#[test]
fn source_ports_start_anywhere() {
    sandboxed(|directory| {
        interfaces();
        let text = TEXT.replace("2000-2099", "2000-60000");
        let (_dataplane, _) = open(directory, &text).unwrap();
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let mut ports: Vec<u32> = std::iter::from_fn(|| maps.source_ports.pop(0).ok()).collect();
        // Once in 58,001 times it does.
        assert_ne!(ports.first(), Some(&2_000));
        ports.sort_unstable();
        assert!(ports.into_iter().eq(2_000..=60_000));
    });
}

/// What the sweeper or an order ends is remembered as what the programs end: no hello opens it again.
#[test]
fn what_is_ended_is_remembered() {
    use forwarder_common::closed::{Ended, digest, set_of};
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        for (number, state) in [
            (1, state::SPLICED),
            (2, state::SPLICED),
            (3, state::CONNECTING),
        ] {
            let silent = if number == 2 {
                Duration::ZERO
            } else {
                IDLE * 2
            };
            let port = taken(&mut maps).0;
            enter(&mut maps, key(number), flow(state, port, silent));
        }
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        assert_eq!(sweeper.sweep().unwrap().expired.len(), 2);
        assert!(sweeper.end(&key(2)).unwrap().is_some());
        let secret = maps.settings.get(&0, 0).unwrap().name_secret;
        let remembered = [1, 2, 3].map(|number| {
            let digest = digest(secret, &key(number));
            let set = maps.closed.get(&set_of(digest), 0).unwrap();
            set.of_cookie(digest, 2, monotonic_ms()) == Ended::Cut
        });
        assert_eq!(
            remembered,
            [true, true, false],
            "no node had accepted the last"
        );
    });
}

#[test]
fn a_full_table_is_swept_whole() {
    sandboxed(|directory| {
        interfaces();
        let text = TEXT.replace("2000-2099", "2001-2300");
        let (mut dataplane, _) = open(directory, &text).unwrap();
        follow(&mut dataplane, &text);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        for port in 1..=256 {
            let own = maps.source_ports.pop(0).unwrap() as u16;
            let silent = Duration::from_secs(if port % 2 == 0 { 8_000 } else { 1 });
            enter(&mut maps, key(port), flow(state::SPLICED, own, silent));
        }
        assert!(
            maps.flows
                .insert(key(257), flow(state::SPLICED, 1, Duration::ZERO), 0)
                .is_err(),
            "never evicts"
        );
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        let swept = sweeper.sweep().unwrap();
        assert_eq!((swept.flows, swept.expired.len()), (128, 128));
        assert!(swept.expired.iter().all(|(_, _, why)| *why == Expiry::Idle));
    });
}

#[test]
fn what_the_sweeper_ends_is_counted() {
    use forwarder::dataplane::flows::expired::{Counts, Expired};
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        for (number, state) in [
            (1, state::CONNECTING),
            (2, state::SPLICED),
            (3, state::SPLICED),
        ] {
            let (port, _) = taken(&mut maps);
            enter(&mut maps, key(number), flow(state, port, IDLE * 2));
        }
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        dataplane.swept(&sweeper.sweep().unwrap()).unwrap();
        let expected = Counts {
            unanswered: 1,
            silent: 2,
        };
        assert_eq!(
            Expired::open(&pins(directory)).unwrap().of(1).unwrap(),
            expected
        );
        drop(dataplane);
        open(directory, TEXT).unwrap();
        assert_eq!(
            Expired::open(&pins(directory)).unwrap().of(1).unwrap(),
            expected,
            "a restart keeps them"
        );
    });
}

/// What was counted and is not there, or is there and was not counted, is gone after a sweep; what the sweeper ends is
/// counted no more.
#[test]
fn counts_of_sources_are_set_right() {
    sandboxed(|directory| {
        interfaces();
        let (mut dataplane, _) = open(directory, TEXT).unwrap();
        follow(&mut dataplane, TEXT);
        let mut maps = FlowMaps::open(&pins(directory)).unwrap();
        let ports: Vec<u16> = (0..3).map(|_| taken(&mut maps).0).collect();
        let lively = Duration::from_secs(1);
        enter(&mut maps, key(1), flow(state::SPLICED, ports[0], lively));
        enter(&mut maps, key(2), flow(state::SPLICED, ports[1], lively));
        let gone = flow(state::SPLICED, ports[2], IDLE + Duration::from_secs(1));
        enter(&mut maps, key(3), gone);
        let client = key(1).client;
        assert_eq!(maps.source_flows.of(&client), (0, 0), "entered by a test");
        let other = forwarder_common::abi::address_v4([203, 0, 113, 77]);
        maps.source_flows.more(&other);
        let mut sweeper = Sweeper::new(FlowMaps::open(&pins(directory)).unwrap(), IDLE);
        let swept = sweeper.sweep().unwrap();
        assert!(swept.miscounted > 0 && swept.expired.len() == 1);
        assert_eq!(maps.source_flows.of(&client), (2, 2));
        assert_eq!(maps.source_flows.of(&other), (0, 2));
        assert_eq!(sweeper.sweep().unwrap().miscounted, 0);
        assert!(sweeper.end(&key(1)).unwrap().is_some());
        assert_eq!(maps.source_flows.of(&client), (1, 1));
    });
}
