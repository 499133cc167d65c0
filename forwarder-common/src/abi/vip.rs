//! Claimed addresses.

use super::address::Address;

abi! {
    /// One claimed address and port. Its index is stable while flows use it.
    40 struct Vip {
        /// The address clients use.
        address: Address,
        /// The port clients use, network order.
        port_be: u16,
        /// Number of the listener it belongs to.
        listener: u16,
        /// Name table of the listener: part of each name's key.
        table: u16,
        /// What to do with what is not forwarded: [`on_refuse`].
        on_refuse: u8,
        /// Not 0: it is no longer configured, and takes no new connection. Its open flows go on; everything else is
        /// the host's.
        closed: u8,
        /// MSS that is advertised to clients: the smallest of the tunnels behind this listener.
        mss: u16,
        /// Zero.
        pad2: [u16; 3],
        /// Interface the address belongs to; 0 when unknown. Not used to match packets.
        ifindex: u32,
        /// Zero.
        pad3: u32,
    }
}

/// [`Vip::on_refuse`].
pub mod on_refuse {
    /// TLS alert `unrecognized_name` (RFC 6066 3), then FIN.
    pub const ALERT: u8 = 0;
    /// TCP reset.
    pub const RESET: u8 = 1;
    /// Silence.
    pub const DROP: u8 = 2;
}
