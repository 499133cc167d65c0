//! Pools: how a node is chosen, and what it sees of the client.

abi! {
    /// A set of nodes. Its ordinals are positions behind `path_base`.
    16 struct Pool {
        /// Index of [`super::map::MAGLEV`]: written last, so that a new table is seen whole.
        maglev: u32,
        /// How many nodes.
        nodes: u16,
        /// [`client_address`].
        client_address: u8,
        /// [`balance`].
        balance: u8,
        /// Until then, ns of `CLOCK_MONOTONIC`, new connections are refused because no node is left. It is
        /// renewed while that holds, so that it ends by itself when nobody renews it.
        refuse_until_ns: u64,
    }

    /// Maglev look-up tables of one pool, a half for each address family: node ordinals. Only the first
    /// `maglev::TABLE_SIZE` of a half are used.
    4096 struct MaglevTable {
        /// Ordinals of the nodes with an IPv4 address.
        v4: [u16; 1024],
        /// Ordinals of the nodes with an IPv6 address.
        v6: [u16; 1024],
    }
}

/// [`Pool::client_address`].
pub mod client_address {
    /// The node sees the client's address as source.
    pub const TRANSPARENT: u8 = 0;
    /// The node sees our tunnel address, and a PROXY protocol v2 header first.
    pub const PROXY_V2: u8 = 1;
    /// The node sees our tunnel address.
    pub const MASQUERADE: u8 = 2;
}

/// [`Pool::balance`].
pub mod balance {
    /// By the client's address: the same client meets the same node.
    pub const SOURCE: u8 = 0;
    /// By chance.
    pub const RANDOM: u8 = 1;
}
