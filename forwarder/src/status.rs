//! What the entrance is doing, read from the pinned maps: it needs no running daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use forwarder_common::abi::{NodeStats, PathStats, map};
use forwarder_common::verdict::DropReason;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::edit::Edit;
use crate::dataplane::bpf::attach::Attachment;
use crate::dataplane::bpf::counters::sum_paths;
use crate::dataplane::bpf::hooks;
use crate::dataplane::bpf::maps::{CounterMaps, MapsError, OfMap, found};
use crate::dataplane::bpf::pins::{Pins, PinsError, Side};
use crate::dataplane::config_maps::ConfigMaps;
use crate::dataplane::flows::expired::{Counts, Expired};
use crate::dataplane::registry::{self, Registry, RegistryError};
use crate::dataplane::unload::open_flows;
use crate::dataplane::upgrade::carry;
use crate::dataplane::upgrade::predecessor::Predecessor;
use crate::health::report::{NodeReport, PoolReport, Report};
use crate::health::tunnel::TunnelReport;
use crate::instance::lock::Lock;
use crate::instance::paths::Paths;
use crate::link;
use crate::reconcile::edits::edits_in_use;
use crate::telemetry::metrics::collect::is_refusal;
use crate::telemetry::metrics::process;
use crate::units;
use crate::xdp::report::{Interface as XdpStatus, Report as XdpReport};

/// Why there is no status.
#[derive(Debug, Error)]
pub enum StatusError {
    /// Another version has pinned its maps there.
    #[error(
        "the programs of another version are loaded ({}); they forward as configured last, and nothing tends their \
         flows. {}",
        path.display(),
        if *convertible {
            "`forwarder run` takes over, and the open flows go on"
        } else {
            "Start the version that loaded them, or change over, which ends the open flows: \
             `forwarder unload`, then `forwarder run`"
        }
    )]
    OtherVersion {
        /// Its directory.
        path: std::path::PathBuf,
        /// Whether this version can take its flows over.
        convertible: bool,
    },
    /// Nothing is pinned there.
    #[error("no forwarder is loaded under {}; `forwarder run` loads one", path.display())]
    NotLoaded {
        /// Where one would be.
        path: std::path::PathBuf,
    },
    /// Nothing is pinned there yet.
    #[error(
        "the daemon (process {pid}) is starting, and has loaded nothing yet; ask again in a moment"
    )]
    Starting {
        /// Its process id.
        pid: String,
    },
    /// Only root may look there.
    #[error("permission denied: {} is root's", path.display())]
    Forbidden {
        /// Where.
        path: std::path::PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// The tree of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The numbers.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl StatusError {
    /// Whether this user may not look, but others may.
    pub fn is_forbidden(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(own) = cause {
            let io = own.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
                return true;
            }
            cause = own.source();
        }
        false
    }
}

/// Everything `forwarder status` shows; its JSON is this.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Process id of the daemon; `null` when none runs. Flows go on without one.
    pub daemon: Option<String>,
    /// When that daemon started, seconds since 1970.
    pub started: Option<f64>,
    /// Where things are pinned.
    pub bpffs: String,
    /// Where programs are attached, by what the kernel says now.
    pub attachments: Vec<Attachment>,
    /// The version whose flows are being taken over, while that lasts.
    #[serde(default)]
    pub upgrade: Option<UpgradeStatus>,
    /// Configured interfaces that do not exist, as the daemon saw it last.
    pub missing: Vec<String>,
    /// Interfaces with programs that are down now.
    #[serde(default)]
    pub down: Vec<String>,
    /// The XDP filter of public interfaces, as the daemon left it.
    #[serde(rename = "armour")]
    pub xdp: Vec<XdpStatus>,
    /// Frames by what the XDP filter did with them, zeros left out.
    #[serde(rename = "armour_frames")]
    pub xdp_frames: BTreeMap<String, u64>,
    /// Events that were lost because nobody read them in time.
    pub events_lost: u64,
    /// Open flows.
    pub flows: Flows,
    /// By listener.
    pub listeners: Vec<ListenerStatus>,
    /// Addresses and ports that are no longer claimed, of which flows are still open. What is new there is the host's.
    #[serde(default)]
    pub closing: Vec<String>,
    /// By route.
    pub routes: Vec<RouteStatus>,
    /// By node.
    pub nodes: Vec<NodeStatus>,
    /// By pool, as the daemon knows or knew.
    pub pools: Vec<PoolReport>,
    /// What leads to the nodes, as the daemon knows or knew.
    pub tunnels: Vec<TunnelReport>,
    /// Packets dropped and connections refused, by reason, zeros left out.
    pub drops: BTreeMap<String, u64>,
    /// Connections refused, by reason, zeros left out: a part of `drops`.
    pub refusals: BTreeMap<String, u64>,
    /// Changes at run time that the files do not hold.
    pub edits: Vec<Edit>,
}

