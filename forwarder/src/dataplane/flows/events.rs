//! The event ring: flows that open and close, connections that are refused, in words.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use forwarder_common::abi::{Event, Flow, FlowKey, NONE, close_reason, event_kind};
use forwarder_common::verdict::DropReason;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};

use crate::dataplane::address::ip;
use crate::dataplane::bpf::maps::{self, MapsError};
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::clock::{elapsed_ms, monotonic_ms};
use crate::dataplane::registry::Registry;

/// Events taken from the ring before others have their turn.
const AT_ONCE: usize = 256;

/// How long an event may lie in the ring unseen: the programs wake nobody for a few.
const LOOK: Duration = Duration::from_millis(100);

/// Why there are no events.
#[derive(Debug, Error)]
pub enum EventsError {
    /// The ring cannot be opened.
    #[error(transparent)]
    Map(#[from] MapsError),
    /// The ring cannot be waited for.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

/// The ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    look: Interval,
}

impl Events {
    /// Opens the pinned ring.
    pub fn open(pins: &Pins) -> Result<Self, EventsError> {
        let ring = maps::open_events(pins)?;
        // SAFETY: the ring owns its descriptor and keeps it open, and always the same, until it is dropped.
        let ring = unsafe { AsyncFd::register(ring) };
        let ring = ring.map_err(|error| EventsError::Wait(error.into_parts().1))?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { ring, look })
    }

    /// Waits for events and takes some. Loses none when cancelled.
    pub async fn next(&mut self) -> Result<Vec<Event>, EventsError> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                guard = self.ring.readable_mut() => guard.map_err(EventsError::Wait)?.clear_ready(),
                _ = self.look.tick() => {}
            }
        }
    }

    /// Takes some of what lies in the ring now, without waiting.
    pub fn take(&mut self) -> Vec<Event> {
        let ring = self.ring.get_mut();
        let mut events = Vec::new();
        while events.len() < AT_ONCE
            && let Some(item) = ring.next()
        {
            events.extend(decode(&item));
        }
        events
    }
}

/// Reads a record; `None` if it has another length than this version's.
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: as many bytes as an `Event`, any of which are valid: it is made of integers only.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// An event in words, every number resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The client.
    pub client: SocketAddr,
    /// The address and port it connected to.
    pub local: Option<(IpAddr, u16)>,
    /// What happened.
    pub kind: Kind,
    /// The name the client sent, or the listed one it matched.
    pub name: String,
    /// The listed name or pattern it matched.
    pub listed: Option<&'a str>,
    /// The listener.
    pub listener: Option<&'a str>,
    /// The route, by its first name.
    pub route: Option<&'a str>,
    /// The pool.
    pub pool: Option<&'a str>,
    /// The node.
    pub node: Option<&'a str>,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node accepted a flow.
    Opened,
    /// A flow ended.
    Closed {
        /// Why.
        reason: &'static str,
    },
    /// A connection was refused.
    Refused {
        /// Why.
        reason: &'static str,
    },
}

fn client(flow: &FlowKey) -> SocketAddr {
    SocketAddr::new(ip(&flow.client), u16::from_be(flow.port_be))
}

/// The event of a flow that the sweeper ended; programs tell of those that they end.
pub fn expired(key: &FlowKey, flow: &Flow) -> Event {
    Event {
        kind: event_kind::CLOSED,
        reason: close_reason::IDLE,
        time_ns: 0,
        flow: *key,
        name_id: flow.name,
        path: u32::from(flow.path),
        duration: elapsed_ms(flow.opened_ms, monotonic_ms()),
        hello_ms: 0,
        name_len: 0,
        // The SYN counts as one.
        up_bytes: flow.node_acked.saturating_sub(1),
        down_bytes: flow.client_acked.saturating_sub(1),
        hello_segments: 0,
        syns: 0,
        unique_id: flow.unique_id(),
        name: [0; 256],
        pad: [0; 5],
    }
}

