//! Interfaces: whether they have an Ethernet header, and their hardware addresses.

/// No link-layer header.
pub const L3: u8 = 0;
/// An Ethernet header.
pub const L2: u8 = 1;
/// In [`super::Flow::public_link`]: the interface has no Ethernet header.
pub const NO_HEADER: u32 = 1 << 31;

abi! {
    /// A public interface.
    8 struct PublicLink {
        /// Its hardware address; zeros if it has none.
        mac: [u8; 6],
        /// Zero.
        pad: u16,
    }
}
