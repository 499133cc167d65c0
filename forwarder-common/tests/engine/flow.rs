//! Flows, from the hello on.

use forwarder_common::abi::{
    Endpoint, ListenerStats, NodeStats, PathStats, client_address, close_reason, mark, stage, state,
};
use forwarder_common::closed::Ended;
use forwarder_common::engine::closed;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::{DropReason, Verdict};

use crate::entrance::{
    CLIENT_ISN, Entrance, NODE_ISN, PUBLIC, TUNNEL, damaged, ends, on_every_machine,
    options_and_payload, right,
};
use crate::host::zero;

/// A node is asked and answers, data passes both ways, both ends close, and nothing is left.
fn a_flow_from_route_to_close<const V6: bool>(entrance: Entrance<V6>) {
    let (host, net) = (&entrance.host, entrance.net);
    let connection = entrance.connection();
    let asked = connection.asked();
    assert_eq!(host.only_flow().unwrap().state, state::CONNECTING);
    assert_eq!(asked.syn.flags, flag::SYN);
    let to_node = ends(&asked.syn);
    if entrance.mode == client_address::TRANSPARENT {
        assert_eq!(to_node, [connection.end(), net.node]);
    } else {
        let ours = Endpoint::new(net.local, 61_000_u16.to_be());
        assert_eq!(to_node, [ours, net.node]);
    }
    let header_len = CLIENT_ISN.wrapping_sub(asked.syn.seq);
    assert_eq!(
        header_len != 0,
        entrance.mode == client_address::PROXY_V2,
        "room for the PROXY header"
    );

    host.now_ns.set(host.now_ns.get() + 3_000_000);
    asked.accept();
    assert_eq!(host.only_flow().unwrap().state, state::REPLAYING);

    // The node acknowledges all that we answered for.
    let (up, down) = (asked.up(), NODE_ISN + 1);
    let ack = asked.node(flag::ACK, down, up, b"hello back");
    assert_eq!(entrance.run(&ack), Ok(PUBLIC));
    assert_eq!(host.only_flow().unwrap().state, state::SPLICED);
    let passed = right::<V6>(&ack);
    assert_eq!(ends(&passed), [net.vip, connection.end()]);
    let theirs = asked.cookie.wrapping_add(1);
    assert_eq!((passed.seq, passed.ack), (theirs, up));
    assert_eq!(passed.flags, flag::ACK);
    assert_eq!(options_and_payload::<V6>(&ack), b"hello back");

    let theirs = theirs.wrapping_add(10);
    let data = connection.client(flag::ACK | flag::PSH, up, theirs, b"more");
    assert_eq!(entrance.run(&data), Ok(TUNNEL));
    let passed = right::<V6>(&data);
    assert_eq!(ends(&passed), to_node);
    assert_eq!((passed.seq, passed.ack), (up, down + 10));
    assert_eq!(passed.flags, flag::ACK | flag::PSH);
    assert_eq!(options_and_payload::<V6>(&data), b"more");

    // Both close, the client first.
    let fin = connection.client(flag::FIN | flag::ACK, up.wrapping_add(4), theirs, b"bye");
    assert_eq!(entrance.run(&fin), Ok(TUNNEL));
    let passed = right::<V6>(&fin);
    assert_eq!(ends(&passed), to_node);
    assert_eq!((passed.seq, passed.ack), (up.wrapping_add(4), down + 10));
    let end = up.wrapping_add(8);
    let fin = asked.node(flag::FIN | flag::ACK, down + 10, end, b"");
    assert_eq!(entrance.run(&fin), Ok(PUBLIC));
    let passed = right::<V6>(&fin);
    assert_eq!(ends(&passed), [net.vip, connection.end()]);
    assert_eq!((passed.seq, passed.ack), (theirs, end));
    assert!(host.only_flow().is_some());
    let ended = || closed::last(host, &connection.key(), host.now_ns.get());
    assert_eq!(ended(), Ended::Unknown);
    let last = connection.client(flag::ACK, end, theirs.wrapping_add(1), b"");
    assert_eq!(entrance.run(&last), Ok(TUNNEL));
    assert_eq!(ends(&right::<V6>(&last)), to_node);

    assert_eq!(*host.ended.borrow(), [close_reason::FINISHED]);
    assert_eq!(ended(), Ended::Finished);
    assert!(host.is_clean());
    let hello = u64::from(asked.hello_len);
    let headers = if V6 { 60 } else { 40 };
    assert_eq!(
        host.listener_counts(),
        ListenerStats {
            syns: 1,
            cookies: 1,
            hellos: 1,
            hello_bytes: hello,
            hello_segments: 1,
            opened: 1,
            packets: 5,
            bytes: 5 * headers + hello + 7,
            ..zero::listener()
        }
    );
    assert_eq!(
        host.target_counts(0),
        PathStats {
            up_packets: 3,
            up_bytes: 3 * headers + 7,
            down_packets: 2,
            down_bytes: 2 * headers + 10,
            opened: 1,
            closed: 1,
            ..zero::target()
        }
    );
    let mut connect_buckets = [0; 16];
    connect_buckets[4] = 1;
    assert_eq!(
        host.node_counts(0),
        NodeStats {
            syns: 1,
            accepted: 1,
            connect_us: 3_000,
            connect_buckets,
            ..zero::node()
        }
    );
}

