//! Health of what leads to nodes: when the WireGuard peer of each node shook hands last.
//!
//! WireGuard renews a session that is used every two minutes and gives it up after three
//! (<https://www.wireguard.com/papers/wireguard.pdf>, section 6.1). So a peer that is sent to although its last
//! handshake is older than that answers nothing: its machine, its network or its keys are at fault, and no check
//! of a node can tell these from a node that is switched off. Pure; facts and time come in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::finding::Egresses;
use super::unix_time::{some_from_unix, some_to_unix};
use crate::config::Config;
use crate::link::wireguard::{Device, Source, WireGuardError};

/// A session without a handshake for so long is dead (`REJECT_AFTER_TIME`).
pub const SESSION: Duration = Duration::from_secs(180);

/// What an interface answered.
#[derive(Debug)]
pub struct Reading {
    /// The interface.
    pub interface: String,
    /// Its peers, or why they are not known.
    pub answer: Result<Device, WireGuardError>,
}

/// A tunnel and the nodes behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Its interface.
    pub interface: String,
    /// Who tells about its peers; `null` if nobody does.
    pub source: Option<Source>,
    /// Why nobody does.
    pub unknown: Option<String>,
    /// The nodes that it leads to.
    pub nodes: Vec<NodeTunnel>,
}

/// A node behind a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTunnel {
    /// Its name.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// The peer whose AllowedIPs hold the address; `null` if there is none, or nobody tells.
    pub peer: Option<PeerReport>,
}

/// The other end of a tunnel. Its key is not shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// When it shook hands last, seconds since 1970; `null`: never.
    #[serde(serialize_with = "some_to_unix", deserialize_with = "some_from_unix")]
    pub last_handshake: Option<SystemTime>,
    /// Where its packets came from last.
    pub endpoint: Option<SocketAddr>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Whether it is sent to and does not answer: see [`SESSION`].
    pub silent: bool,
}

/// What has just changed about the peer of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The tunnel.
    pub interface: String,
    /// The node.
    pub node: String,
    /// Whether its peer fell silent; `false`: it answers again.
    pub silent: bool,
    /// Age of its last handshake; `None`: there was none.
    pub age: Option<Duration>,
}

impl PeerReport {
    /// How long ago it shook hands; `None` if it never did.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let at = self.last_handshake?;
        Some(now.duration_since(at).unwrap_or_default())
    }
}

/// What readings say about the tunnels and nodes of a configuration, compared with what was known before.
pub fn report(
    config: &Config,
    ways: &Egresses,
    readings: &[Reading],
    former: &[TunnelReport],
    now: SystemTime,
) -> (Vec<TunnelReport>, Vec<Change>) {
    let mut changes = Vec::new();
    let tunnels = readings.iter().map(|reading| {
        let interface = &reading.interface;
        let device = reading.answer.as_ref().ok();
        let mut nodes: Vec<NodeTunnel> = Vec::new();
        for node in config.pools.iter().flat_map(|pool| &pool.nodes) {
            let address = node.address.get_ref().ip();
            let known = |own: &NodeTunnel| own.node == node.name && own.address == address;
            if ways.get(&address) != Some(interface) || nodes.iter().any(known) {
                continue;
            }
            let before = peer(former, interface, &node.name, address);
            let peer = device.and_then(|device| device.peer(address));
            let peer = peer.map(|peer| {
                let mut own = PeerReport {
                    last_handshake: peer.handshake,
                    endpoint: peer.endpoint,
                    rx_bytes: peer.rx_bytes,
                    tx_bytes: peer.tx_bytes,
                    silent: false,
                };
                let sent = before.is_some_and(|before| own.tx_bytes > before.tx_bytes);
                let was_silent = before.is_some_and(|before| before.silent);
                let fresh = own.age(now).is_some_and(|age| age <= SESSION);
                own.silent = !fresh && (sent || was_silent);
                if own.silent != was_silent {
                    changes.push(Change {
                        interface: interface.clone(),
                        node: node.name.clone(),
                        silent: own.silent,
                        age: own.age(now),
                    });
                }
                own
            });
            nodes.push(NodeTunnel {
                node: node.name.clone(),
                address,
                peer,
            });
        }
        TunnelReport {
            interface: interface.clone(),
            source: device.map(|device| device.source),
            unknown: reading.answer.as_ref().err().map(ToString::to_string),
            nodes,
        }
    });
    (tunnels.collect(), changes)
}