/// A version whose flows are being taken over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// Its directory.
    pub from: String,
    /// Flows that are still there.
    pub flows: usize,
}

/// The flow table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// Entries.
    pub open: usize,
    /// Room.
    pub max: u32,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Claimed addresses and ports.
    pub addresses: Vec<String>,
    /// SYNs seen.
    pub syns: u64,
    /// Connections that proved their address and sent data.
    pub verified: u64,
    /// ClientHellos read to the end.
    pub hellos: u64,
    /// Flows made.
    pub opened: u64,
    /// Connections refused.
    pub refused: u64,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its first name.
    pub first_name: String,
    /// Its pool.
    pub pool: String,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What paths have carried.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Traffic {
    /// Flows a node accepted.
    pub opened: u64,
    /// Flows that ended by FIN both ways.
    pub closed: u64,
    /// Flows that ended by a reset.
    pub reset: u64,
    /// Flows that a node had accepted and that went silent.
    pub expired: u64,
    /// Flows that no node accepted.
    pub failed: u64,
    /// Packets client → node.
    pub up_packets: u64,
    /// Bytes client → node.
    pub up_bytes: u64,
    /// Packets node → client.
    pub down_packets: u64,
    /// Bytes node → client.
    pub down_bytes: u64,
    /// Times a hello was sent again.
    pub replays: u64,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// Whether a tunnel leads to it.
    pub reachable: bool,
    /// Index of that tunnel.
    pub ifindex: u32,
    /// The tunnel, and the peer at its other end; `null` if none leads to it.
    pub tunnel: Option<NodeTunnelStatus>,
    /// MTU of the way to it.
    pub mtu: u32,
    /// What is known about its health, for each pool it is in; as the daemon left it, if none runs.
    pub health: Vec<NodeReport>,
    /// SYNs sent to it.
    pub syns: u64,
    /// SYNs it left unanswered so that another node was tried.
    pub syn_timeouts: u64,
    /// SYNs it answered with a reset.
    pub syn_resets: u64,
    /// Flows it accepted.
    pub accepted: u64,
    /// Mean time from SYN to SYN-ACK, µs; `null` before the first.
    pub connect_us: Option<u64>,
    /// Its segments that belonged to no flow of its own.
    pub strays: u64,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// The tunnel of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTunnelStatus {
    /// Its interface.
    pub interface: String,
    /// Whether a peer's AllowedIPs hold the node's address; `null` if the tunnel does not tell.
    pub has_peer: Option<bool>,
    /// Seconds since that peer's last handshake; `null` if there was none, or it is not known.
    pub handshake_age: Option<u64>,
    /// Whether that peer is sent to and does not answer.
    pub silent: bool,
}

