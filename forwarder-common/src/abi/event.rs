//! Records of the event ring.

use super::flow::FlowKey;

/// "No name" and "no path" in an [`Event`].
pub const NONE: u32 = u32::MAX;

abi! {
    /// A record of the event ring; `name_len` bytes of `name` are set.
    384 struct Event {
        /// [`event_kind`].
        kind: u32,
        /// `DropReason` of a refusal, [`close_reason`] of an end.
        reason: u32,
        /// When, ns of `CLOCK_MONOTONIC`.
        time_ns: u64,
        /// The connection.
        flow: FlowKey,
        /// Number of the listed name; `u32::MAX` when none matched.
        name_id: u32,
        /// [`super::map::PATHS`] index; `u32::MAX` when none was chosen.
        path: u32,
        /// Opened: from SYN to the node to its answer, µs. Closed: how long it was open, ms.
        duration: u32,
        /// Opened: from first to last segment of the hello, ms.
        hello_ms: u32,
        /// Length of `name`.
        name_len: u32,
        /// Bytes client → node, acknowledged; opened and refused: bytes of the hello, early data included.
        up_bytes: u64,
        /// Bytes node → client, acknowledged.
        down_bytes: u64,
        /// Segments of the hello.
        hello_segments: u32,
        /// SYNs it took.
        syns: u32,
        /// `Flow::unique_id`; 0 for a refusal.
        unique_id: u64,
        /// The server name the client sent, lower case.
        name: [u8; 256],
        /// Zero.
        pad: [u64; 5],
    }
}

/// [`Event::kind`].
pub mod event_kind {
    /// A node accepted a flow.
    pub const OPENED: u32 = 1;
    /// A flow ended.
    pub const CLOSED: u32 = 2;
    /// A connection was refused.
    pub const REFUSED: u32 = 3;
}

/// [`Event::reason`] of a closed flow.
pub mod close_reason {
    /// FIN both ways, both acknowledged.
    pub const FINISHED: u32 = 0;
    /// The client reset it.
    pub const CLIENT_RESET: u32 = 1;
    /// The node reset it.
    pub const NODE_RESET: u32 = 2;
    /// No node accepted it.
    pub const NO_NODE: u32 = 3;
    /// The sweeper removed it: idle too long.
    pub const IDLE: u32 = 4;
    /// The node accepted it, did not acknowledge the hello, and the hello is no longer kept.
    pub const UNCONFIRMED: u32 = 6;
}
