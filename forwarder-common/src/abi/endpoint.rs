//! An address and a port.

use super::address::Address;

abi! {
    /// An address and a port: the key of claimed addresses and of nodes.
    24 struct Endpoint {
        /// The address.
        address: Address,
        /// The port, network order.
        port_be: u16,
        /// Zero.
        pad: [u16; 3],
    }
}

impl Endpoint {
    /// An endpoint.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: Address, port_be: u16) -> Self {
        Self {
            address,
            port_be,
            pad: [0; 3],
        }
    }
}
