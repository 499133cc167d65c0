//! Nodes: where and how they are reached.

use super::address::Address;

/// How many [`Node::homes`] there are.
pub const HOMES: usize = 4;
/// A place of [`Node::homes`] that is free.
pub const NO_HOME: u16 = u16::MAX;

abi! {
    /// A node: where and how it is reached.
    56 struct Node {
        /// Its address.
        address: Address,
        /// Source address towards it, for `proxy-v2` and `masquerade`.
        local: Address,
        /// Its port, network order.
        port_be: u16,
        /// MSS of the path to it: the MTU of tunnel or public interface, less 40 (IPv4) or 60 (IPv6).
        mss: u16,
        /// Interface that leads to it; 0 while there is none.
        ifindex: u32,
        /// [`super::link`]: whether that interface has an Ethernet header.
        link: u8,
        /// Not 0: it takes no new flow. Its open ones go on.
        closed: u8,
        /// Which of its `homes` is looked at first. Any will do.
        first: u8,
        /// Not 0: it sees the addresses of clients in some of its connections.
        transparent: u8,
        /// MTU of that interface.
        mtu: u32,
        /// Indices of [`super::map::VIPS`], or [`NO_HOME`]: what clients of its transparent connections connect to. One goes
        /// only when no connection is left that it tells apart.
        homes: [u16; HOMES],
    }
}

impl Node {
    /// Whether the claimed address is one of its homes.
    #[must_use]
    #[inline(always)]
    pub const fn is_home(&self, vip: u16) -> bool {
        let [a, b, c, d] = self.homes;
        vip == a || vip == b || vip == c || vip == d
    }
}
