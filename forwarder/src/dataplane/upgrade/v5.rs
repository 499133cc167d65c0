//! What the maps of layout v5 hold, and what it means in the present layout. Layouts of the past never change.
//!
//! Numbers of claimed addresses, nodes, paths and names are the registry's, which is taken over with them; so they
//! mean the same on both sides.

#![allow(
    missing_docs,
    reason = "the fields are those of the present layout, and described there"
)]

use aya::Pod;
use forwarder_common::abi::{self, Address, mark, state};
use forwarder_common::node_options::NodeOptions;

use crate::dataplane::clock::elapsed_ms;

/// The layout.
pub const VERSION: u32 = 5;
/// Priority of its filters under clsact.
pub const PRIORITY: u16 = 10;

/// A node that has not answered by then will not, ms.
const UNANSWERED_MS: u32 = 10_000;
/// A hello that the node has not acknowledged by then is lost, ms.
const UNCONFIRMED_MS: u32 = 30_000;

/// Key of `FLOWS` and `HELLO_INDEX`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    pub client: Address,
    pub port_be: u16,
    pub vip: u16,
}

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub client_isn: u32,
    pub entrance_isn: u32,
    pub delta: u32,
    pub name: u32,
    pub opened_ms: u32,
    pub seen_ms: u32,
    pub client_end: u32,
    pub node_end: u32,
    pub client_acked: u64,
    pub node_acked: u64,
    pub public_link: u32,
    pub node: u16,
    pub path: u16,
    pub source_port_be: u16,
    pub client_address: u8,
    pub pad: u8,
    pub state: u8,
    pub node_scale: u8,
    pub client_marks: u8,
    pub node_marks: u8,
}

/// Value of `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name_secret: [u64; 2],
    pub reset_interval_ns: u64,
    pub reset_fill_ns: u64,
    pub syn_interval_us: u32,
    pub syns_per_node: u32,
    pub hello_steal_ms: u32,
    pub events: u32,
    pub hellos: u32,
    pub first_port: u32,
}

/// Value of `VIPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    pub address: Address,
    pub port_be: u16,
    pub listener: u16,
    pub rest: [u32; 5],
}

/// Value of `PATHS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub listener: u16,
    pub route: u16,
    pub pool: u16,
    pub node: u16,
    pub rest: [u32; 2],
}

/// Key of `NODE_INDEX`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub port_be: u16,
    pub pad: [u16; 3],
}

const _: () = assert!(size_of::<FlowKey>() == 20 && size_of::<Flow>() == 64);
const _: () = assert!(size_of::<Settings>() == 56 && size_of::<Vip>() == 40);
const _: () = assert!(size_of::<Path>() == 16 && size_of::<Endpoint>() == 24);

// SAFETY: integers and arrays of integers without padding: any bytes are valid.
unsafe impl Pod for FlowKey {}
// SAFETY: as above.
unsafe impl Pod for Flow {}
// SAFETY: as above.
unsafe impl Pod for Settings {}
// SAFETY: as above.
unsafe impl Pod for Vip {}
// SAFETY: as above.
unsafe impl Pod for Path {}
// SAFETY: as above.
unsafe impl Pod for Endpoint {}

/// What is to be done with a flow of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both ends talk to each other: it is taken over.
    Taken(abi::Flow),
    /// The programs of its time go on with it: it is about to be spliced.
    Waits,
    /// It will not be spliced any more.
    Over,
}

/// The same key.
pub fn key(old: &FlowKey) -> abi::FlowKey {
    abi::FlowKey {
        client: old.client,
        port_be: old.port_be,
        vip: old.vip,
    }
}

/// What becomes of a flow at this time.
pub fn fate(old: &Flow, now_ms: u32) -> Fate {
    let over = match old.state {
        state::SPLICED => return Fate::Taken(converted(old)),
        state::CONNECTING => elapsed_ms(old.opened_ms, now_ms) > UNANSWERED_MS,
        _ => elapsed_ms(old.seen_ms, now_ms) > UNCONFIRMED_MS,
    };
    if over { Fate::Over } else { Fate::Waits }
}

fn converted(old: &Flow) -> abi::Flow {
    abi::Flow {
        client_isn: old.client_isn,
        entrance_isn: old.entrance_isn,
        delta: old.delta,
        name: old.name,
        opened_ms: old.opened_ms,
        seen_ms: old.seen_ms,
        client_end: old.client_end,
        node_end: node_end(old),
        client_acked: old.client_acked,
        node_acked: old.node_acked,
        public_link: old.public_link,
        node: old.node,
        path: old.path,
        source_port_be: old.source_port_be,
        client_address: old.client_address,
        state: old.state,
        node_options: node_options(old),
        client_marks: old.client_marks & KEPT,
        node_marks: old.node_marks & KEPT,
    }
}

/// Marks that mean the same. Questions to nodes begin anew, and so does the wait for what a reset needs.
const KEPT: u8 = mark::FIN | mark::RESET;

/// What the node has sent: up to its FIN, or as far as is known, what the client has acknowledged. Its next segment tells
/// of more.
fn node_end(old: &Flow) -> u32 {
    if old.node_marks & mark::FIN != 0 {
        old.node_end
    } else {
        old.entrance_isn.wrapping_add(old.client_acked as u32)
    }
}

