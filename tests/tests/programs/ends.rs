//! How a flow ends: FIN both ways, an exact reset, and what is left of it.

use forwarder_common::abi::{close_reason, event_kind, mark};
use forwarder_common::verdict::DropReason::{self, UnknownFlow};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

fn each_flow(mut test: impl FnMut(&mut Bench, &Opened)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            println!("{shape:?} {mode:?}");
            let opened = Client::open(&mut bench, mode);
            opened.splice(&mut bench);
            bench.maps.events();
            test(&mut bench, &opened);
        }
    }
}

fn lives(bench: &Bench, opened: &Opened) -> bool {
    bench.flow(opened.client.address, Refusal::Alert).is_some()
}

/// That nothing of a flow is left, and that this was told.
#[track_caller]
fn assert_ended(bench: &mut Bench, opened: &Opened, reason: u32, up: u64, down: u64) {
    assert!(!lives(bench, opened));
    assert_eq!(bench.maps.reverse.keys().count(), 0);
    let (ports, buffers) = bench.maps.free();
    assert_eq!((ports.len(), buffers.len()), (1_024, 256));
    if opened.mode != Mode::Transparent {
        assert_eq!(
            ports.last(),
            Some(&u32::from(opened.syn.source.port())),
            "used again last"
        );
    }
    let [event] = bench.maps.events()[..] else {
        panic!("one event")
    };
    assert_eq!((event.kind, event.reason), (event_kind::CLOSED, reason));
    assert_eq!(
        event.flow,
        bench.flow_key(opened.client.address, Refusal::Alert)
    );
    assert_eq!((event.up_bytes, event.down_bytes), (up, down));
    assert_eq!(event.path, opened.mode.path_base() + bench.node_number(0));
    // What comes afterwards is of no flow.
    let late = opened.from_client(Flags::ACK, 9, 9, &[]);
    let seen = bench.from_client(&late);
    assert!(
        matches!(seen.reasons[..], [UnknownFlow | DropReason::Absorbed]),
        "{seen:?}"
    );
}

#[test]
fn the_client_closes_first() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        let path = opened.mode.path_base() + bench.node_number(0);
        let closed = bench.maps.path_stats(path)[5];
        bench.from_client(&opened.from_client(Flags::PSH_ACK, 0, 0, b"request"));
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 7, b"answer"));
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 7, 6, &[]));
        assert!(lives(bench, opened), "half closed");
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 6, 8, b"more"));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 10, 8, &[]));
        assert!(
            lives(bench, opened),
            "the node does not know yet that its FIN arrived"
        );
        let last = bench.from_client(&opened.from_client(Flags::ACK, 8, 11, &[]));
        assert_eq!(
            last.segment().destination,
            opened.syn.destination,
            "the last one passes"
        );
        assert_ended(bench, opened, close_reason::FINISHED, hello + 7, 10);
        assert_eq!(bench.maps.path_stats(path)[5], closed + 1);
    });
}

#[test]
fn the_node_closes_first() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        bench.from_node(&opened.from_node(Flags::FIN_ACK.with(Flags::PSH), 0, 0, b"bye"));
        bench.from_client(&opened.from_client(Flags::ACK, 0, 4, &[]));
        bench.from_client(&opened.from_client(Flags::PSH_ACK, 0, 4, b"still here"));
        bench.from_node(&opened.from_node(Flags::ACK, 4, 10, &[]));
        assert!(lives(bench, opened));
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 10, 4, &[]));
        assert!(lives(bench, opened));
        let last = bench.from_node(&opened.from_node(Flags::ACK, 4, 11, &[]));
        assert_eq!(last.segment().destination, opened.client.address);
        assert_ended(bench, opened, close_reason::FINISHED, hello + 10, 3);
    });
}

/// FINs that cross, and one that comes twice.
#[test]
fn both_close_at_once() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_node(&opened.from_node(Flags::ACK, 1, 1, &[]));
        assert!(lives(bench, opened));
        bench.from_client(&opened.from_client(Flags::ACK, 1, 1, &[]));
        assert_ended(bench, opened, close_reason::FINISHED, hello, 0);
    });
}

/// A client that is gone answers what the node sent before it knew of the client's FIN: it stood one before it then,
/// and Linux takes that. Nobody says anything afterwards.
#[test]
fn a_reset_one_before_an_acknowledged_fin() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 0, b"bye"));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 3, 1, &[]));
        let seen = bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
        assert_eq!(seen.segment().destination, opened.syn.destination);
        assert_ended(bench, opened, close_reason::CLIENT_RESET, hello, 0);
    });
}

