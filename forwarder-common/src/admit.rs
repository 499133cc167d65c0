//! Who may open a connection: what holds for a source whatever the configuration says, and what a rule of
//! `SOURCE_RULES` means. Asked on the SYN and on the first segment that proves a cookie, alike at both hooks; segments of
//! open flows are not asked about.

use crate::abi::{Address, is_v4, same, source_rule};
use crate::verdict::DropReason;

/// Why nobody who has this address can connect to `local`, if so: it is not one host's (unspecified, loopback, multicast,
/// broadcast and reserved addresses; RFC 1122 3.2.1.3, RFC 4291 2.7), it is `local` itself (a LAND attack), or it is an
/// IPv4 address in an IPv6 header, which would be mistaken for the other family.
///
/// Private addresses (RFC 1918, RFC 4193) and link-local ones are not: there are labs, and clouds with their own NAT.
#[must_use]
#[inline(always)]
pub const fn impossible<const V6: bool>(source: &Address, local: &Address) -> Option<DropReason> {
    let [first, _, _, last] = *source;
    let unicast = if V6 {
        // The first 32 bits zero: unspecified, loopback, IPv4-mapped, and nothing that was ever given away.
        first != 0 && first.to_be() >> 24 != 0xff
    } else {
        let net = last.to_be() >> 24;
        net != 0 && net != 127 && net < 224
    };
    if !unicast || is_v4(source) == V6 || same(source, local) {
        return Some(DropReason::InvalidSource);
    }
    None
}

/// What the kind of the longest prefix that covers a source says.
#[must_use]
#[inline(always)]
pub const fn by_rule(kind: u32) -> Option<DropReason> {
    match kind {
        source_rule::ELSEWHERE => None,
        _ => Some(DropReason::InvalidSource),
    }
}

/// In how many bytes of sequence space a quoted segment (RFC 5927 4.1) must lie behind what was acknowledged: as many as
/// an end may have under way. Which of these were sent, its sender knows and looks (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
const UNDER_WAY: u32 = 1 << 24;

/// Whether an ICMP error may be about a segment with this sequence number: what its receiver has acknowledged was not too
/// big, and nobody sends further ahead than a window.
#[must_use]
#[inline(always)]
pub const fn may_be_quoted(seq: u32, acknowledged: u32) -> bool {
    seq.wrapping_sub(acknowledged) < UNDER_WAY
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::abi::{address_v4, address_v6};

    fn v4(text: &str) -> Address {
        address_v4(text.parse::<Ipv4Addr>().unwrap().octets())
    }

    fn v6(text: &str) -> Address {
        address_v6(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn sources_of_ipv4() {
        let local = v4("203.0.113.7");
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "203.0.113.7",
        ] {
            let found = impossible::<false>(&v4(bad), &local);
            assert_eq!(found, Some(DropReason::InvalidSource), "{bad}");
        }
        for good in [
            "1.0.0.1",
            "10.0.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.254.1.1",
            "192.168.1.1",
            "198.18.0.2",
            "203.0.113.8",
            "223.255.255.255",
        ] {
            assert_eq!(impossible::<false>(&v4(good), &local), None, "{good}");
        }
    }

    #[test]
    fn sources_of_ipv6() {
        let local = v6("2001:db8::7");
        for bad in [
            "::",
            "::1",
            "::ffff:198.51.100.1",
            "::198.51.100.1",
            "ff02::1",
            "ff0e::1",
            "2001:db8::7",
        ] {
            let found = impossible::<true>(&v6(bad), &local);
            assert_eq!(found, Some(DropReason::InvalidSource), "{bad}");
        }
        for good in ["2001:db8::8", "fe80::1", "fd00::1", "64:ff9b::c633:6401"] {
            assert_eq!(impossible::<true>(&v6(good), &local), None, "{good}");
        }
    }

    #[test]
    fn rules() {
        assert_eq!(by_rule(source_rule::ELSEWHERE), None);
        for kind in [source_rule::OWN, source_rule::NODE, source_rule::TUNNEL] {
            assert_eq!(by_rule(kind), Some(DropReason::InvalidSource));
        }
    }

    #[test]
    fn quoted_sequence_numbers() {
        for acknowledged in [0, 7, u32::MAX] {
            let quoted = |ahead: u32| may_be_quoted(acknowledged.wrapping_add(ahead), acknowledged);
            assert!(quoted(0) && quoted(1_400) && quoted(UNDER_WAY - 1));
            assert!(!quoted(UNDER_WAY) && !quoted(u32::MAX) && !quoted(1 << 31));
        }
    }
}
