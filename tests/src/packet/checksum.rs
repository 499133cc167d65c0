//! The Internet checksum (RFC 1071), independent of the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The sum over the pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(super) fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let addresses = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => sum(0, &Ipv4Addr::octets(&ip)),
        IpAddr::V6(ip) => sum(0, &Ipv6Addr::octets(&ip)),
    };
    addresses(source) + addresses(destination) + u64::from(protocol) + length as u64
}

/// Adds 16-bit words in network order.
pub(super) fn sum(start: u64, bytes: &[u8]) -> u64 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let last = odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    pairs.iter().fold(start + last, |sum, pair| {
        sum + u64::from(u16::from_be_bytes(*pair))
    })
}

/// The one's complement sum of 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}