/// An end that closes with data unread resets behind its last byte; the other one's acknowledgement of that byte comes
/// by after the reset, and it was the last it said.
#[test]
fn a_reset_that_overtakes_an_acknowledgement() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        bench.from_client(&opened.from_client(Flags::PSH_ACK, 0, 0, b"request"));
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 7, 0, &[]));
        bench.from_client(&opened.from_client(Flags::RST, 8, 0, &[]));
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 7, b"answer"));
        assert!(lives(bench, opened), "what it had before the FIN");
        let last = bench.from_node(&opened.from_node(Flags::FIN_ACK, 6, 8, &[]));
        assert_eq!(last.segment().destination, opened.client.address);
        assert_ended(bench, opened, close_reason::FINISHED, hello + 7, 0);

        let opened = &Client::open(bench, opened.mode);
        opened.splice(bench);
        bench.maps.events();
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 0, b"answer"));
        bench.from_node(&opened.from_node(Flags::RST, 6, 0, &[]));
        assert!(lives(bench, opened), "only the node knows yet");
        bench.from_client(&opened.from_client(Flags::ACK, 0, 6, &[]));
        assert_ended(bench, opened, close_reason::FINISHED, hello, 6);
    });
}

/// A reset with exactly the number the receiver expects ends the flow (RFC 5961 3.2).
#[test]
fn an_exact_reset_of_the_client() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        let path = opened.mode.path_base() + bench.node_number(0);
        let resets = bench.maps.path_stats(path)[6];
        let mut reset = opened.from_client(Flags::RST, 0, 0, &[]);
        reset.ack = 0;
        let seen = bench.from_client(&reset).segment();
        assert_eq!((seen.flags, seen.seq, seen.ack), (Flags::RST, reset.seq, 0));
        assert_eq!(seen.destination, opened.syn.destination);
        assert_ended(bench, opened, close_reason::CLIENT_RESET, hello, 0);
        assert_eq!(bench.maps.path_stats(path)[6], resets + 1);
    });
}

#[test]
fn an_exact_reset_of_the_node() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 0, b"half"));
        bench.from_client(&opened.from_client(Flags::ACK, 0, 4, &[]));
        let reset = opened.from_node(Flags::RST_ACK, 4, 0, &[]);
        let seen = bench.from_node(&reset).segment();
        assert_eq!(
            (seen.flags, seen.destination),
            (Flags::RST_ACK, opened.client.address)
        );
        assert_eq!(seen.seq, opened.client.cookie.wrapping_add(5));
        assert_ended(bench, opened, close_reason::NODE_RESET, hello, 4);
    });
}

/// Client and node have forgotten the flow, and the client comes anew from the same port: the node is asked, and its
/// reset is exact. The client's next SYN is answered by us.
#[test]
fn both_ends_forgot_it() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        let mut syn = opened.client.syn(&LINUX);
        syn.seq = syn.seq.wrapping_add(0x1234_5678);
        let asked = bench.from_client(&syn).segment();
        assert_eq!(asked.destination, opened.syn.destination);
        // An old SYN-ACK, or any other, is nothing.
        let mut old = opened.syn_ack(&LINUX);
        bench.from_node(&old).dropped(DropReason::Absorbed);
        old.seq = old.seq.wrapping_add(0x2222_2222);
        old.ack = syn.seq.wrapping_add(1);
        bench.from_node(&old).dropped(DropReason::Absorbed);
        assert!(lives(bench, opened));
        // RFC 9293 3.10.7.1: <SEQ=SEG.ACK><CTL=RST>
        let mut reset = Segment::new(asked.destination, asked.source, Flags::RST);
        reset.seq = asked.ack;
        let seen = bench.from_node(&reset).segment();
        assert_eq!(seen.destination, opened.client.address);
        assert_ended(bench, opened, close_reason::NODE_RESET, hello, 0);
        let answer = bench.from_client(&syn).segment();
        assert_eq!(
            (answer.flags, answer.ack, answer.destination),
            (Flags::SYN_ACK, syn.seq.wrapping_add(1), syn.source)
        );
    });
}

/// The node is silent: SYNs alone decide nothing, however many come and however late.
#[test]
fn nobody_answers_a_syn_on_a_live_flow() {
    each_flow(|bench, opened| {
        let mut syn = opened.client.syn(&LINUX);
        syn.seq = syn.seq.wrapping_add(0x1234_5678);
        let key = bench.flow_key(opened.client.address, Refusal::Alert);
        for _ in 0..5 {
            let seen = bench.from_client(&syn).segment();
            assert_eq!(seen.destination, opened.syn.destination);
            let mut flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            flow.seen_ms = flow.seen_ms.wrapping_sub(10_000);
            flow.client_marks ^= 4 << mark::TICK_SHIFT;
            bench.maps.flows.insert(key, flow, 0).unwrap();
        }
        assert!(lives(bench, opened));
        assert!(bench.maps.events().is_empty());
    });
}

