//! What WireGuard says about its peers: `wg show INTERFACE dump`, which is made for programs (wg(8)) and speaks to
//! kernel and user-space implementations alike. Keys that are secret are not kept.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A session lives three minutes; a peer that was spoken to and has none is not there.
pub const SESSION: Duration = Duration::from_secs(180);

/// One WireGuard interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireGuard {
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: String,
    /// Where it is, if that is known.
    pub endpoint: Option<String>,
    /// Addresses that are sent to it, and accepted from it.
    pub allowed: Vec<Prefix>,
    /// The last handshake; `None` if there was none.
    pub handshake: Option<SystemTime>,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first of them.
    pub address: IpAddr,
    /// How many bits.
    pub length: u8,
}

impl WireGuard {
    /// Asks for one interface; an error if it is none, or there is no `wg`.
    pub fn of(interface: &str) -> io::Result<Self> {
        let output = Command::new("wg")
            .args(["show", interface, "dump"])
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(said.trim().to_owned()));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The first line is the interface's; each other one is a peer's.
    fn parse(dump: &str) -> Self {
        let peers = dump.lines().skip(1).filter_map(Peer::parse);
        Self {
            peers: peers.collect(),
        }
    }

    /// The peer that packets to `address` are sent to: that with the longest prefix.
    pub fn peer_of(&self, address: IpAddr) -> Option<&Peer> {
        let length = |peer: &&Peer| {
            let prefixes = peer.allowed.iter();
            let holding = prefixes.filter(|prefix| prefix.contains(address));
            holding.map(|prefix| prefix.length).max()
        };
        let holding = self.peers.iter().filter(|peer| length(peer).is_some());
        holding.max_by_key(length)
    }
}

impl Peer {
    /// Key, preshared key, endpoint, AllowedIPs, last handshake, and counters.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let key = columns.next()?.to_owned();
        let endpoint = columns.nth(1)?;
        let allowed = columns.next()?.split(',').filter_map(Prefix::parse);
        let allowed = allowed.collect();
        let seconds: u64 = columns.next()?.parse().ok()?;
        let handshake = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Some(Self {
            key,
            endpoint: (endpoint != "(none)").then(|| endpoint.to_owned()),
            allowed,
            handshake: (seconds > 0).then_some(handshake),
        })
    }

    /// How long ago it shook hands; `None` if it never did.
    pub fn silent_for(&self) -> Option<Duration> {
        let elapsed = self.handshake?.elapsed();
        Some(elapsed.unwrap_or_default())
    }

    /// Its AllowedIPs with one address more, as `wg set` takes them.
    pub fn allowed_with(&self, address: IpAddr) -> String {
        let own = self.allowed.iter().copied();
        let all = own.chain([Prefix::host(address)]);
        let all: Vec<_> = all.map(|prefix| prefix.to_string()).collect();
        all.join(",")
    }
}

impl Prefix {
    /// One address alone.
    pub fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.trim().split_once('/')?;
        Some(Self {
            address: address.parse().ok()?,
            length: length.parse().ok()?,
        })
    }

    /// Whether it is one address alone.
    pub fn is_host(&self) -> bool {
        *self == Self::host(self.address)
    }

    /// Whether an address is among them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let differing = bits(self.address) ^ bits(address);
        self.address.is_ipv4() == address.is_ipv4()
            && differing.leading_zeros() >= u32::from(self.length)
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "PRIVATE=\tPUBLIC=\t51820\toff\n\
        first=\t(none)\t192.0.2.4:51820\t10.0.0.2/32,fd00::2/128\t1700000000\t1\t2\t25\n\
        second=\t(none)\t(none)\t10.0.0.0/24\t0\t0\t0\toff\n\
        third=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n";

    #[test]
    fn a_dump_is_read_and_secrets_are_not_kept() {
        let own = WireGuard::parse(DUMP);
        assert_eq!(own.peers.len(), 3);
        assert_eq!(own.peers[0].endpoint.as_deref(), Some("192.0.2.4:51820"));
        assert!(own.peers[0].silent_for().unwrap() > SESSION);
        assert_eq!(own.peers[1].handshake, None);
        assert!(own.peers[2].allowed.is_empty());
        assert!(!format!("{own:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_longest_prefix_decides() {
        let own = WireGuard::parse(DUMP);
        let peer = |ip: &str| own.peer_of(ip.parse().unwrap()).map(|peer| &peer.key[..]);
        assert_eq!(peer("10.0.0.2"), Some("first="));
        assert_eq!(peer("10.0.0.3"), Some("second="));
        assert_eq!(peer("fd00::2"), Some("first="));
        assert_eq!(peer("10.0.1.1"), None);
        assert_eq!(peer("fd00::3"), None);
        let all: Prefix = Prefix::parse("0.0.0.0/0").unwrap();
        assert!(all.contains("198.51.100.1".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
    }

    #[test]
    fn an_address_is_added_to_what_there_is() {
        let own = WireGuard::parse(DUMP);
        let with = own.peers[0].allowed_with("10.0.0.9".parse().unwrap());
        assert_eq!(with, "10.0.0.2/32,fd00::2/128,10.0.0.9/32");
    }
}
