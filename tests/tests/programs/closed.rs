//! What comes of a connection that has ended: no second one by its cookie, and no trouble in the counters.

use forwarder_common::abi::ClosedSet;
use forwarder_common::closed::{KEPT_MS, digest, set_of};
use forwarder_common::verdict::DropReason;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::seen::{Seen, Verdict};
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Finished,
    ClientReset,
    NodeReset,
}

fn each_end(mut test: impl FnMut(&mut Bench, &Opened, Way)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            for way in [Way::Finished, Way::ClientReset, Way::NodeReset] {
                println!("{shape:?} {mode:?} {way:?}");
                let opened = Client::open(&mut bench, mode);
                opened.splice(&mut bench);
                match way {
                    Way::Finished => {
                        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
                        bench.from_node(&opened.from_node(Flags::FIN_ACK, 0, 1, &[]));
                        bench.from_client(&opened.from_client(Flags::ACK, 1, 1, &[]));
                    }
                    Way::ClientReset => {
                        bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
                    }
                    Way::NodeReset => {
                        bench.from_node(&opened.from_node(Flags::RST, 0, 0, &[]));
                    }
                }
                assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
                bench.maps.events();
                test(&mut bench, &opened, way);
            }
        }
    }
}

/// That a segment was answered with this, and counted as nothing worth a look.
#[track_caller]
fn assert_answered(seen: Seen, flags: Flags, to: &Segment) {
    assert_eq!(seen.reasons, [DropReason::Absorbed]);
    let answer = seen.segment();
    assert_eq!((answer.flags, answer.seq), (flags, to.ack));
    assert_eq!(
        (answer.source, answer.destination),
        (to.destination, to.source)
    );
    if flags == Flags::ACK {
        assert_eq!(answer.ack, to.end());
    }
}

/// A hello that is sent again opens nothing, for as long as its cookie is good.
#[test]
fn a_hello_sent_again() {
    each_end(|bench, opened, _| {
        let again = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
        for _ in 0..2 {
            assert_answered(bench.from_client(&again), Flags::RST, &again);
        }
        // In two parts, as nobody sent it.
        let (first, rest) = opened.hello.split_at(50);
        for (at, part) in [(0, first), (50, rest)] {
            let part = opened.client.segment(Flags::PSH_ACK, at, part);
            let seen = bench.from_client(&part);
            assert_eq!(seen.reasons, [DropReason::Absorbed], "at {at}");
        }
        assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
        assert_eq!(bench.maps.flows.keys().count(), 0);

        // The same port with a SYN of its own is a new connection.
        let mut new = opened.client.clone();
        new.isn = new.isn.wrapping_add(0x2468_0000);
        new.cookie = bench.from_client(&new.syn(&LINUX)).segment().seq;
        let syn = new.send(bench, 0, &opened.hello).segment();
        assert_eq!(
            (syn.flags, syn.destination),
            (Flags::SYN, opened.syn.destination)
        );
        let new = Opened {
            client: new,
            syn,
            ..opened.clone()
        };
        new.splice(bench);
        bench.from_client(&new.from_client(Flags::RST, 0, 0, &[]));
        assert_answered(bench.from_client(&again), Flags::RST, &again);
    });
}

/// When the cookie has ended the connection is forgotten, too.
#[test]
fn one_that_ended_long_ago() {
    let mut bench = Bench::new();
    let opened = Client::open(&mut bench, Mode::Transparent);
    opened.splice(&mut bench);
    bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
    let secret = bench.maps.settings.get(&0, 0).unwrap().name_secret;
    let at = set_of(digest(
        secret,
        &bench.flow_key(opened.client.address, Refusal::Alert),
    ));
    let mut set: ClosedSet = bench.maps.closed.get(&at, 0).unwrap();
    for way in &mut set.ways {
        way.closed_ms = way.closed_ms.wrapping_sub(KEPT_MS);
    }
    bench.maps.closed.set(at, set, 0).unwrap();
    // This cookie is fresh, so that the connection is made: nothing else stood in its way.
    let again = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
    assert_eq!(bench.from_client(&again).segment().flags, Flags::SYN);
}

/// One that no node accepted had no effect: its client may try again.
#[test]
fn one_that_no_node_accepted() {
    let mut bench = Bench::new();
    let opened = Client::open(&mut bench, Mode::Masquerade);
    bench.from_client(&opened.client.segment(Flags::RST, 0, &[]));
    assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
    let again = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
    assert_eq!(bench.from_client(&again).segment().flags, Flags::SYN);
}

/// What was on its way when a connection ended, and what an end sends again that missed the other's last word.
#[test]
fn late_segments_of_the_client() {
    each_end(|bench, opened, way| {
        let data = opened.from_client(Flags::PSH_ACK, 0, 0, b"late");
        assert_answered(bench.from_client(&data), Flags::RST, &data);
        let reset = opened.from_client(Flags::RST, 0, 0, &[]);
        bench.from_client(&reset).dropped(DropReason::Absorbed);
        let (ack, fin) = (
            opened.from_client(Flags::ACK, 1, 1, &[]),
            opened.from_client(Flags::FIN_ACK, 0, 1, &[]),
        );
        if way == Way::Finished {
            bench.from_client(&ack).dropped(DropReason::Absorbed);
            assert_answered(bench.from_client(&fin), Flags::ACK, &fin);
        } else {
            assert_answered(bench.from_client(&ack), Flags::RST, &ack);
            assert_answered(bench.from_client(&fin), Flags::RST, &fin);
        }
    });
}

/// The same of the node. Where it sees our own address the host's stack answers.
#[test]
fn late_segments_of_the_node() {
    each_end(|bench, opened, way| {
        let strays = bench.maps.node_stats(bench.node_number(0)).pop();
        let data = opened.from_node(Flags::PSH_ACK, 0, 0, b"late");
        if opened.mode != Mode::Transparent {
            assert_eq!(bench.from_node(&data).verdict, Verdict::Pass);
            return;
        }
        if bench.reverse_entries(opened.mode) != 0 {
            // By a claimed address that is none of the node's homes: it cannot be told.
            return;
        }
        assert_answered(bench.from_node(&data), Flags::RST, &data);
        let reset = opened.from_node(Flags::RST, 0, 0, &[]);
        bench.from_node(&reset).dropped(DropReason::Absorbed);
        let (ack, fin) = (
            opened.from_node(Flags::ACK, 1, 1, &[]),
            opened.from_node(Flags::FIN_ACK, 0, 1, &[]),
        );
        if way == Way::Finished {
            bench.from_node(&ack).dropped(DropReason::Absorbed);
            assert_answered(bench.from_node(&fin), Flags::ACK, &fin);
        } else {
            assert_answered(bench.from_node(&ack), Flags::RST, &ack);
            assert_answered(bench.from_node(&fin), Flags::RST, &fin);
        }
        assert_eq!(bench.maps.node_stats(bench.node_number(0)).pop(), strays);
    });
}
