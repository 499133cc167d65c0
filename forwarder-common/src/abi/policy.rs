//! Rules for sources.

abi! {
    /// What holds for connections from a prefix of addresses; the longest prefix decides.
    8 struct SourceRule {
        /// [`source_rule`].
        kind: u32,
        /// Zero.
        pad: u32,
    }
}

/// [`SourceRule::kind`].
pub mod source_rule {
    /// Somebody out there: may connect.
    pub const ELSEWHERE: u32 = 0;
    /// An address of this machine, or one that is claimed, or a broadcast address of its networks.
    pub const OWN: u32 = 1;
    /// A node.
    pub const NODE: u32 = 2;
    /// Reached by a tunnel.
    pub const TUNNEL: u32 = 3;
}
