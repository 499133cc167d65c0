//! This machine's interfaces, addresses and routes, as far as the forwarder needs them.
//!
//! [`Network`] is a snapshot; [`survey`] takes one from the kernel and [`watch`] says when to take the
//! next. Everything that decides on a snapshot is a pure function of it.

pub mod driver;
pub mod survey;
pub mod watch;
pub mod wireguard;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

/// Bytes of IPv4 and TCP header without options.
const HEADERS_V4: u32 = 40;
/// Bytes of IPv6 and TCP header without options.
const HEADERS_V6: u32 = 60;

/// A snapshot of interfaces, and of the routes that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every interface.
    pub links: Vec<Link>,
    /// The way to each address that was asked for; absent when the kernel has none.
    pub egress: BTreeMap<IpAddr, Egress>,
    /// Every route to more than one address or to this machine, default routes left out; sorted.
    pub routes: Vec<Route>,
}

/// A route of some table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub prefix: IpNet,
    /// Whether to this machine itself, or to all of a network: its own addresses and broadcast ones.
    pub own: bool,
    /// By which interfaces.
    pub links: Vec<u32>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index: another one each time it is made anew.
    pub ifindex: u32,
    /// What its packets begin with.
    pub kind: LinkKind,
    /// Whether it is a WireGuard tunnel of the kernel.
    pub wireguard: bool,
    /// Its hardware address, if that is of Ethernet's length.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses that clients can reach: neither link-local nor tentative; sorted.
    pub addresses: Vec<IpAddr>,
}

/// What packets of an interface begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// An Ethernet header.
    L2,
    /// The IP header.
    L3,
    /// Something that the data path cannot read (the loopback interface has an Ethernet header).
    Unsupported,
}

/// How the kernel would send to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Outgoing interface.
    pub ifindex: u32,
    /// The source address it would use.
    pub source: Option<IpAddr>,
    /// Whether the address is one of this machine's own.
    pub local: bool,
    /// MTU of the route, where it has its own.
    pub mtu: Option<u32>,
}

impl Network {
    /// The interface of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface of that index.
    pub fn link_by_index(&self, ifindex: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    /// All client-facing addresses of the named interfaces, sorted, each once.
    pub fn addresses<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
        let links = names.filter_map(|name| self.link(name));
        let mut all: Vec<_> = links.flat_map(|link| link.addresses.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl LinkKind {
    /// From the kernel's `ARPHRD_*` type.
    pub fn from_arphrd(arphrd: u16) -> Self {
        match arphrd {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Self::L2,
            // wg and tun; ppp; ipip, ip6tnl, sit, gre and vti; raw IP of modems.
            libc::ARPHRD_NONE
            | libc::ARPHRD_PPP
            | libc::ARPHRD_TUNNEL
            | libc::ARPHRD_TUNNEL6
            | libc::ARPHRD_SIT
            | libc::ARPHRD_IPGRE
            | ARPHRD_IP6GRE
            | ARPHRD_RAWIP
            | libc::ARPHRD_VOID => Self::L3,
            _ => Self::Unsupported,
        }
    }
}

// `include/uapi/linux/if_arp.h`; not in `libc`.
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_IP6GRE: u16 = 823;

/// The TCP segment size that an MTU leaves in the family of `address`.
pub fn mss(mtu: u32, address: IpAddr) -> u16 {
    let headers = if address.is_ipv4() {
        HEADERS_V4
    } else {
        HEADERS_V6
    };
    u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX)
}

/// Those of the named interfaces that exist and are down. Asks the kernel, without a runtime.
pub fn down<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let flags = flags();
    let mut down: Vec<_> = names
        .filter(|name| {
            flags
                .get(*name)
                .is_some_and(|own| own & libc::IFF_UP as u32 == 0)
        })
        .map(str::to_owned)
        .collect();
    down.dedup();
    down
}

/// Flags of every interface (`getifaddrs(3)`).
fn flags() -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: it writes one pointer, to a list that `freeifaddrs` takes back.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return all;
    }
    let mut next = first;
    // SAFETY: each pointer of the list leads to an entry or is null, until the list is given back.
    while let Some(own) = unsafe { next.as_ref() } {
        // SAFETY: every entry has a name that ends in zero.
        let name = unsafe { std::ffi::CStr::from_ptr(own.ifa_name) };
        all.insert(name.to_string_lossy().into_owned(), own.ifa_flags);
        next = own.ifa_next;
    }
    // SAFETY: from `getifaddrs`, and given back once.
    unsafe { libc::freeifaddrs(first) };
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_up_is_not_down() {
        assert!(flags().contains_key("lo"));
        assert_eq!(down(["no-such0"].into_iter()), [""; 0]);
    }

    #[test]
    fn link_kinds() {
        assert_eq!(LinkKind::from_arphrd(1), LinkKind::L2);
        assert_eq!(LinkKind::from_arphrd(0xfffe), LinkKind::L3);
        assert_eq!(LinkKind::from_arphrd(512), LinkKind::L3);
        assert_eq!(LinkKind::from_arphrd(32), LinkKind::Unsupported);
    }

    #[test]
    fn mss_leaves_room_for_the_headers() {
        assert_eq!(mss(1420, "10.0.0.1".parse().unwrap()), 1380);
        assert_eq!(mss(1420, "fd00::1".parse().unwrap()), 1360);
        assert_eq!(mss(1280, "fd00::1".parse().unwrap()), 1220);
        assert_eq!(mss(100_000, "10.0.0.1".parse().unwrap()), u16::MAX);
        assert_eq!(mss(20, "10.0.0.1".parse().unwrap()), 0);
    }
}
