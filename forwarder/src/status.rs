//! What the entrance is doing, read from the pinned maps: it needs no running daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use forwarder_common::abi::{NodeStats, PathStats};
use serde::Serialize;
use thiserror::Error;

use crate::armour::report::{Interface as ArmourStatus, Report as ArmourReport};
use crate::daemon::lock::Lock;
use crate::daemon::place::Place;
use crate::dataplane::counters::sum_paths;
use crate::dataplane::expired::{Counts, Expired};
use crate::dataplane::maps::{CounterMaps, MapsError, OfMap, Tables, found};
use crate::dataplane::pins::{Pins, PinsError};
use crate::dataplane::registry::{Attachment, Registry, RegistryError};
use crate::dataplane::unload::open_flows;
use crate::health::report::{NodeReport, Report};

/// Why there is no status.
#[derive(Debug, Error)]
pub enum StatusError {
    /// Nothing is pinned there.
    #[error("no forwarder is loaded under {}; `forwarder run` loads one", path.display())]
    NotLoaded {
        /// Where one would be.
        path: std::path::PathBuf,
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

/// Everything `forwarder status` shows; its JSON is this.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Process id of the daemon; `null` when none runs. Flows go on without one.
    pub daemon: Option<String>,
    /// Where things are pinned.
    pub bpffs: String,
    /// Where programs are attached.
    pub attachments: Vec<Attachment>,
    /// Configured interfaces that do not exist, as the daemon saw it last.
    pub missing: Vec<String>,
    /// The armour of public interfaces, as the daemon left it.
    pub armour: Vec<ArmourStatus>,
    /// Frames by what the armour did with them, zeros left out.
    pub armour_frames: BTreeMap<&'static str, u64>,
    /// Events that were lost because nobody read them in time.
    pub events_lost: u64,
    /// Open flows.
    pub flows: Flows,
    /// By listener.
    pub listeners: Vec<ListenerStatus>,
    /// By route.
    pub routes: Vec<RouteStatus>,
    /// By node.
    pub nodes: Vec<NodeStatus>,
    /// Packets dropped and connections refused, by reason, zeros left out.
    pub drops: BTreeMap<&'static str, u64>,
}

/// The flow table.
#[derive(Clone, Debug, Serialize)]
pub struct Flows {
    /// Entries.
    pub open: usize,
    /// Room.
    pub max: u32,
}

/// A listener.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Copy, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// Whether a tunnel leads to it.
    pub reachable: bool,
    /// Index of that tunnel.
    pub ifindex: u32,
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
pub fn read(place: &Place) -> Result<Status, StatusError> {
    let pins = Pins::new(place.bpffs());
    if !pins.exists() {
        return Err(StatusError::NotLoaded {
            path: place.bpffs().to_owned(),
        });
    }
    let registry = Registry::load(&place.registry())?.unwrap_or_default();
    let counters = Counted {
        programs: CounterMaps::open(&pins)?,
        sweeper: Expired::open(&pins)?,
    };
    let tables = Tables::open(&pins)?;
    let health = Report::load(&place.health()).unwrap_or_default();
    let drops = counters
        .programs
        .drops()?
        .into_iter()
        .filter(|(_, count)| *count > 0);
    let frames = counters.programs.armour()?.into_iter();
    let frames = frames.filter(|(_, count)| *count > 0);
    Ok(Status {
        daemon: Lock::holder(&place.lock()),
        bpffs: place.bpffs().display().to_string(),
        attachments: registry.attachments.clone(),
        missing: registry.missing.clone(),
        armour: ArmourReport::load(&place.armour())
            .unwrap_or_default()
            .interfaces,
        armour_frames: frames.collect(),
        events_lost: counters.programs.events_lost()?,
        flows: Flows {
            open: open_flows(&pins).unwrap_or_default(),
            max: pins.max_flows(),
        },
        listeners: listeners(&registry, &tables, &counters)?,
        routes: routes(&registry, &counters)?,
        nodes: nodes(&registry, &tables, &counters, &health)?,
        drops: drops
            .map(|(reason, count)| (reason.label(), count))
            .collect(),
    })
}

fn listeners(
    registry: &Registry,
    tables: &Tables,
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
            if claimed && value.is_some_and(|value| value.listener == number) {
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
    tables: &Tables,
    counters: &Counted,
    health: &Report,
) -> Result<Vec<NodeStatus>, StatusError> {
    let mut all = Vec::new();
    for (number, address) in registry.nodes.iter() {
        let number = number as u16;
        let stats: NodeStats = counters.programs.node(number)?;
        let value = found(tables.nodes.get(&u32::from(number), 0)).reading("NODES")?;
        let name = registry.node_names.get(&number);
        all.push(NodeStatus {
            name: name.cloned().unwrap_or_else(|| address.to_string()),
            address: address.to_string(),
            reachable: value.is_some_and(|value| value.ifindex != 0),
            ifindex: value.map_or(0, |value| value.ifindex),
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