fn peer<'a>(
    tunnels: &'a [TunnelReport],
    interface: &str,
    node: &str,
    address: IpAddr,
) -> Option<&'a PeerReport> {
    let tunnel = tunnels.iter().find(|own| own.interface == interface)?;
    let mut nodes = tunnel.nodes.iter();
    let own = nodes.find(|own| own.node == node && own.address == address)?;
    own.peer.as_ref()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::link::wireguard::Peer;

    /// A report with something in every field.
    pub fn report() -> TunnelReport {
        TunnelReport {
            interface: String::from("wg0"),
            source: Some(Source::Kernel),
            unknown: Some(String::from("why")),
            nodes: vec![NodeTunnel {
                node: String::from("a"),
                address: "10.0.0.2".parse().unwrap(),
                peer: Some(PeerReport {
                    last_handshake: Some(SystemTime::UNIX_EPOCH + SESSION),
                    endpoint: "192.0.2.1:51820".parse().ok(),
                    rx_bytes: 1,
                    tx_bytes: 2,
                    silent: true,
                }),
            }],
        }
    }

    const TEXT: &str = r#"
        entrance = { public = ["eth0"], tunnels = ["wg0", "ts0"] }
        [[listener]]
        name = "https"
        protocol = "tls"
        port = 443
        [[pool]]
        name = "one"
        client_address = "proxy-v2"
        nodes = [{ name = "a", address = "10.0.0.2:443" }, { name = "b", address = "10.0.0.3:443" }]
        [[pool]]
        name = "two"
        client_address = "proxy-v2"
        nodes = [{ name = "a", address = "10.0.0.2:8443" }, { name = "c", address = "100.64.0.2:443" }]
        [[route]]
        names = ["www.example.org"]
        pool = "one"
        [[route]]
        names = ["two.example.org"]
        pool = "two"
    "#;

    struct Place {
        config: Config,
        ways: Egresses,
        known: Vec<TunnelReport>,
    }

    impl Place {
        fn new() -> Self {
            let config = crate::config::parse(Path::new("x.toml"), TEXT)
                .config
                .unwrap();
            let way = |ip: &str, via: &str| (ip.parse().unwrap(), via.to_owned());
            Self {
                config,
                ways: Egresses::from([
                    way("10.0.0.2", "wg0"),
                    way("10.0.0.3", "wg0"),
                    way("100.64.0.2", "ts0"),
                ]),
                known: Vec::new(),
            }
        }

        /// The peer of 10.0.0.2 shook hands at `handshake` and was sent `sent` bytes. Returns who changed.
        fn see(&mut self, now: u64, handshake: Option<u64>, sent: u64) -> Vec<(String, bool)> {
            let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let mut peer = Peer::default();
            peer.allowed = vec!["10.0.0.2/32".parse().unwrap()];
            peer.handshake = handshake.map(at);
            peer.tx_bytes = sent;
            let device = Device {
                source: Source::Kernel,
                peers: vec![peer],
            };
            let nobody = WireGuardError::Nobody {
                socket: PathBuf::from("/var/run/wireguard/ts0.sock"),
            };
            let reading = |interface: &str, answer| Reading {
                interface: interface.to_owned(),
                answer,
            };
            let readings = [reading("wg0", Ok(device)), reading("ts0", Err(nobody))];
            let (tunnels, changes) =
                super::report(&self.config, &self.ways, &readings, &self.known, at(now));
            self.known = tunnels;
            changes
                .into_iter()
                .map(|own| (own.node, own.silent))
                .collect()
        }
    }

    #[test]
    fn each_node_hangs_on_the_peer_that_holds_its_address() {
        let mut place = Place::new();
        place.see(1_000, Some(990), 0);
        let [wg, ts] = place.known.as_slice() else {
            panic!("{:?}", place.known);
        };
        let nodes: Vec<_> = wg.nodes.iter().map(|own| own.node.as_str()).collect();
        assert_eq!(nodes, ["a", "b"], "each once, although two pools have it");
        assert!(wg.nodes[0].peer.is_some());
        assert!(wg.nodes[1].peer.is_none(), "in nobody's AllowedIPs");
        assert_eq!((ts.source, ts.nodes.len()), (None, 1));
        assert!(ts.unknown.as_ref().unwrap().contains("ts0.sock"));
    }

    #[test]
    fn a_peer_is_silent_if_it_is_sent_to_and_does_not_answer() {
        let mut place = Place::new();
        let a = |silent| vec![(String::from("a"), silent)];
        assert_eq!(place.see(1_000, Some(990), 10), [], "fresh");
        assert_eq!(place.see(1_100, Some(990), 20), [], "fresh enough");
        assert_eq!(
            place.see(1_171, Some(990), 20),
            [],
            "old, but nobody uses it"
        );
        assert_eq!(place.see(1_181, Some(990), 30), a(true), "old and used");
        assert_eq!(place.see(1_191, Some(990), 30), [], "told once");
        assert!(place.known[0].nodes[0].peer.as_ref().unwrap().silent);
        assert_eq!(place.see(1_201, Some(1_199), 40), a(false), "back");
        let mut place = Place::new();
        assert_eq!(place.see(1_000, None, 0), [], "never, and not used");
        assert_eq!(place.see(1_010, None, 148), a(true), "never, and tried");
    }
}