impl NodeTunnelStatus {
    /// Of the node at an address, behind that interface.
    fn new(interface: &str, tunnels: &[TunnelReport], address: IpAddr, now: SystemTime) -> Self {
        let tunnel = tunnels.iter().find(|own| own.interface == interface);
        let mut nodes = tunnel.into_iter().flat_map(|own| &own.nodes);
        let node = nodes.find(|own| own.address == address);
        let peer = node.and_then(|own| own.peer.as_ref());
        let tells = tunnel.is_some_and(|own| own.source.is_some());
        Self {
            interface: interface.to_owned(),
            has_peer: node.filter(|_| tells).map(|own| own.peer.is_some()),
            handshake_age: peer.and_then(|peer| peer.age(now)).map(|age| age.as_secs()),
            silent: peer.is_some_and(|peer| peer.silent),
        }
    }

    /// For narrow columns: `wg0 12s`, `ts0`, `wg0 NO PEER`, `wg0 SILENT`.
    pub fn short(&self) -> String {
        let interface = &self.interface;
        let age = self.handshake_age.map(Duration::from_secs);
        match (self.has_peer, age) {
            (None, _) => interface.clone(),
            (Some(false), _) => format!("{interface} NO PEER"),
            _ if self.silent => format!("{interface} SILENT"),
            (_, Some(age)) => format!("{interface} {}", units::age(age)),
            (_, None) => format!("{interface} never"),
        }
    }

    /// `wg0, handshake 12s ago`, `ts0` (it does not tell), `wg0, NO PEER`.
    pub fn words(&self) -> String {
        let interface = &self.interface;
        let age = self
            .handshake_age
            .map(|age| units::age(Duration::from_secs(age)));
        match (self.has_peer, age, self.silent) {
            (None, ..) => interface.clone(),
            (Some(false), ..) => format!("{interface}, NO PEER"),
            (_, Some(age), false) => format!("{interface}, handshake {age} ago"),
            (_, Some(age), true) => format!("{interface}, SILENT, handshake {age} ago"),
            (_, None, false) => format!("{interface}, no handshake"),
            (_, None, true) => format!("{interface}, SILENT, no handshake"),
        }
    }
}

/// What counts flows, by programs and by the sweeper.
struct Counted {
    programs: CounterMaps,
    sweeper: Expired,
}

impl Counted {
    /// Sums the paths of which `of(route, node)` holds.
    fn traffic(
        &self,
        registry: &Registry,
        of: impl Fn(u16, u16) -> bool,
    ) -> Result<Traffic, MapsError> {
        let mut records = Vec::new();
        let mut swept = Counts::default();
        for block in &registry.blocks {
            for (path, node) in (block.base..).zip(&block.nodes) {
                if of(block.route, *node) {
                    records.push(self.programs.path(path)?);
                    let counts = self.sweeper.of(path)?;
                    swept.silent += counts.silent;
                    swept.unanswered += counts.unanswered;
                }
            }
        }
        let stats: PathStats = sum_paths(records.iter());
        Ok(Traffic {
            opened: stats.opened,
            closed: stats.closed,
            reset: stats.reset,
            expired: swept.silent,
            failed: stats.failed + swept.unanswered,
            up_packets: stats.up_packets,
            up_bytes: stats.up_bytes,
            down_packets: stats.down_packets,
            down_bytes: stats.down_bytes,
            replays: stats.replays,
        })
    }
}

