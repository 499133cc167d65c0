//! Connections that have ended.

abi! {
    /// A connection that has ended.
    16 struct Closed {
        /// `closed::digest` of its [`super::FlowKey`]; in the lowest bit, whether FINs of both ends ended it.
        digest: u64,
        /// Its cookie, ours towards the client.
        entrance_isn: u32,
        /// When it ended, ms.
        closed_ms: u32,
    }

    /// Connections that have ended, of which a place is the next one's when it is the oldest.
    64 struct ClosedSet {
        /// They stand in no order.
        ways: [Closed; 4],
    }
}