impl<'a> Record<'a> {
    /// Resolves an event's numbers.
    pub fn new(event: &Event, registry: &'a Registry) -> Self {
        let path = u16::try_from(event.path)
            .ok()
            .and_then(|path| registry.path(path));
        let node = path.map(|(block, ordinal)| block.nodes[ordinal]);
        let listed = |id: u32| {
            registry
                .names
                .key(id as usize)
                .unwrap_or_default()
                .to_owned()
        };
        let sent = event
            .name
            .get(..event.name_len as usize)
            .unwrap_or_default();
        let name = match sent {
            [] if event.name_id == NONE => String::new(),
            [] => listed(event.name_id),
            sent => String::from_utf8_lossy(sent).into_owned(),
        };
        let key = |number: u16| usize::from(number);
        Self {
            client: client(&event.flow),
            local: registry.vips.key(key(event.flow.vip)).copied(),
            kind: kind(event),
            name,
            listed: registry.names.key(event.name_id as usize),
            route: path
                .and_then(|(block, _)| registry.routes.key(key(block.route)))
                .map(|route| route.first_name.as_str()),
            listener: path
                .and_then(|(block, _)| Some(registry.listeners.key(key(block.listener))?.as_str())),
            pool: path
                .and_then(|(block, _)| Some(registry.pools.key(key(block.pool))?.name.as_str())),
            node: node.and_then(|node| Some(registry.node_names.get(&node)?.as_str())),
        }
    }
}

fn kind(event: &Event) -> Kind {
    match event.kind {
        event_kind::OPENED => Kind::Opened,
        event_kind::CLOSED => Kind::Closed {
            reason: match event.reason {
                close_reason::FINISHED => "finished",
                close_reason::CLIENT_RESET => "client_reset",
                close_reason::NODE_RESET => "node_reset",
                close_reason::NO_NODE => "no_node",
                close_reason::IDLE => "idle",
                close_reason::UNCONFIRMED => "unconfirmed",
                _ => "unknown",
            },
        },
        _ => Kind::Refused {
            reason: u8::try_from(event.reason)
                .ok()
                .and_then(DropReason::from_number)
                .map_or("unknown", DropReason::label),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::address::address;
    use crate::dataplane::registry::{PoolKey, RouteKey};

    fn event(kind: u32, reason: u32, name: &[u8]) -> Event {
        let mut event = Event {
            kind,
            reason,
            time_ns: 0,
            flow: FlowKey {
                client: address("198.51.100.4".parse().unwrap()),
                port_be: 50_000_u16.to_be(),
                vip: 0,
            },
            name_id: 0,
            path: 0,
            duration: 7,
            hello_ms: 0,
            name_len: name.len() as u32,
            up_bytes: 0,
            down_bytes: 0,
            hello_segments: 1,
            syns: 1,
            unique_id: 1,
            name: [0; 256],
            pad: [0; 5],
        };
        event.name[..name.len()].copy_from_slice(name);
        event
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry.listeners.number(&String::from("https"));
        registry.pools.number(&PoolKey {
            name: String::from("k3s"),
            client_address: crate::config::model::ClientAddress::Transparent,
            nodes: Vec::new(),
        });
        registry.names.number("*.example.org");
        registry.vips.number(&("203.0.113.7".parse().unwrap(), 443));
        registry.node_names.insert(4, String::from("thinkpad"));
        registry.routes.number(&RouteKey {
            first_name: String::from("www.example.org"),
            pool: String::from("k3s"),
            listeners: Vec::new(),
        });
        registry.block(0, 0, 0, &[4]);
        registry
    }

    #[test]
    fn numbers_become_names() {
        let registry = registry();
        let record = Record::new(&event(event_kind::OPENED, 0, b"a.example.org"), &registry);
        assert_eq!(record.kind, Kind::Opened);
        assert_eq!(record.client.to_string(), "198.51.100.4:50000");
        assert_eq!(record.name, "a.example.org");
        assert_eq!(
            (record.listener, record.pool, record.node),
            (Some("https"), Some("k3s"), Some("thinkpad"))
        );
        assert_eq!(record.local.unwrap().1, 443);
        assert_eq!(record.listed, Some("*.example.org"));
        assert_eq!(record.route, Some("www.example.org"));
    }

    #[test]
    fn a_closed_flow_is_called_by_its_listed_name() {
        let registry = registry();
        let record = Record::new(
            &event(event_kind::CLOSED, close_reason::NODE_RESET, b""),
            &registry,
        );
        assert_eq!(record.name, "*.example.org");
        assert_eq!(
            record.kind,
            Kind::Closed {
                reason: "node_reset"
            }
        );
    }

    #[test]
    fn a_refusal_may_know_nothing() {
        let mut event = event(event_kind::REFUSED, DropReason::NotTls as u32, b"");
        event.path = NONE;
        event.name_id = NONE;
        let registry = Registry::default();
        let record = Record::new(&event, &registry);
        assert_eq!(record.kind, Kind::Refused { reason: "not_tls" });
        assert_eq!(
            (
                record.name.as_str(),
                record.listed,
                record.node,
                record.local
            ),
            ("", None, None, None)
        );
    }

    #[test]
    fn records_of_another_length_are_skipped() {
        assert!(decode(&[0; 10]).is_none());
        assert!(decode(&[0; size_of::<Event>()]).is_some());
    }
}