/// Reads the status of the instance at `place`.
pub fn read(place: &Paths) -> Result<Status, StatusError> {
    let pins = Pins::new(place.bpffs());
    if let Err(source) = std::fs::metadata(pins.map(map::FLOWS))
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        let path = place.bpffs().to_owned();
        return Err(StatusError::Forbidden { path, source });
    }
    let others = pins.other_versions()?;
    if !pins.exists() {
        if let Some(path) = others.last() {
            return Err(StatusError::OtherVersion {
                path: path.clone(),
                convertible: Predecessor::at(path).is_some(),
            });
        }
        return Err(match Lock::holder(&place.lock()) {
            Some(pid) => StatusError::Starting { pid },
            None => StatusError::NotLoaded {
                path: place.bpffs().to_owned(),
            },
        });
    }
    let registry = registry::file::load(&place.registry())?.unwrap_or_default();
    let counters = Counted {
        programs: CounterMaps::open(&pins)?,
        sweeper: Expired::open(&pins)?,
    };
    let tables = ConfigMaps::open(&pins)?;
    let health = Report::load(&place.health()).unwrap_or_default();
    let frames = counters.programs.xdp()?.into_iter();
    let frames = frames.filter(|(_, count)| *count > 0);
    let mut drops = counters.programs.drops()?;
    drops.retain(|(_, count)| *count > 0);
    let by_reason = |wanted: fn(DropReason) -> bool| {
        let counted = drops.iter().filter(|(reason, _)| wanted(*reason));
        counted
            .map(|(reason, count)| (reason.label().to_owned(), *count))
            .collect()
    };
    let daemon = Lock::holder(&place.lock());
    Ok(Status {
        started: daemon.as_deref().and_then(process::started),
        daemon,
        bpffs: place.bpffs().display().to_string(),
        down: link::down(
            registry
                .attachments
                .iter()
                .map(|own| own.interface.as_str()),
        ),
        attachments: attached(&pins, &registry),
        upgrade: others.last().map(|path| UpgradeStatus {
            from: path.display().to_string(),
            flows: Predecessor::at(path).map_or(0, |old| carry::left(&old)),
        }),
        missing: registry.missing.clone(),
        xdp: XdpReport::load(&place.xdp()).unwrap_or_default().interfaces,
        xdp_frames: frames
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
        events_lost: counters.programs.events_lost()?,
        flows: Flows {
            open: open_flows(&pins).unwrap_or_default(),
            max: pins.max_flows(),
        },
        listeners: listeners(&registry, &tables, &counters)?,
        closing: closing(&registry, &tables)?,
        routes: routes(&registry, &counters)?,
        nodes: nodes(&registry, &tables, &counters, &health)?,
        drops: by_reason(|_| true),
        refusals: by_reason(is_refusal),
        pools: health.pools,
        tunnels: health.tunnels,
        edits: edits_in_use(&place.edits()),
    })
}

/// Where programs are attached, by what the kernel says now.
fn attached(pins: &Pins, registry: &Registry) -> Vec<Attachment> {
    let standing = hooks::look_now(registry.attachments.iter());
    let places = registry.attachments.iter().zip(standing);
    places
        .filter(|(place, standing)| {
            let standing = standing.as_ref();
            standing.is_none_or(|standing| standing.own(pins, place).is_some())
        })
        .map(|(place, _)| place.clone())
        .collect()
}

fn listeners(
    registry: &Registry,
    tables: &ConfigMaps,
    counters: &Counted,
) -> Result<Vec<ListenerStatus>, StatusError> {
    let mut all = Vec::new();
    for (number, name) in registry.listeners.iter() {
        let number = number as u16;
        let stats = counters.programs.listener(number)?;
        let mut addresses = Vec::new();
        for (vip, (ip, port)) in registry.vips.iter() {
            let value = found(tables.vips.get(&(vip as u32), 0)).reading("VIPS")?;
            let key = value
                .map(|value| forwarder_common::abi::Endpoint::new(value.address, value.port_be));
            let claimed = match key {
                Some(key) => found(tables.vip_index.get(&key, 0))
                    .reading("VIP_INDEX")?
                    .is_some(),
                None => false,
            };
            let open = value.filter(|value| value.closed == 0);
            if claimed && open.is_some_and(|value| value.listener == number) {
                addresses.push(display(*ip, *port));
            }
        }
        all.push(ListenerStatus {
            name: name.clone(),
            addresses,
            syns: stats.syns,
            verified: stats.cookies_valid,
            hellos: stats.hellos,
            opened: stats.opened,
            refused: stats.refused,
            packets: stats.packets,
            bytes: stats.bytes,
        });
    }
    Ok(all)
}

