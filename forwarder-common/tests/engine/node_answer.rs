//! What a node answers to a SYN.

use forwarder_common::abi::{NodeStats, PathStats, close_reason, state};
use forwarder_common::closed::Ended;
use forwarder_common::engine::closed;
use forwarder_common::handshake::CHALLENGES;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::entrance::{
    CLIENT_ISN, Entrance, NODE_ISN, PUBLIC, TUNNEL, damaged, ends, on_every_machine,
    options_and_payload, right,
};
use crate::host::zero;
use crate::skb::Bytes;

/// An answer that is damaged, or comes by another interface than its node's.
fn an_answer_of_nobody<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let asked = entrance.connection().asked();
    let before = host.only_flow();
    assert_eq!(before.unwrap().state, state::CONNECTING);
    for flags in [flag::SYN, flag::RST] {
        let packet = damaged::<V6>(asked.answer(flags));
        assert_eq!(entrance.run(&packet), Err(DropReason::BadChecksum));
        assert_eq!(host.only_flow(), before);
        let packet = Bytes {
            ifindex: TUNNEL + 1,
            ..asked.answer(flags)
        };
        assert_eq!(entrance.run(&packet), Err(DropReason::NotItsFlow));
        assert_eq!(host.only_flow(), before);
        // A reset in answer to something else.
        let other = asked.syn.seq.wrapping_add(2);
        let packet = asked.node(flag::RST | flag::ACK, NODE_ISN, other, b"");
        assert_eq!(entrance.run(&packet), Err(DropReason::Absorbed));
        assert_eq!(host.only_flow(), before);
    }
    assert_eq!(host.node_counts(0).strays, 2);
    asked.accept();
    let packet = Bytes {
        ifindex: TUNNEL + 1,
        ..asked.node(flag::ACK, NODE_ISN + 1, asked.up(), b"")
    };
    assert_eq!(entrance.run(&packet), Err(DropReason::NotItsFlow));
    assert_eq!(host.only_flow().unwrap().state, state::REPLAYING);
}

#[test]
fn an_answer_that_is_damaged_or_anothers_says_nothing() {
    on_every_machine(an_answer_of_nobody, an_answer_of_nobody);
}

/// The node still knows another connection: it is told to forget that one, and asked again, a few times.
fn a_challenge<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let asked = entrance.connection().asked();
    let challenge = |n: u32| asked.node(flag::ACK, 1_000 + n, 7_000 + n, b"");
    for n in 0..CHALLENGES {
        let packet = challenge(n);
        assert_eq!(entrance.run(&packet), Ok(TUNNEL));

        let [(ifindex, copy)] = &packet.sent.borrow()[..] else {
            panic!("one reset is sent");
        };
        assert_eq!(*ifindex, TUNNEL);
        let copy = Bytes::new(host, TUNNEL, copy.clone());
        let reset = right::<V6>(&copy);
        assert_eq!(ends(&reset), ends(&asked.syn));
        assert_eq!((reset.seq, reset.ack), (7_000 + n, 0));
        assert_eq!(reset.flags, flag::RST);
        assert_eq!(options_and_payload::<V6>(&copy), b"");

        let syn = right::<V6>(&packet);
        assert_eq!(ends(&syn), ends(&asked.syn));
        assert_eq!((syn.seq, syn.ack), (asked.syn.seq, 0));
        assert_eq!(syn.flags, flag::SYN);
        assert_eq!(options_and_payload::<V6>(&packet), asked.options);
        assert_eq!(host.only_flow().unwrap().state, state::CONNECTING);
    }
    let packet = challenge(CHALLENGES);
    assert_eq!(entrance.run(&packet), Err(DropReason::Absorbed));
    assert!(packet.sent.borrow().is_empty());
    assert_eq!(host.node_counts(0).syns, 1 + u64::from(CHALLENGES));

    asked.accept();
    assert_eq!(host.only_flow().unwrap().state, state::REPLAYING);
}

#[test]
fn a_node_that_knows_an_older_connection_is_asked_again() {
    on_every_machine(a_challenge, a_challenge);
}

fn a_refusal<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let connection = entrance.connection();
    let asked = connection.asked();
    let packet = asked.answer(flag::RST);
    assert_eq!(entrance.run(&packet), Ok(PUBLIC));
    assert!(packet.sent.borrow().is_empty());

    let reset = right::<V6>(&packet);
    assert_eq!(ends(&reset), [entrance.net.vip, connection.end()]);
    assert_eq!(reset.flags, flag::RST | flag::ACK);
    assert_eq!(reset.seq, asked.cookie.wrapping_add(1));
    assert_eq!(
        reset.ack,
        CLIENT_ISN.wrapping_add(1).wrapping_add(asked.hello_len)
    );
    assert_eq!(options_and_payload::<V6>(&packet), b"");

    assert_eq!(host.dropped(DropReason::NodesUnreachable), 1);
    assert_eq!(*host.ended.borrow(), [close_reason::NO_NODE]);
    let ended = closed::last(host, &connection.key(), host.now_ns.get());
    assert_eq!(ended, Ended::Unknown, "the client may try again");
    assert!(host.is_clean());
    let counts = PathStats {
        failed: 1,
        ..zero::target()
    };
    assert_eq!(host.target_counts(0), counts);
    let counts = NodeStats {
        syns: 1,
        syn_resets: 1,
        ..zero::node()
    };
    assert_eq!(host.node_counts(0), counts);
}

#[test]
fn a_client_whose_node_refuses_is_reset() {
    on_every_machine(a_refusal, a_refusal);
}

/// The next node is asked, and takes the connection.
fn a_refusal_of_the_first<const V6: bool>(mut entrance: Entrance<V6>) {
    entrance.add_node();
    let host = &entrance.host;
    let mut asked = entrance.connection().asked();
    let [source, first] = ends(&asked.syn);
    let packet = asked.answer(flag::RST);
    assert_eq!(entrance.run(&packet), Ok(TUNNEL));
    let syn = right::<V6>(&packet);
    let [same, next] = ends(&syn);
    assert_eq!(same, source);
    assert_ne!(next, first);
    assert_eq!((syn.flags, syn.seq), (flag::SYN, asked.syn.seq));
    assert_eq!(options_and_payload::<V6>(&packet), asked.options);

    asked.syn = syn;
    asked.accept();
    assert_eq!(host.only_flow().unwrap().state, state::REPLAYING);
    let reset = asked.node(flag::RST, NODE_ISN + 1, 0, b"");
    assert_eq!(entrance.run(&reset), Ok(PUBLIC));
    assert!(host.is_clean());
    let [first, next] = [first, next].map(|node| entrance.number_of(&node));
    assert_eq!(host.node_counts(first).syn_resets, 1);
    assert_eq!(host.node_counts(first).accepted, 0);
    assert_eq!(host.node_counts(next).accepted, 1);
    assert_eq!(host.target_counts(next).reset, 1);
    assert_eq!(host.target_counts(first), zero::target());
}

#[test]
fn the_next_node_is_asked_when_one_refuses() {
    on_every_machine(a_refusal_of_the_first, a_refusal_of_the_first);
}
