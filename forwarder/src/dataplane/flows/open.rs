//! Open flows in words, and their end by order.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::time::Duration;

use aya::maps::IterableMap;
use forwarder_common::abi::{Flow, FlowKey, map, state};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{debug, info};

use super::reset::{Own, Sender};
use super::sweep::{Ended, SweepError, Sweeper};
use crate::config::edit::selects;
use crate::dataplane::address::ip;
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::maps::FlowMaps;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::clock::{elapsed_ms, monotonic_ms};
use crate::dataplane::registry::Registry;

/// What a flow is called whose node has not accepted it yet.
const CONNECTING: &str = "connecting";

/// An open flow, every number resolved; what is no longer known is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFlow {
    /// The client.
    pub client: SocketAddr,
    /// The address and port it connected to.
    pub local: Option<SocketAddr>,
    /// The listed name it matched.
    pub name: Option<String>,
    /// The listener.
    pub listener: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// The node's address and port.
    pub node_address: Option<SocketAddr>,
    /// `connecting`, `replaying` or `spliced`.
    pub state: String,
    /// Time since it was made.
    pub age_ms: u32,
    /// Time since its last segment.
    pub silent_ms: u32,
    /// Bytes of the client's that the node has acknowledged.
    pub up_bytes: u64,
    /// Bytes of the node's that the client has acknowledged.
    pub down_bytes: u64,
    /// Its unique id, as in events.
    pub id: String,
    /// Whether its name still leads where it goes; `false` after its route was removed.
    pub configured: bool,
}

impl OpenFlow {
    /// Whether its node has not accepted it yet.
    pub fn is_connecting(&self) -> bool {
        self.state == CONNECTING
    }
}

/// One client or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// One connection: `198.51.100.4:50000`, `[2001:db8::7]:50000`.
    Socket(SocketAddr),
    /// One address: `198.51.100.4`, `2001:db8::7`.
    Address(IpAddr),
    /// A network: `198.51.100.0/24`, `2001:db8::/32`.
    Net(IpNet),
}

/// A text that means no client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no client; write 198.51.100.4, 198.51.100.0/24, 198.51.100.4:50000 or [2001:db8::7]:50000"
)]
pub struct NoClient(String);

impl FromStr for Clients {
    type Err = NoClient;

    fn from_str(text: &str) -> Result<Self, NoClient> {
        // Clients are IPv4 where they can be, so a mapped address must be too.
        let address = text
            .parse()
            .map(|ip: IpAddr| Self::Address(ip.to_canonical()));
        let address = address.or_else(|_| text.parse().map(Self::Socket));
        let address = address.ok().or_else(|| text.parse().map(Self::Net).ok());
        address.ok_or_else(|| NoClient(text.to_owned()))
    }
}

impl Clients {
    /// Whether it means this one.
    pub fn hold(&self, client: SocketAddr) -> bool {
        match self {
            Self::Socket(own) => *own == client,
            Self::Address(own) => *own == client.ip(),
            Self::Net(net) => net.contains(&client.ip()),
        }
    }
}

/// Whether a filter that a person typed means `client`; one that cannot be read means nobody.
pub fn selects_client(filter: &str, client: SocketAddr) -> bool {
    Clients::from_str(filter).is_ok_and(|own| own.hold(client))
}

/// Which flows are meant; absent filters mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The clients, as [`Clients`] are written.
    pub client: Option<String>,
    /// The name as listed.
    pub name: Option<String>,
    /// The node's name, address, or address and port.
    pub node: Option<String>,
}

impl Filter {
    /// Whether nothing is filtered.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the client filter can mean a client at all.
    pub fn is_sound(&self) -> bool {
        let client = self.client.as_deref();
        client.is_none_or(|text| Clients::from_str(text).is_ok())
    }

    /// Whether it means this flow.
    pub fn means(&self, flow: &OpenFlow) -> bool {
        let node = |selector: &String| {
            let name = flow.node.as_deref().unwrap_or_default();
            flow.node_address
                .is_some_and(|address| selects(selector, name, address))
        };
        let name = |wanted: &String| {
            let own = flow.name.as_deref().unwrap_or_default();
            own.eq_ignore_ascii_case(wanted)
        };
        self.client
            .as_ref()
            .is_none_or(|client| selects_client(client, flow.client))
            && self.name.as_ref().is_none_or(name)
            && self.node.as_ref().is_none_or(node)
    }
}

/// Every open flow.
pub fn list(pins: &Pins, registry: &Registry) -> Result<Vec<OpenFlow>, SweepError> {
    let flows = scan(pins)?;
    let now = monotonic_ms();
    let mut all: Vec<_> = flows
        .iter()
        .map(|(key, flow)| describe(key, flow, registry, now))
        .collect();
    all.sort_by_key(|flow| std::cmp::Reverse(flow.age_ms));
    Ok(all)
}

/// Ends the flows that are `meant`, and resets both ends of each; returns how many there were.
pub fn end(
    pins: &Pins,
    registry: &Registry,
    meant: impl Fn(&OpenFlow) -> bool,
) -> Result<usize, SweepError> {
    let now = monotonic_ms();
    // Ends flows by order only, so the time it would wait for silence does not matter.
    let mut sweeper = Sweeper::new(FlowMaps::open(pins)?, Duration::MAX);
    let mut sender = Sender::open()
        .inspect_err(|error| {
            info!(%error, "no resets are sent (CAP_NET_RAW): the ends of flows learn of it when they speak");
        })
        .ok();
    let mut ended = 0;
    for (key, flow) in scan(pins)? {
        if meant(&describe(&key, &flow, registry, now))
            && let Some(last) = sweeper.end(&key)?
        {
            ended += 1;
            if let Some(sender) = &mut sender {
                reset(sender, &key, &last, registry);
            }
        }
    }
    Ok(ended)
}

