//! The SYN that opens a connection to a node.

use std::collections::BTreeSet;

use forwarder_common::abi::{self, balance, map, state};
use forwarder_common::verdict::DropReason;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::entrance::{FIRST_SOURCE_PORT, NODES};
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

/// A client's options, and those of the SYN to a node whose tunnel has room for 1,380 bytes (IPv4).
const OPTIONS: &[(&str, &[u8], &[u8])] = &[
    ("Linux", &LINUX, &[2, 4, 5, 100, 1, 1, 4, 2, 1, 3, 3, 7]),
    (
        "Windows",
        &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
        &[2, 4, 5, 100, 1, 1, 4, 2, 1, 3, 3, 8],
    ),
    ("none: MSS 536", &[], &[2, 4, 2, 24]),
    ("MSS 1220", &[2, 4, 4, 196], &[2, 4, 4, 196]),
    ("MSS 1359 rounds down", &[2, 4, 5, 79], &[2, 4, 4, 196]),
    ("SACK alone is not kept", &[4, 2, 1, 1], &[2, 4, 2, 24]),
    ("scale alone is not kept", &[1, 3, 3, 14], &[2, 4, 2, 24]),
    (
        "MSS, SACK and scale 0",
        &[2, 4, 5, 180, 4, 2, 1, 3, 3, 0, 1, 1],
        &[2, 4, 5, 100, 1, 1, 4, 2, 1, 3, 3, 0],
    ),
];

/// What the SYN must be. Lengths of PROXY headers come from the specification: 16 bytes, addresses and
/// ports, and three bytes before each TLV.
fn syn(bench: &Bench, client: &Client, mode: Mode, port: u32, options: &[u8]) -> Segment {
    let source = match mode {
        Mode::Transparent => client.address,
        _ => (bench.local(), port as u16).into(),
    };
    let mut syn = Segment::new(source, bench.node_address(0), Flags::SYN);
    let ends = if bench.shape.v6 { 36 } else { 12 };
    let header = match mode {
        Mode::ProxyV2 => 16 + ends + (3 + 16) + (3 + mode.name().len()),
        _ => 0,
    };
    syn.seq = client.isn.wrapping_sub(header as u32);
    syn.options = options.to_vec();
    if bench.shape.v6 && options[2..4] == [5, 100] {
        syn.options[2..4].copy_from_slice(&1_360_u16.to_be_bytes());
    }
    syn
}

#[test]
fn addresses_numbers_and_options() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            for (title, offered, passed_on) in OPTIONS {
                println!("{shape:?} {mode:?} {title}");
                let client = Client::connect_with(&mut bench, Refusal::Alert, offered);
                let port = bench.maps.free().0[0];
                let hello = Hello::small(mode.name()).record();
                let seen = client.send(&mut bench, 0, &hello);
                seen.expect(&syn(&bench, &client, mode, port, passed_on), &[]);
            }
        }
    }
}

/// What both sides will need is in the maps before the SYN leaves.
#[test]
fn entries_of_a_flow() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            let (ports, buffers) = bench.maps.free();
            let opened = Client::open(&mut bench, mode);
            let client = &opened.client;
            let flow = bench.flow(client.address, Refusal::Alert).expect("a flow");
            assert_eq!(
                (flow.client_isn, flow.entrance_isn),
                (client.isn, client.cookie)
            );
            assert_eq!(
                (flow.state, flow.client_acked, flow.node_acked),
                (state::CONNECTING, 1, 0)
            );
            let path = mode.path_base() + bench.node_number(0);
            assert_eq!(u32::from(flow.path), path);
            assert_eq!(u16::from_be(flow.source_port_be), opened.syn.source.port());
            assert_eq!(u32::from(flow.node), bench.node_number(0));
            let masked = mode != Mode::Transparent;
            assert_eq!(flow.is_transparent(), !masked);
            if masked {
                let slot = u32::from(opened.syn.source.port()) - FIRST_SOURCE_PORT;
                let served = bench.maps.port_flows.get(&slot, 0).expect("its flow");
                assert_eq!(served, bench.flow_key(client.address, Refusal::Alert));
            }
            let no_header = match shape.public {
                forwarder_tests::programs::shape::Link::L2 => 0,
                forwarder_tests::programs::shape::Link::L3 => abi::link::NO_HEADER,
            };
            assert_eq!(flow.public_link, bench.public | no_header);
            let (ports_left, buffers_left) = bench.maps.free();
            let taken = usize::from(masked);
            assert_eq!(ports_left, ports[taken..], "the oldest port is taken");
            assert_eq!(buffers_left.len() + 1, buffers.len());
            let (_, hello) = bench
                .hello(client.address, Refusal::Alert)
                .expect("its hello");
            assert_eq!(
                (hello.syns, hello.node_syns, hello.attempt % NODES),
                (1, 1, 0)
            );
        }
    }
    for ordinal in 0..2 * NODES {
        let syns = if ordinal % NODES == 0 { 12 } else { 0 };
        assert_eq!(
            bench.maps.node_stats(ordinal)[0],
            syns,
            "SYNs to node {ordinal}"
        );
    }
    assert!(
        bench.maps.events().is_empty(),
        "nothing is told before a node accepts"
    );
}

