//! Hellos that no node is asked about.

use forwarder_common::abi::{FlowKey, client_address};
use forwarder_common::engine::store::Store;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::entrance::{Connection, Entrance, NAME, NODE_ISN, PUBLIC, on_every_machine};
use crate::host::zero;

/// A hello with this name is refused for this reason, and the node hears nothing of it.
fn is_refused<const V6: bool>(connection: Connection<V6>, name: &[u8], reason: DropReason) {
    let host = &connection.entrance.host;
    let before = (host.node_counts(0), host.target_counts(0));
    let opened = host.listener_counts().opened;
    let refused = connection.judged(connection.cookie(), name);
    assert_eq!(refused.err(), Some(reason));
    assert_eq!((host.node_counts(0), host.target_counts(0)), before);
    assert_eq!(host.listener_counts().opened, opened);
    assert!(host.flow(&connection.key()).is_none());
}

/// The same on a machine that has nothing else, and nothing after it.
fn refuses<const V6: bool>(entrance: &Entrance<V6>, name: &[u8], reason: DropReason) {
    is_refused(entrance.connection(), name, reason);
    assert!(entrance.host.is_clean());
    assert!(entrance.host.ended.borrow().is_empty());
    assert_eq!(entrance.host.listener_counts().hellos, 1);
    assert_eq!(entrance.host.node_counts(0), zero::node());
}

fn an_unlisted_name<const V6: bool>(entrance: Entrance<V6>) {
    refuses(&entrance, b"www.example.com", DropReason::UnlistedName);
}

#[test]
fn an_unlisted_name_is_refused() {
    on_every_machine(an_unlisted_name, an_unlisted_name);
}

fn a_closed_node<const V6: bool>(mut entrance: Entrance<V6>) {
    entrance.host.nodes[0].closed = 1;
    refuses(&entrance, NAME, DropReason::NoNode);
}

fn a_node_without_a_tunnel<const V6: bool>(mut entrance: Entrance<V6>) {
    entrance.host.nodes[0].ifindex = 0;
    refuses(&entrance, NAME, DropReason::NoNode);
}

fn no_node<const V6: bool>(mut entrance: Entrance<V6>) {
    entrance.host.pools[0].nodes = 0;
    refuses(&entrance, NAME, DropReason::NoNode);
}

#[test]
fn a_node_that_is_closed_or_absent_is_not_asked() {
    on_every_machine(a_closed_node, a_closed_node);
    on_every_machine(a_node_without_a_tunnel, a_node_without_a_tunnel);
    on_every_machine(no_node, no_node);
}

fn a_pool_that_refuses<const V6: bool>(mut entrance: Entrance<V6>) {
    let now = entrance.host.now_ns.get();
    entrance.host.pools[0].refuse_until_ns = now + 1;
    refuses(&entrance, NAME, DropReason::NoNode);
    entrance.host.now_ns.set(now + 1);
    entrance.connection().asked();
}

#[test]
fn a_pool_refuses_until_its_time() {
    on_every_machine(a_pool_that_refuses, a_pool_that_refuses);
}

/// The first connection of a source is not the last; the next after as many as there may be is refused, until one ends.
fn a_source_with_too_many<const V6: bool>(mut entrance: Entrance<V6>) {
    entrance.host.settings.flows_per_source = 2;
    let [first, second, third] = [1, 2, 3].map(|port: u16| Connection {
        port_be: port.to_be(),
        ..entrance.connection()
    });
    let asked = first.asked();
    let others = second.asked();
    is_refused(third, NAME, DropReason::SourceLimit);
    asked.refuse();
    third.asked().refuse();
    others.refuse();
    assert!(entrance.host.is_clean());
}

#[test]
fn a_source_has_as_many_connections_as_it_may() {
    on_every_machine(a_source_with_too_many, a_source_with_too_many);
}

/// What has a source port each, until there is none.
fn more_than_ports<const V6: bool>(entrance: Entrance<V6>) {
    let of_port = |port: u16| Connection {
        port_be: port.to_be(),
        ..entrance.connection()
    };
    let open = |port| {
        let asked = of_port(port).asked();
        asked.accept();
        asked.acknowledge();
        asked
    };
    let all: Vec<_> = (1..=8).map(open).collect();
    if entrance.mode != client_address::TRANSPARENT {
        is_refused(of_port(9), NAME, DropReason::SourcePortsExhausted);
    }
    for asked in all {
        let reset = asked.node(flag::RST, NODE_ISN + 1, 0, b"");
        assert_eq!(entrance.run(&reset), Ok(PUBLIC));
        of_port(9).asked().refuse();
    }
    assert!(entrance.host.is_clean());
}

#[test]
fn source_ports_are_lent() {
    on_every_machine(more_than_ports, more_than_ports);
}

/// What was made for a flow before it finds no place is taken back.
fn a_full_table<const V6: bool>(entrance: Entrance<V6>) {
    let host = &entrance.host;
    let others = (0..).map(|port_be| FlowKey {
        port_be,
        ..zero::KEY
    });
    let others: Vec<_> = others
        .take_while(|key| host.insert_flow(key, &zero::flow()).is_ok())
        .collect();
    is_refused(entrance.connection(), NAME, DropReason::FlowTableFull);
    for key in &others {
        assert!(host.remove_flow(key));
    }
    assert!(host.is_clean());
    entrance.connection().asked().refuse();
    assert!(host.is_clean());
}

#[test]
fn a_connection_that_finds_no_place_leaves_nothing() {
    on_every_machine(a_full_table, a_full_table);
}
