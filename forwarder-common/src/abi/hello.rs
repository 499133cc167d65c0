//! Buffers of hellos that no node has acknowledged yet.

use super::flow::FlowKey;
use crate::hello::Reader;
use crate::pace::Pace;

/// Bytes before the stream in [`Hello::bytes`], for the PROXY header.
pub const HELLO_PREFIX: usize = 512;
/// The longest stream that is kept: a record of 2^14 bytes with its header, and room for one more segment, so that a
/// sender with the last part of it is not told a window smaller than that. A multiple of the unit of our windows.
pub const HELLO_CAP: usize = 17_920;
/// Size of [`Hello::bytes`]: prefix, stream, and slack, because the verifier sees offset and length apart.
pub const HELLO_BYTES: usize = HELLO_PREFIX + HELLO_CAP + 1_584;

abi! {
    /// A hello that is being collected or that no node has acknowledged yet. Guarded by `users`.
    20_476 struct Hello {
        /// Try-lock: incremented on entry; whoever then reads 1 is alone.
        users: u32,
        /// The client's initial sequence number.
        client_isn: u32,
        /// Our cookie.
        entrance_isn: u32,
        /// [`hello_state`].
        state: u32,
        /// Bytes kept, in order from the first byte of the stream; early data included.
        stored: u32,
        /// When the buffer was taken, ms.
        started_ms: u32,
        /// When a segment last changed it, ms.
        touched_ms: u32,
        /// When the last SYN went to a node, µs modulo 2^32.
        syn_us: u32,
        /// SYNs sent, over all nodes.
        syns: u32,
        /// SYNs sent to the present node.
        node_syns: u32,
        /// Nodes tried, the present one included.
        attempt: u32,
        /// Ordinal of the first node chosen.
        first_ordinal: u32,
        /// Client segments that carried the hello.
        segments: u32,
        /// The client's last window, as sent (not scaled).
        window: u32,
        /// Length of the PROXY header that stands right before the hello.
        header_len: u32,
        /// First path of the route, and the pool (as in [`super::NameEntry`]).
        path_base: u32,
        /// Index of [`super::map::POOLS`].
        pool: u32,
        /// Number of the listed name.
        name: u32,
        /// `DropReason` of a refusal.
        refused: u32,
        /// The longest piece of it that its node takes.
        piece: u32,
        /// Challenges of the node that were answered since the client last moved things on.
        challenges: u32,
        /// How often it was sent to the node.
        pace: Pace,
        /// The connection this buffer belongs to, so that another may take it over.
        owner: FlowKey,
        /// The reader's state.
        reader: Reader,
        /// The server name, lower case.
        server_name: [u8; 256],
        /// The first ALPN protocol offered, GREASE left out.
        alpn: [u8; 32],
        /// PROXY header (right-aligned in the first [`HELLO_PREFIX`] bytes), then the stream, then slack.
        bytes: [u8; HELLO_BYTES],
    }
}

/// [`Hello::state`].
pub mod hello_state {
    /// More of it is expected.
    pub const COLLECTING: u32 = 0;
    /// It was judged and a flow exists.
    pub const ROUTED: u32 = 1;
    /// It was judged and refused.
    pub const REFUSED: u32 = 2;
    /// As [`ROUTED`], and its node has answered.
    pub const ANSWERED: u32 = 3;
}
