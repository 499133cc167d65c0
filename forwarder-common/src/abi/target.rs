//! Listener, route and node: what a flow is counted under.

abi! {
    /// A listener, route and node: what one flow's counters are kept under.
    16 struct Path {
        /// Listener number.
        listener: u16,
        /// Route number.
        route: u16,
        /// Index of [`super::map::POOLS`].
        pool: u16,
        /// Index of [`super::map::NODES`].
        node: u16,
        /// [`super::client_address`] of the pool.
        client_address: u8,
        /// Zero.
        pad: [u8; 7],
    }
}