fn closing(registry: &Registry, tables: &ConfigMaps) -> Result<Vec<String>, StatusError> {
    let mut all = Vec::new();
    for (number, (ip, port)) in registry.vips.iter() {
        let value = found(tables.vips.get(&(number as u32), 0)).reading("VIPS")?;
        if value.is_some_and(|value| value.closed != 0) {
            all.push(display(*ip, *port));
        }
    }
    Ok(all)
}

fn display(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

fn routes(registry: &Registry, counters: &Counted) -> Result<Vec<RouteStatus>, StatusError> {
    let mut all = Vec::new();
    for (number, route) in registry.routes.iter() {
        all.push(RouteStatus {
            first_name: route.first_name.clone(),
            pool: route.pool.clone(),
            traffic: counters.traffic(registry, |own, _| usize::from(own) == number)?,
        });
    }
    Ok(all)
}

fn nodes(
    registry: &Registry,
    tables: &ConfigMaps,
    counters: &Counted,
    health: &Report,
) -> Result<Vec<NodeStatus>, StatusError> {
    let mut all = Vec::new();
    let now = SystemTime::now();
    for (number, address) in registry.nodes.iter() {
        let number = number as u16;
        let stats: NodeStats = counters.programs.node(number)?;
        let value = found(tables.nodes.get(&u32::from(number), 0)).reading("NODES")?;
        let name = registry.node_names.get(&number);
        let interface = registry.attachments.iter().find(|own| {
            own.side == Side::Tunnel && value.is_some_and(|value| value.ifindex == own.ifindex)
        });
        all.push(NodeStatus {
            name: name.cloned().unwrap_or_else(|| address.to_string()),
            address: address.to_string(),
            reachable: value.is_some_and(|value| value.ifindex != 0),
            ifindex: value.map_or(0, |value| value.ifindex),
            tunnel: interface.map(|own| {
                NodeTunnelStatus::new(&own.interface, &health.tunnels, address.ip(), now)
            }),
            mtu: value.map_or(0, |value| value.mtu),
            health: health
                .nodes
                .iter()
                .filter(|own| own.address == *address)
                .cloned()
                .collect(),
            syns: stats.syns,
            syn_timeouts: stats.syn_timeouts,
            syn_resets: stats.syn_resets,
            accepted: stats.accepted,
            connect_us: stats.connect_us.checked_div(stats.accepted),
            strays: stats.strays,
            traffic: counters.traffic(registry, |_, own| own == number)?,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_starts_is_told_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let place = Paths::new(&directory.path().join("bpf"), directory.path());
        let said = |place: &Paths| read(place).unwrap_err().to_string();
        assert!(said(&place).contains("no forwarder is loaded"));
        let _lock = Lock::take(&place.lock()).unwrap();
        assert!(said(&place).contains("is starting"), "{}", said(&place));
    }

    #[test]
    fn a_tunnel_in_words() {
        let tunnels = [crate::health::tunnel::tests::report()];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(200);
        let words = |interface: &str, address: &str| {
            let address = address.parse().unwrap();
            NodeTunnelStatus::new(interface, &tunnels, address, now).words()
        };
        assert_eq!(words("wg0", "10.0.0.2"), "wg0, SILENT, handshake 20s ago");
        assert_eq!(words("wg0", "10.0.0.9"), "wg0", "not asked about yet");
        assert_eq!(words("ts0", "10.0.0.2"), "ts0", "nothing is known");
        let mut unheld = tunnels.clone();
        unheld[0].nodes[0].peer = None;
        let own = NodeTunnelStatus::new("wg0", &unheld, "10.0.0.2".parse().unwrap(), now);
        assert_eq!(own.words(), "wg0, NO PEER");
        assert_eq!(own.short(), "wg0 NO PEER");
    }
}
