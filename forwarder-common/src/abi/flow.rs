//! Connections: their keys and their state.

use super::address::Address;
use super::pool::client_address;

abi! {
    /// A connection as the client sees it.
    20 struct FlowKey {
        /// The client's address.
        client: Address,
        /// The client's port, network order.
        port_be: u16,
        /// Index of [`super::map::VIPS`].
        vip: u16,
    }

    /// A connection as its node sees it, which sees the client's address.
    20 struct ReverseKey {
        /// The client's address.
        client: Address,
        /// The client's port, network order.
        port_be: u16,
        /// Index of [`super::map::NODES`].
        node: u16,
    }

    /// One connection. Each field has one writer, named in brackets; `(once)` fields are written before
    /// the state that publishes them.
    64 struct Flow {
        /// [public, once] The client's initial sequence number.
        client_isn: u32,
        /// [public, once] Ours towards the client: the SYN cookie, with the client's options in its low byte.
        entrance_isn: u32,
        /// [tunnel, once] What is added to the node's sequence numbers: `entrance_isn − node_isn`.
        delta: u32,
        /// [public, once] Number of the listed name.
        name: u32,
        /// [public, once] When the flow was made, ms. With `entrance_isn` it makes the flow's unique id.
        opened_ms: u32,
        /// [both] When a segment last passed, ms. Either side writes the present, so a lost write is harmless.
        seen_ms: u32,
        /// [public] Sequence number that follows the client's FIN.
        client_end: u32,
        /// [tunnel; made by public] Sequence number that follows all that the node has sent, its SYN and FIN included,
        /// in the client's view. The client can have acknowledged no more.
        node_end: u32,
        /// [public] Bytes of the node's that the client has acknowledged; low half + `entrance_isn` = its ACK.
        client_acked: u64,
        /// [tunnel] Bytes of the client's that the node has acknowledged; low half + `client_isn` = its ACK.
        node_acked: u64,
        /// [public] Public interface that the client's last segment came in by; [`super::link::NO_HEADER`] is set when that has
        /// no Ethernet header.
        public_link: u32,
        /// [under the hello's lock] Index of [`super::map::NODES`]: the node that was asked last, and answered.
        node: u16,
        /// [under the hello's lock] Index of [`super::map::PATHS`] with that node.
        path: u16,
        /// [public, once] Source port towards the node, network order.
        source_port_be: u16,
        /// [public, once] [`super::client_address`] of the pool.
        client_address: u8,
        /// [tunnel] [`state`]; made by public.
        state: u8,
        /// [tunnel, once] What the node offered: [`crate::node_options::NodeOptions`].
        node_options: u16,
        /// [public] [`mark`] bits of what the client sent.
        client_marks: u8,
        /// [tunnel] [`mark`] bits of what the node sent.
        node_marks: u8,
    }
}

/// [`Flow::state`].
pub mod state {
    /// The node has not answered yet; client data is held back.
    pub const CONNECTING: u8 = 0;
    /// The node answered; the hello was sent to it and is kept until it acknowledges it.
    pub const REPLAYING: u8 = 1;
    /// The node has everything we held: both ends talk to each other.
    pub const SPLICED: u8 = 2;
}

/// [`Flow::client_marks`] and [`Flow::node_marks`].
pub mod mark {
    /// A FIN was seen, and `client_end`/`node_end` follows it.
    pub const FIN: u8 = 1;
    /// A reset was seen that did not match exactly. Cleared when the sender goes on.
    pub const RESET: u8 = 2;
    /// The node was heard after a SYN in the client's name: it has the connection.
    pub const ALIVE: u8 = 4;
    /// A SYN came in the client's name. Cleared when the client goes on.
    pub const SYN: u8 = 8;
    /// In `client_marks`, with [`SYN`]: the bits from here on are the tick in which the node was last asked
    /// (`Flow::client_syn`).
    pub const TICK_SHIFT: u32 = 5;
    /// With [`RESET`]: once the other side expects just `client_end`/`node_end`, that reset is exact for it.
    pub const RESET_AT_END: u8 = 16;
}

impl Flow {
    /// Whether both are one connection, at whatever time.
    #[must_use]
    #[inline(always)]
    pub const fn is_same(&self, other: &Self) -> bool {
        self.client_isn == other.client_isn
            && self.entrance_isn == other.entrance_isn
            && self.opened_ms == other.opened_ms
    }

    /// Whether the node sees the client's address.
    #[must_use]
    #[inline(always)]
    pub const fn is_transparent(&self) -> bool {
        self.client_address == client_address::TRANSPARENT
    }

    /// Whether this is a flow whose node sees our address, and this source port.
    #[must_use]
    #[inline(always)]
    pub const fn is_served_by(&self, source_port_be: u16) -> bool {
        self.source_port_be == source_port_be && !self.is_transparent()
    }

    /// Whether this is a flow to that node, which sees the client's address.
    #[must_use]
    #[inline(always)]
    pub const fn is_seen_by(&self, node: u16) -> bool {
        self.node == node && self.is_transparent()
    }
}