/// A tunnel narrower than anything a client offers sets the MSS.
#[test]
fn a_narrow_tunnel() {
    let mut bench = Bench::new();
    bench.node(0, |node| node.mss = 1_240);
    let opened = Client::open(&mut bench, Mode::Transparent);
    assert_eq!(opened.syn.mss(), Some(1_240));
    bench.node(0, |node| node.mss = 500);
    let opened = Client::open(&mut bench, Mode::Transparent);
    assert_eq!(opened.syn.mss(), Some(500));
}

/// Nodes without a tunnel, and nodes of the other address family, are passed over.
#[test]
fn unusable_nodes_are_passed_over() {
    for v6 in [false, true] {
        let mut bench = Bench::new();
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        bench.node(bench.node_number(0), |node| node.ifindex = 0);
        let opened = Client::open(&mut bench, Mode::ProxyV2);
        assert_eq!(opened.syn.destination, bench.node_address(1));
        bench.node(bench.node_number(1), |node| node.ifindex = 0);
        let opened = Client::open(&mut bench, Mode::Masquerade);
        assert_eq!(opened.syn.destination, bench.node_address(2));
        bench.node(bench.node_number(2), |node| node.ifindex = 0);
        let client = Client::connect(&mut bench, Refusal::Reset);
        let hello = Hello::small(Mode::Transparent.name()).record();
        let seen = client.send(&mut bench, 0, &hello);
        let reset = client.answer(Flags::RST_ACK, 0, hello.len() as u32, 0);
        seen.expect(&reset, &[DropReason::NoNode]);
    }
}

/// The same port of a client leads through several listeners to one node: each further one takes another node, and
/// every node's answers go to the listener that its connection is of.
#[test]
fn one_client_port_at_several_listeners() {
    for home in [true, false] {
        let mut bench = Bench::new();
        bench.reshape(Shape {
            home,
            ..Shape::COMMON
        });
        let first = Client::open(&mut bench, Mode::Transparent);
        let mut all = vec![first.clone()];
        for refusal in [Refusal::Reset, Refusal::Drop] {
            let mut client = first.client.clone();
            (client.vip, client.refusal) = (bench.vip(refusal), refusal);
            client.cookie = bench.from_client(&client.syn(&LINUX)).segment().seq;
            let syn = client.send(&mut bench, 0, &first.hello).segment();
            assert_eq!(syn.source, first.client.address);
            all.push(Opened {
                client,
                syn,
                ..first.clone()
            });
        }
        let nodes: BTreeSet<_> = all.iter().map(|own| own.syn.destination).collect();
        assert_eq!(nodes.len(), 3, "{nodes:?}");
        for own in &all {
            own.splice(&mut bench);
            let down = bench
                .from_node(&own.from_node(Flags::PSH_ACK, 0, 0, b"hello"))
                .segment();
            assert_eq!(
                (down.source, down.destination),
                (own.client.vip, first.client.address)
            );
        }
        assert_eq!(bench.maps.reverse.keys().count(), if home { 2 } else { 3 });
    }
}

/// The listener where a node is at home comes second with a client's port.
#[test]
fn home_comes_second() {
    let mut bench = Bench::new();
    let mut away = Client::new(&mut bench, Refusal::Reset);
    away.cookie = bench.from_client(&away.syn(&LINUX)).segment().seq;
    let hello = Hello::small(Mode::Transparent.name()).record();
    let first = away.send(&mut bench, 0, &hello).segment();
    assert_eq!(first.destination, bench.node_address(0));
    let mut home = away.clone();
    (home.vip, home.refusal) = (bench.vip(Refusal::Alert), Refusal::Alert);
    home.cookie = bench.from_client(&home.syn(&LINUX)).segment().seq;
    let second = home.send(&mut bench, 0, &hello).segment();
    assert_eq!(second.destination, bench.node_address(1));
    assert_eq!(bench.maps.reverse.keys().count(), 1, "of the first alone");
}

/// A source port that a node still knows is left alone; the next one is taken.
#[test]
fn a_source_port_in_use() {
    let mut bench = Bench::new();
    let first = Client::open(&mut bench, Mode::Masquerade);
    assert_eq!(first.syn.source.port(), FIRST_SOURCE_PORT as u16);
    // As if the queue held it twice.
    let (ports, _) = bench.maps.free();
    for _ in 0..ports.len() {
        bench.maps.source_ports.pop(0).unwrap();
    }
    for port in [FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + 1] {
        bench.maps.source_ports.push(port, 0).unwrap();
    }
    let second = Client::open(&mut bench, Mode::Masquerade);
    assert_eq!(second.syn.source.port(), FIRST_SOURCE_PORT as u16 + 1);
    assert_eq!(
        bench.maps.free().0,
        [FIRST_SOURCE_PORT],
        "and goes to the end of the queue"
    );
}