/// Acknowledgements of what the node never sent, before an orderly close: nothing is left of the flow.
#[test]
fn acknowledgements_ahead_of_the_node() {
    each_flow(|bench, opened| {
        let hello = opened.hello.len() as u64;
        for ahead in [1 << 20, 32 << 20, 64 << 20, 1 << 30] {
            bench.from_client(&opened.from_client(Flags::ACK, 0, ahead, &[]));
        }
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 0, 1, &[]));
        bench.from_client(&opened.from_client(Flags::ACK, 1, 1, &[]));
        assert_ended(bench, opened, close_reason::FINISHED, hello, 0);
    });
}

/// Any other reset passes and leaves a mark; whoever goes on talking takes it away.
#[test]
fn a_guessed_reset_ends_nothing() {
    each_flow(|bench, opened| {
        for at in [1, 500, 0_u32.wrapping_sub(1)] {
            let seen = bench.from_client(&opened.from_client(Flags::RST, at, 0, &[]));
            assert_eq!(seen.segment().destination, opened.syn.destination);
            let seen = bench.from_node(&opened.from_node(Flags::RST, at, 0, &[]));
            assert_eq!(seen.segment().destination, opened.client.address);
        }
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        // Everybody knows how much the node has sent.
        let marked = mark::RESET | mark::RESET_AT_END;
        assert_eq!((flow.client_marks, flow.node_marks), (marked, mark::RESET));
        bench.from_node(&opened.from_node(Flags::ACK, 0, 0, &[]));
        bench.from_client(&opened.from_client(Flags::ACK, 0, 0, &[]));
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!((flow.client_marks | flow.node_marks) & mark::RESET, 0);
        // And far from what is expected not even that.
        bench.from_client(&opened.from_client(Flags::RST, 1 << 30, 0, &[]));
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!(flow.client_marks & mark::RESET, 0);
        assert!(bench.maps.events().is_empty());
    });
}

/// An acknowledgement of what was never sent does not close the other half.
#[test]
fn guessed_ends() {
    each_flow(|bench, opened| {
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 100, 0, &[]));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 200, 0, &[]));
        bench.from_client(&opened.from_client(Flags::ACK, 0, 500, &[]));
        assert!(lives(bench, opened));
        bench.from_node(&opened.from_node(Flags::ACK, 0, 1, &[]));
        assert!(lives(bench, opened));
        assert!(bench.maps.events().is_empty());
    });
}

/// A node that resets while it is owed the hello takes its buffer with it.
#[test]
fn a_reset_right_after_the_handshake() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            let opened = Client::open(&mut bench, mode);
            opened.accept(&mut bench);
            bench.maps.events();
            let reset = opened.from_node(Flags::RST, 0, 0, &[]);
            let seen = bench.from_node(&reset).segment();
            assert_eq!(seen.destination, opened.client.address);
            assert!(!lives(&bench, &opened));
            assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
            assert_eq!(bench.maps.free().1.len(), 256);
        }
    }
}

/// A client that forgot its flow begins again from the same port: the node's challenge makes it reset the
/// old one (RFC 5961 4.2), and its next SYN is answered like any other.
#[test]
fn a_client_that_begins_again() {
    each_flow(|bench, opened| {
        let mut again = opened.client.clone();
        again.isn = again.isn.wrapping_add(0x3333_3333);
        let syn = bench.from_client(&again.syn(&LINUX));
        assert_eq!(syn.segment().destination, opened.syn.destination);
        let challenge = bench.from_node(&opened.from_node(Flags::ACK, 0, 0, &[]));
        let challenge = challenge.segment();
        assert_eq!(challenge.destination, again.address);
        let mut reset = Segment::new(again.address, again.vip, Flags::RST);
        reset.seq = challenge.ack;
        let seen = bench.from_client(&reset).segment();
        assert_eq!(
            (seen.flags, seen.destination),
            (Flags::RST, opened.syn.destination)
        );
        assert!(!lives(bench, opened));
        let answer = bench.from_client(&again.syn(&LINUX)).segment();
        assert_eq!(
            (answer.flags, answer.destination),
            (Flags::SYN_ACK, again.address)
        );
        again.cookie = answer.seq;
        assert!(again.is_cookie(again.cookie));
        let syn = again.send(bench, 0, &opened.hello).segment();
        assert_eq!(
            (syn.flags, syn.destination),
            (Flags::SYN, opened.syn.destination)
        );
    });
}