/// The node's window scale, and no bound for segments: what it offered else is not known any more.
fn node_options(old: &Flow) -> u16 {
    let NodeOptions(unbounded) = NodeOptions::new(u32::from(old.node_scale), u32::MAX, false);
    unbounded
}

/// Whether both are about one connection.
pub fn is_same(old: &Flow, new: &abi::Flow) -> bool {
    (old.client_isn, old.entrance_isn) == (new.client_isn, new.entrance_isn)
}

/// What the programs of the past have learnt about a flow after it was `copied` and that the copy lacks; `None` if
/// that is nothing.
pub fn merged(copied: &Flow, old: &Flow, new: &abi::Flow) -> Option<abi::Flow> {
    let mut all = *new;
    all.client_acked = all.client_acked.max(old.client_acked);
    all.node_acked = all.node_acked.max(old.node_acked);
    if old.client_marks & !copied.client_marks & mark::FIN != 0 {
        all.client_marks |= mark::FIN;
        all.client_end = old.client_end;
    }
    if old.node_marks & !copied.node_marks & mark::FIN != 0 {
        all.node_marks |= mark::FIN;
        all.node_end = old.node_end;
    }
    if all.node_marks & mark::FIN == 0 {
        let behind = all.node_expected().wrapping_sub(all.node_end);
        if behind.cast_signed() > 0 {
            all.node_end = all.node_expected();
        }
    }
    (all != *new).then_some(all)
}

#[cfg(test)]
mod tests {
    use forwarder_common::abi::client_address;

    use super::*;

    fn flow() -> Flow {
        Flow {
            client_isn: 1,
            entrance_isn: 2,
            delta: 3,
            name: 4,
            opened_ms: 5_000,
            seen_ms: 6_000,
            client_end: 7,
            node_end: 8,
            client_acked: 9 << 32,
            node_acked: 10 << 32,
            public_link: 11,
            node: 12,
            path: 13,
            source_port_be: 14_u16.to_be(),
            client_address: client_address::PROXY_V2,
            pad: 0,
            state: state::SPLICED,
            node_scale: 7,
            client_marks: mark::ALIVE,
            node_marks: 0,
        }
    }

    fn taken(old: &Flow) -> abi::Flow {
        match fate(old, 7_000) {
            Fate::Taken(new) => new,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_spliced_flow_is_what_it_was() {
        let old = flow();
        let new = taken(&old);
        assert!(is_same(&old, &new));
        // Everything that translates a segment, and everything that tells when the flow ends.
        assert_eq!(
            (new.delta, new.public_link, new.state),
            (3, 11, state::SPLICED)
        );
        let offered = new.node_options();
        assert_eq!((offered.scale(), offered.is_too_big(60_000)), (7, false));
        assert_eq!((new.client_acked, new.node_acked), (9 << 32, 10 << 32));
        assert_eq!((new.client_end, new.node_end), (7, new.node_expected()));
        assert_eq!((new.client_marks, new.node_marks), (0, 0));
        let closing = taken(&Flow {
            node_marks: mark::FIN | mark::RESET | mark::RESET_AT_END,
            ..old
        });
        assert_eq!(closing.node_end, 8);
        assert_eq!(closing.node_marks, mark::FIN | mark::RESET);
        assert_eq!((new.name, new.node, new.path), (4, 12, 13));
        assert_eq!((new.opened_ms, new.seen_ms), (5_000, 6_000));
        assert!(new.is_served_by(14_u16.to_be()));
        let old = Flow {
            client_address: client_address::TRANSPARENT,
            ..old
        };
        assert!(taken(&old).is_seen_by(12));
    }

    #[test]
    fn what_is_not_spliced_waits_and_not_for_ever() {
        let connecting = Flow {
            state: state::CONNECTING,
            ..flow()
        };
        assert_eq!(fate(&connecting, 15_000), Fate::Waits);
        assert_eq!(fate(&connecting, 15_001), Fate::Over);
        let replaying = Flow {
            state: state::REPLAYING,
            ..flow()
        };
        assert_eq!(fate(&replaying, 36_000), Fate::Waits);
        assert_eq!(fate(&replaying, 36_001), Fate::Over);
        // Heard after this time was read.
        assert_eq!(fate(&replaying, 5_990), Fate::Waits);
    }

    #[test]
    fn what_was_learnt_meanwhile_is_not_lost() {
        let copied = flow();
        let new = taken(&copied);
        assert_eq!(merged(&copied, &copied, &new), None);
        let further = Flow {
            client_acked: copied.client_acked + 50,
            ..copied
        };
        let all = merged(&copied, &further, &new).unwrap();
        assert_eq!(all.node_end, all.node_expected());
        let old = Flow {
            client_marks: mark::ALIVE | mark::FIN,
            client_end: 70,
            node_acked: 20 << 32,
            ..copied
        };
        let ahead = abi::Flow {
            node_marks: mark::FIN,
            node_end: 80,
            client_acked: 30 << 32,
            ..new
        };
        let all = merged(&copied, &old, &ahead).unwrap();
        assert_eq!((all.client_end, all.node_end), (70, 80));
        assert_eq!(all.client_marks, mark::FIN);
        assert_eq!(all.node_marks, mark::FIN);
        assert_eq!((all.client_acked, all.node_acked), (30 << 32, 20 << 32));
    }
}
