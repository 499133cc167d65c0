//! Connections that look alike to a node: of one client port, to two VIPs.

use forwarder_common::abi::{HOMES, NO_HOME, client_address};
use forwarder_common::engine::store::Store;
use forwarder_common::tcp::flag;

use crate::entrance::{Connection, Entrance, NODE_ISN, PUBLIC, TUNNEL, ends, right};

const NONE: u16 = NO_HOME;
/// Reverse VIPs of a node: of both VIPs, one, the other, or none, and then an entry of its own leads to a flow.
const HOMES_OF_NODES: [[u16; HOMES]; 5] = [
    [0, 1, NONE, NONE],
    [0, NONE, NONE, NONE],
    [NONE, NONE, NONE, 1],
    [7, 8, 9, 10],
    [NONE; HOMES],
];

/// Each goes to a node of its own, and what that sends finds its way back.
fn one_client_port_to_two_vips<const V6: bool>(homes: [u16; HOMES]) {
    let mut entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
    entrance.add_node();
    entrance.add_vip(homes);
    let (host, net) = (&entrance.host, entrance.net);
    let one = entrance.connection();
    let other = Connection { vip: 1, ..one };
    let both = [(one.asked(), net.vip), (other.asked(), net.other_vip)];
    assert_ne!(both[0].0.syn.destination, both[1].0.syn.destination);
    assert_eq!(both[0].0.syn.source, both[1].0.syn.source);
    for (asked, vip) in &both {
        asked.accept();
        let data = asked.node(flag::ACK, NODE_ISN + 1, asked.up(), b"whose?");
        assert_eq!(entrance.run(&data), Ok(PUBLIC));
        let passed = right::<V6>(&data);
        assert_eq!(ends(&passed), [*vip, one.end()]);
        assert_eq!(passed.seq, asked.cookie.wrapping_add(1));
    }
    for (asked, _) in &both {
        assert!(host.flow(&asked.connection.key()).is_some());
        let reset = asked.node(flag::RST, NODE_ISN + 1, 0, b"");
        assert_eq!(entrance.run(&reset), Ok(PUBLIC));
        assert!(host.flow(&asked.connection.key()).is_none());
    }
    assert!(host.is_clean());
}

#[test]
fn connections_that_look_alike_go_to_different_nodes() {
    for homes in HOMES_OF_NODES {
        println!("{homes:?}");
        one_client_port_to_two_vips::<false>(homes);
        one_client_port_to_two_vips::<true>(homes);
    }
}

/// The only other node has a connection that looks alike: the client is reset, and the other connection stays.
fn a_refusal_beside_one<const V6: bool>(homes: [u16; HOMES]) {
    let mut entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
    entrance.add_node();
    entrance.add_vip(homes);
    let host = &entrance.host;
    let one = entrance.connection();
    let other = Connection { vip: 1, ..one };
    let (first, second) = (one.asked(), other.asked());
    first.refuse();
    assert!(host.flow(&one.key()).is_none());
    second.accept();
    second.acknowledge();
    let reset = second.node(flag::RST, NODE_ISN + 1, 0, b"");
    assert_eq!(entrance.run(&reset), Ok(PUBLIC));
    assert!(host.is_clean());
}

/// As above, but there is a third node.
fn a_refusal_before_one<const V6: bool>(homes: [u16; HOMES]) {
    let mut entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
    entrance.add_node();
    entrance.add_node();
    entrance.add_vip(homes);
    let host = &entrance.host;
    let one = entrance.connection();
    let other = Connection { vip: 1, ..one };
    let (mut first, second) = (one.asked(), other.asked());
    let packet = first.answer(flag::RST);
    assert_eq!(entrance.run(&packet), Ok(TUNNEL));
    let syn = right::<V6>(&packet);
    assert_ne!(syn.destination, first.syn.destination);
    assert_ne!(syn.destination, second.syn.destination);
    first.syn = syn;
    for asked in [first, second] {
        asked.accept();
        let reset = asked.node(flag::RST, NODE_ISN + 1, 0, b"");
        assert_eq!(entrance.run(&reset), Ok(PUBLIC));
    }
    assert!(host.is_clean());
}

#[test]
fn a_node_that_has_a_connection_which_looks_alike_is_passed_over() {
    for homes in HOMES_OF_NODES {
        println!("{homes:?}");
        a_refusal_beside_one::<false>(homes);
        a_refusal_beside_one::<true>(homes);
        a_refusal_before_one::<false>(homes);
        a_refusal_before_one::<true>(homes);
    }
}