#[test]
fn a_flow_of_each_mode_and_family() {
    on_every_machine(a_flow_from_route_to_close, a_flow_from_route_to_close);
}

/// What of the hello the client sends again is ours to send: the node could take it for something else.
fn an_overlap_while_replaying<const V6: bool>(entrance: Entrance<V6>) {
    let connection = entrance.connection();
    let asked = connection.asked();
    asked.accept();
    let (up, theirs) = (asked.up(), asked.cookie.wrapping_add(1));
    for seq in [
        CLIENT_ISN.wrapping_sub(50),
        CLIENT_ISN.wrapping_add(1),
        CLIENT_ISN.wrapping_add(2),
        up.wrapping_sub(1),
    ] {
        let again = connection.client(flag::ACK, seq, theirs, b"forged");
        let verdict = entrance.enter(&again);
        assert!(
            matches!(verdict, Verdict::Next(stage::PENDING)),
            "{}",
            up.wrapping_sub(seq)
        );
        drop(verdict);
        let fin = connection.client(flag::ACK | flag::FIN, seq, theirs, b"forged");
        let verdict = entrance.enter(&fin);
        assert!(matches!(verdict, Verdict::Next(stage::CLIENT_CONTROL)));
        drop(verdict);
    }
    for (seq, payload) in [(up, &b"early"[..]), (CLIENT_ISN.wrapping_add(1), b"")] {
        let beyond = connection.client(flag::ACK, seq, theirs, payload);
        assert_eq!(entrance.run(&beyond), Ok(TUNNEL));
        assert_eq!(ends(&right::<V6>(&beyond)), ends(&asked.syn));
    }
    asked.acknowledge();
    let spliced = connection.client(flag::ACK, CLIENT_ISN.wrapping_add(1), theirs, b"again");
    assert_eq!(entrance.run(&spliced), Ok(TUNNEL));
}

#[test]
fn nothing_of_a_hello_passes_while_it_is_replayed() {
    on_every_machine(an_overlap_while_replaying, an_overlap_while_replaying);
}

fn damaged_fins<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let connection = entrance.connection();
    let asked = connection.asked();
    asked.accept();
    asked.acknowledge();
    let (up, theirs) = (asked.up(), asked.cookie.wrapping_add(1));
    let fin = || connection.client(flag::FIN | flag::ACK, up, theirs, b"");
    let reset = connection.client(flag::RST | flag::ACK, up, theirs, b"");
    let of_node = asked.node(flag::FIN | flag::ACK, NODE_ISN + 1, up, b"");
    let before = host.only_flow();
    for packet in [fin(), reset, of_node] {
        let packet = damaged::<V6>(packet);
        assert_eq!(entrance.run(&packet), Err(DropReason::BadChecksum));
        assert_eq!(host.only_flow(), before);
    }
    assert_eq!(entrance.run(&fin()), Ok(TUNNEL));
    assert_eq!(host.only_flow().unwrap().client_marks, mark::FIN);
}

#[test]
fn a_damaged_fin_or_reset_ends_nothing() {
    on_every_machine(damaged_fins, damaged_fins);
}

/// A reset that is right ends a flow at once, and its buffer is free again.
fn a_reset_while_replaying<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let connection = entrance.connection();
    let asked = connection.asked();
    asked.accept();
    let reset = asked.node(flag::RST, NODE_ISN + 1, 0, b"");
    assert_eq!(entrance.run(&reset), Ok(PUBLIC));
    let passed = right::<V6>(&reset);
    assert_eq!(ends(&passed), [entrance.net.vip, connection.end()]);
    assert_eq!(passed.seq, asked.cookie.wrapping_add(1));
    assert_eq!(*host.ended.borrow(), [close_reason::NODE_RESET]);
    let ended = closed::last(host, &connection.key(), host.now_ns.get());
    assert_eq!(ended, Ended::Cut);
    assert_eq!(host.target_counts(0).reset, 1);
    assert!(host.is_clean());
}

#[test]
fn a_reset_of_the_node_leaves_nothing() {
    on_every_machine(a_reset_while_replaying, a_reset_while_replaying);
}