/// Tells both ends. An end that cannot be reached learns of it when it speaks.
fn reset(sender: &mut Sender, key: &FlowKey, ended: &Ended, registry: &Registry) {
    let Ended { flow, node } = ended;
    let local = registry.vips.key(usize::from(key.vip));
    let client = local.map(|(ip, port)| Own::reset_client(key, flow, SocketAddr::new(*ip, *port)));
    let node = node
        .as_ref()
        .and_then(|node| Own::reset_node(key, flow, node));
    for reset in [client, node].into_iter().flatten() {
        if let Err(error) = sender.send(&reset) {
            debug!(%error, ?reset, "a reset is not sent");
        }
    }
}

fn scan(pins: &Pins) -> Result<Vec<(FlowKey, Flow)>, SweepError> {
    let state = FlowMaps::open(pins)?;
    let mut flows = Vec::new();
    batch::scan(
        state.flows.map().fd().as_fd(),
        |key: FlowKey, flow: Flow| {
            flows.push((key, flow));
        },
    )
    .map_err(|source| SweepError::List {
        name: map::FLOWS,
        source,
    })?;
    Ok(flows)
}

fn describe(key: &FlowKey, flow: &Flow, registry: &Registry, now: u32) -> OpenFlow {
    let path = registry.path(flow.path);
    let node = path.map(|(block, ordinal)| block.nodes[ordinal]);
    let local = registry.vips.key(usize::from(key.vip));
    let listed = flow.name as usize;
    OpenFlow {
        client: SocketAddr::new(ip(&key.client), u16::from_be(key.port_be)),
        local: local.map(|(ip, port)| SocketAddr::new(*ip, *port)),
        name: registry.names.key(listed).map(str::to_owned),
        listener: path
            .and_then(|(block, _)| registry.listeners.key(block.listener.into()).cloned()),
        pool: path.and_then(|(block, _)| Some(registry.pools.key(block.pool.into())?.name.clone())),
        node: node.and_then(|node| registry.node_names.get(&node).cloned()),
        node_address: node.and_then(|node| registry.nodes.key(node.into()).copied()),
        state: String::from(match flow.state {
            state::CONNECTING => CONNECTING,
            state::REPLAYING => "replaying",
            _ => "spliced",
        }),
        age_ms: elapsed_ms(flow.opened_ms, now),
        silent_ms: elapsed_ms(flow.seen_ms, now),
        // The SYN counts as one.
        up_bytes: flow.node_acked.saturating_sub(1),
        down_bytes: flow.client_acked.saturating_sub(1),
        id: format!("{:016x}", flow.unique_id()),
        configured: registry.names.is_live(listed)
            && path.is_some_and(|(block, _)| block.is_live()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> OpenFlow {
        OpenFlow {
            client: "198.51.100.4:50000".parse().unwrap(),
            local: None,
            name: Some(String::from("*.example.org")),
            listener: None,
            pool: None,
            node: Some(String::from("thinkpad")),
            node_address: "10.0.0.3:443".parse().ok(),
            state: String::from("spliced"),
            age_ms: 0,
            silent_ms: 0,
            up_bytes: 0,
            down_bytes: 0,
            id: String::new(),
            configured: true,
        }
    }

    #[test]
    fn filters_mean_what_they_say() {
        let filter = |client: &str, name: &str, node: &str| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Filter {
                client: text(client),
                name: text(name),
                node: text(node),
            }
        };
        assert!(filter("", "", "").is_empty() && filter("", "", "").means(&flow()));
        assert!(filter("198.51.100.4", "*.Example.org", "thinkpad").means(&flow()));
        assert!(filter("198.51.100.4:50000", "", "10.0.0.3").means(&flow()));
        assert!(!filter("198.51.100.4:50001", "", "").means(&flow()));
        assert!(!filter("", "a.example.org", "").means(&flow()));
        assert!(!filter("", "", "10.0.0.4").means(&flow()));
        assert!(!filter("nonsense", "", "").is_sound());
        assert!(filter("198.51.100.0/24", "", "").means(&flow()));
        assert!(!filter("198.51.101.0/24", "", "").means(&flow()));
    }

    #[test]
    fn clients_are_written_in_many_ways() {
        let client: SocketAddr = "[2001:db8::7]:50000".parse().unwrap();
        for same in [
            "2001:db8::7",
            "2001:0DB8:0:0::7",
            "[2001:db8::7]:50000",
            "2001:db8::/32",
            "2001:db8::7/128",
            "::/0",
        ] {
            assert!(selects_client(same, client), "{same}");
        }
        for other in [
            "2001:db8::8",
            "[2001:db8::7]:50001",
            "2001:db9::/32",
            "0.0.0.0/0",
            "198.51.100.4",
            "[2001:db8::7]",
            "2001:db8::/129",
            "",
        ] {
            assert!(!selects_client(other, client), "{other}");
        }
        let v4 = "198.51.100.4:1".parse().unwrap();
        assert!(selects_client("::ffff:198.51.100.4", v4));
        let error = Clients::from_str("some one").unwrap_err().to_string();
        assert!(
            error.contains("`some one`") && error.contains("/24"),
            "{error}"
        );
    }
}
