//! Nodes that refuse or stay silent: the next one is asked, until none is left.

use forwarder_common::abi::{close_reason, event_kind};
use forwarder_common::verdict::DropReason::{Absorbed, BeforeNode, NodesUnreachable};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, NODE, Opened};
use forwarder_tests::programs::shape::{Mode, Refusal};

use crate::answer::{assert_header_and_hello, each_shape_and_mode, joined};

/// The same SYN to another node.
fn to_node(bench: &Bench, opened: &Opened, ordinal: u32) -> Segment {
    let mut syn = opened.syn.clone();
    syn.destination = bench.node_address(ordinal);
    syn
}

/// A node refuses the connection to it.
fn refusal(opened: &Opened, syn: &Segment) -> Segment {
    let mut reset = opened.syn_ack(&[]);
    reset.source = syn.destination;
    reset.flags = Flags::RST_ACK;
    reset.seq = 0;
    reset
}

/// What the client gets when no node is left.
fn end(opened: &Opened) -> Segment {
    opened
        .client
        .answer(Flags::RST_ACK, 0, opened.hello.len() as u32, 0)
}

#[track_caller]
fn assert_gone(bench: &mut Bench, opened: &Opened) {
    assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
    assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
    assert_eq!(bench.maps.reverse.keys().count(), 0);
    let (ports, buffers) = bench.maps.free();
    assert_eq!((ports.len(), buffers.len()), (1_024, 256));
    let event = *bench.maps.events().last().expect("an end is told");
    assert_eq!(
        (event.kind, event.reason),
        (event_kind::CLOSED, close_reason::NO_NODE)
    );
}

#[test]
fn a_refusing_node_hands_over_to_the_next() {
    each_shape_and_mode(|bench, mode| {
        let number = bench.node_number(0);
        let before: Vec<_> = (0..3).map(|n| bench.maps.node_stats(number + n)).collect();
        let failed = |bench: &Bench| {
            (0..3)
                .map(|n| bench.maps.path_stats(mode.path_base() + number + n)[7])
                .sum::<u64>()
        };
        let failed_before = failed(bench);
        let opened = Client::open(bench, mode);
        let mut syn = opened.syn.clone();
        for ordinal in [1, 2] {
            let seen = bench.from_node(&refusal(&opened, &syn));
            syn = to_node(bench, &opened, ordinal);
            seen.expect(&syn, &[]);
            let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            assert_eq!(u32::from(flow.path), mode.path_base() + number + ordinal);
            let entries = bench.maps.reverse.keys().count();
            assert_eq!(entries, bench.reverse_entries(mode));
        }
        let seen = bench.from_node(&refusal(&opened, &syn));
        seen.expect(&end(&opened), &[NodesUnreachable]);
        assert_gone(bench, &opened);
        for (n, before) in (0..3).zip(before) {
            let now = bench.maps.node_stats(number + n);
            assert_eq!(
                (now[0] - before[0], now[1] - before[1], now[2] - before[2]),
                {
                    // The last refusal is not followed by another node, but counts all the same.
                    (1, 0, 1)
                }
            );
        }
        assert_eq!(failed(bench), failed_before + 1);
    });
}

/// The second node accepts what the first refused, and gets the same stream.
#[test]
fn the_next_node_accepts() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let seen = bench.from_node(&refusal(&opened, &opened.syn));
        let second = Opened {
            syn: seen.segment(),
            ..opened.clone()
        };
        let stream = joined(&second, &second.accept(bench));
        assert_header_and_hello(bench, &second, &stream, None);
        // The first node, late, has no say any more.
        let late = bench.from_node(&opened.syn_ack(&NODE));
        if mode == Mode::Transparent {
            let reset = late.segment();
            assert_eq!(
                (reset.flags, reset.destination),
                (Flags::RST, opened.syn.destination)
            );
        } else {
            late.passed();
        }
        let event = *bench.maps.events().last().unwrap();
        assert_eq!((event.kind, event.syns), (event_kind::OPENED, 2));
        assert_eq!(event.path, mode.path_base() + bench.node_number(1));
    });
}

/// A silent node is asked as often as configured, at most once in the interval; then the next one is.
#[test]
fn a_silent_node_hands_over_to_the_next() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let again = |bench: &mut Bench| opened.client.send(bench, 0, &opened.hello);
        bench
            .maps
            .set(|settings| settings.syn_interval_us = 60_000_000);
        for _ in 0..3 {
            again(bench).dropped(Absorbed);
        }
        bench.maps.set(|settings| settings.syn_interval_us = 0);
        again(bench).expect(&opened.syn, &[]);
        // All of them silent may be loss alone: it begins again with the first.
        for ordinal in [1, 2, 0, 1] {
            for _ in 0..2 {
                again(bench).expect(&to_node(bench, &opened, ordinal), &[]);
                let entries = bench.maps.reverse.keys().count();
                assert_eq!(entries, bench.reverse_entries(mode));
            }
        }
        // Without any tunnel left it is over.
        for ordinal in 0..3 {
            bench.node(bench.node_number(ordinal), |node| node.ifindex = 0);
        }
        again(bench).expect(&end(&opened), &[NodesUnreachable]);
        assert_gone(bench, &opened);
        bench.reshape(bench.shape);
        bench
            .maps
            .set(|settings| settings.syn_interval_us = 60_000_000);
    });
}

/// Only what is missing at the node asks it again: no bare acknowledgement does, nor later data.
#[test]
fn what_does_not_ask_again() {
    each_shape_and_mode(|bench, mode| {
        bench.maps.set(|settings| settings.syn_interval_us = 0);
        let opened = Client::open(bench, mode);
        let bare = opened.from_client(Flags::ACK, 0, 0, &[]);
        bench.from_client(&bare).dropped(Absorbed);
        let fin = opened.from_client(Flags::FIN_ACK, 0, 0, &[]);
        bench.from_client(&fin).dropped(Absorbed);
        let later = opened.from_client(Flags::PSH_ACK, 1, 0, b"later");
        bench.from_client(&later).dropped(BeforeNode);
        let syn = opened.client.syn(&[]);
        bench.from_client(&syn).dropped(Absorbed);
    });
}

#[test]
fn a_client_that_resets_before_the_node_answered() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let outside = opened.from_client(Flags::RST, 1, 0, &[]);
        bench.from_client(&outside).dropped(Absorbed);
        assert!(bench.flow(opened.client.address, Refusal::Alert).is_some());
        let exact = opened.from_client(Flags::RST, 0, 0, &[]);
        bench.from_client(&exact).dropped(Absorbed);
        assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
        assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
        assert_eq!(bench.maps.reverse.keys().count(), 0);
        let event = *bench.maps.events().last().unwrap();
        assert_eq!(event.reason, close_reason::CLIENT_RESET);
        assert_eq!(bench.maps.free().0.len(), 1_024);
    });
}

/// A flow whose hello another connection took over cannot be completed.
#[test]
fn a_flow_that_lost_its_hello() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let key = bench.flow_key(opened.client.address, Refusal::Alert);
        let slot = bench.maps.hello_index.get(&key, 0).unwrap();
        bench.maps.hello_index.remove(&key).unwrap();
        bench.maps.hello_free.push(slot, 0).unwrap();
        let again = opened.client.send(bench, 0, &opened.hello);
        again.expect(&end(&opened), &[]);
        assert_gone(bench, &opened);
    });
}
