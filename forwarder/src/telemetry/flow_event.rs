//! An event of a flow, in words.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use forwarder_common::abi::Event;
use serde::{Deserialize, Serialize};

use crate::dataplane::flows::events::{Kind, Record};

/// Events that a slow reader may be behind; it is told how many more it missed.
pub const BACKLOG: usize = 4_096;

/// One event, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEvent {
    /// `opened`, `closed` or `refused`.
    pub event: String,
    /// When it was told, in milliseconds since 1970.
    pub time_ms: u64,
    /// The client.
    pub client: SocketAddr,
    /// The address and port it connected to.
    pub local: Option<SocketAddr>,
    /// The name it sent, or the listed one it matched.
    pub name: String,
    /// The listener.
    pub listener: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// Why it was closed or refused.
    pub reason: Option<String>,
    /// The flow's unique id.
    pub id: String,
    /// Of a refused connection: bytes of the hello. Otherwise: bytes client → node.
    pub up_bytes: u64,
    /// Bytes node → client.
    pub down_bytes: u64,
    /// Of an opened flow: µs from SYN to SYN-ACK. Of a closed one: ms that it lived.
    pub duration: u32,
}

impl FlowEvent {
    /// Puts an event into words.
    pub fn new(record: &Record<'_>, event: &Event) -> Self {
        let (word, reason) = match record.kind {
            Kind::Opened => ("opened", None),
            Kind::Closed { reason } => ("closed", Some(reason.to_owned())),
            Kind::Refused { reason } => ("refused", Some(reason.to_owned())),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            event: word.to_owned(),
            time_ms: now.map_or(0, |now| now.as_millis() as u64),
            client: record.client,
            local: record.local.map(|(ip, port)| SocketAddr::new(ip, port)),
            name: record.name.clone(),
            listener: record.listener.map(str::to_owned),
            pool: record.pool.map(str::to_owned),
            node: record.node.map(str::to_owned),
            reason,
            id: format!("{:016x}", event.unique_id),
            up_bytes: event.up_bytes,
            down_bytes: event.down_bytes,
            duration: event.duration,
        }
    }
}
