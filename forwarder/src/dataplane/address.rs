//! Addresses in maps and events.

use std::net::{IpAddr, Ipv6Addr};

use forwarder_common::abi::{self, Address};

/// An address as it stands in packets.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => abi::address_v4(v4.octets()),
        IpAddr::V6(v6) => abi::address_v6(v6.octets()),
    }
}

/// An address from packets.
pub fn ip(address: &Address) -> IpAddr {
    let mut octets = [0; 16];
    for (to, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(address) {
        *to = word.to_ne_bytes();
    }
    Ipv6Addr::from(octets).to_canonical()
}