/// `random` spreads the connections of one client; `source` keeps them at one node.
#[test]
fn balance_of_a_pool() {
    let mut bench = Bench::new();
    let mut table = bench.maps.maglev.get(&0, 0).unwrap();
    for (index, ordinal) in table.v4.iter_mut().enumerate() {
        *ordinal = (index % NODES as usize) as u16;
    }
    bench.maps.maglev.set(0, table, 0).unwrap();
    let mut pool = bench.maps.pools.get(&0, 0).unwrap();
    for (how, nodes) in [(balance::SOURCE, 1), (balance::RANDOM, NODES as usize)] {
        pool.balance = how;
        bench.maps.pools.set(0, pool, 0).unwrap();
        let used: BTreeSet<_> = (0..60)
            .map(|_| Client::open(&mut bench, Mode::Transparent).syn.destination)
            .collect();
        assert_eq!(used.len(), nodes, "{used:?}");
    }
}

#[test]
fn a_full_flow_table_refuses() {
    for (full, mode, home) in [
        (map::FLOWS, Mode::Masquerade, true),
        (map::FLOWS, Mode::Transparent, false),
        (map::REVERSE, Mode::Transparent, false),
    ] {
        let mut bench = Bench::sized(&[(full, 3)]);
        // All are of one source, which is another reason.
        bench.maps.set(|settings| settings.flows = 4_096);
        bench.reshape(Shape {
            home,
            ..Shape::COMMON
        });
        for _ in 0..3 {
            Client::open(&mut bench, mode);
        }
        let (ports, buffers) = bench.maps.free();
        bench.maps.events();
        let client = Client::connect(&mut bench, Refusal::Reset);
        let hello = Hello::small(mode.name()).record();
        let seen = client.send(&mut bench, 0, &hello);
        let reset = client.answer(Flags::RST_ACK, 0, hello.len() as u32, 0);
        seen.expect(&reset, &[DropReason::FlowTableFull]);
        let [event] = bench.maps.events()[..] else {
            panic!("one event")
        };
        assert_eq!(event.reason, DropReason::FlowTableFull as u32);
        // Nothing is lost by it, and those that were open before are.
        let (mut ports_after, buffers_after) = bench.maps.free();
        ports_after.sort_unstable();
        assert_eq!(ports_after, ports, "{full}");
        assert_eq!(buffers_after.len(), buffers.len());
        assert_eq!(bench.maps.flows.keys().count(), 3);
        assert_eq!(
            bench.maps.reverse.keys().count(),
            3 * bench.reverse_entries(mode)
        );
    }
}

#[test]
fn no_source_port_is_left() {
    let mut bench = Bench::sized(&[(map::SOURCE_PORTS, 2)]);
    for _ in 0..2 {
        Client::open(&mut bench, Mode::ProxyV2);
    }
    let client = Client::connect(&mut bench, Refusal::Reset);
    let hello = Hello::small(Mode::ProxyV2.name()).record();
    let seen = client.send(&mut bench, 0, &hello);
    let reset = client.answer(Flags::RST_ACK, 0, hello.len() as u32, 0);
    seen.expect(&reset, &[DropReason::SourcePortsExhausted]);
    // Transparent pools need none.
    Client::open(&mut bench, Mode::Transparent);
}

/// Buffers of hellos that are on their way to a node are never taken; a stale unfinished one is.
#[test]
fn no_hello_buffer_is_left() {
    let mut bench = Bench::sized(&[
        (map::HELLOS, 2),
        (map::HELLO_INDEX, 8),
        (map::HELLO_FREE, 2),
    ]);
    let hello = Hello::small(Mode::Transparent.name()).record();
    let opened = Client::open(&mut bench, Mode::Transparent);
    // However slow this machine is.
    let (slot, mut kept) = bench.hello(opened.client.address, Refusal::Alert).unwrap();
    kept.started_ms = kept.started_ms.wrapping_add(600_000);
    bench.maps.hellos.set(slot, *kept, 0).unwrap();
    let waiting = Client::connect(&mut bench, Refusal::Alert);
    waiting.send(&mut bench, 0, &hello[..100]);
    let client = Client::connect(&mut bench, Refusal::Alert);
    // Its client sends it again, and may find one then.
    client
        .send(&mut bench, 0, &hello)
        .dropped(DropReason::HelloBuffersFull);

    bench.maps.set(|settings| settings.hello_steal_ms = 0);
    // Four random looks may all meet the one that is not to be taken.
    let newcomer = Client::connect(&mut bench, Refusal::Alert);
    let syn = (0..64).find_map(|_| {
        let seen = newcomer.send(&mut bench, 0, &hello);
        (seen.reasons.is_empty()).then(|| seen.segment())
    });
    assert_eq!(syn.unwrap().destination, bench.node_address(0));
    assert!(bench.hello(waiting.address, Refusal::Alert).is_none());
    assert!(bench.hello(opened.client.address, Refusal::Alert).is_some());
}
