//! What each hook hands to the engine.

pub mod tc_public;
pub mod tc_tunnel;
pub mod xdp_filter;

/// EtherTypes, network order.
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// See [`ETHERTYPE_IPV4`].
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
