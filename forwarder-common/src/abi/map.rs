//! Map names, as they are pinned.

/// `HASH` [`super::Endpoint`] → `u32`: the claimed addresses and ports; value is an index of [`VIPS`].
pub const VIP_INDEX: &str = "VIP_INDEX";
/// `ARRAY` of `u32`, indexed by [`super::slot::of`]: what [`VIP_INDEX`] would say, for most packets.
pub const VIP_SLOTS: &str = "VIP_SLOTS";
/// `ARRAY` of [`super::Vip`].
pub const VIPS: &str = "VIPS";
/// `HASH` [`super::NameKey`] → [`super::NameEntry`]: the listed names that are no wildcards.
pub const NAMES: &str = "NAMES";
/// `LPM_TRIE` [`super::NAME_KEY_BYTES`] → [`super::NameEntry`]: the listed wildcards.
pub const WILDCARDS: &str = "WILDCARDS";
/// `ARRAY` of [`super::Pool`].
pub const POOLS: &str = "POOLS";
/// `ARRAY` of [`super::MaglevTable`].
pub const MAGLEV: &str = "MAGLEV";
/// `ARRAY` of [`super::Path`].
pub const PATHS: &str = "PATHS";
/// `HASH` [`super::Endpoint`] → `u32`: node address and port; value is an index of [`NODES`].
pub const NODE_INDEX: &str = "NODE_INDEX";
/// `ARRAY` of `u32`, indexed by [`super::slot::of`]: what [`NODE_INDEX`] would say, for most packets.
pub const NODE_SLOTS: &str = "NODE_SLOTS";
/// `ARRAY` of [`super::Node`].
pub const NODES: &str = "NODES";
/// `HASH` [`super::FlowKey`] → [`super::Flow`]: every connection that was spliced or is about to be.
pub const FLOWS: &str = "FLOWS";
/// `HASH` [`super::ReverseKey`] → `u32`, an index of [`VIPS`]: which claimed address the client of a transparent
/// connection used, where that is none of [`super::Node::homes`].
pub const REVERSE: &str = "REVERSE";
/// `ARRAY` of `u64`, which the daemon maps into its memory: how many flows each source has ([`crate::source_flows`]).
pub const SOURCE_FLOWS: &str = "SOURCE_FLOWS";
/// `ARRAY` of [`super::ClosedSet`], indexed by `closed::set_of`: connections that have ended lately.
pub const CLOSED: &str = "CLOSED";
/// `ARRAY` of [`super::Hello`]: buffers for hellos that no node has acknowledged yet.
pub const HELLOS: &str = "HELLOS";
/// `HASH` [`super::FlowKey`] → `u32`: which buffer of [`HELLOS`] a connection uses.
pub const HELLO_INDEX: &str = "HELLO_INDEX";
/// `QUEUE` of `u32`: free buffers of [`HELLOS`]. Filled by the daemon when the map is made.
pub const HELLO_FREE: &str = "HELLO_FREE";
/// `LRU_HASH` [`super::FlowKey`] → `u32`, the cookie: connections whose hello lost its buffer, so that their next
/// segment is answered with a reset.
pub const HELLO_LOST: &str = "HELLO_LOST";
/// `QUEUE` of `u32`: free source ports (host order) of the tunnel side, oldest first. Filled by the daemon.
pub const SOURCE_PORTS: &str = "SOURCE_PORTS";
/// `ARRAY` of [`super::FlowKey`], from [`super::Settings::first_port`] on: the flow that a source port serves, or
/// served last.
pub const PORT_FLOWS: &str = "PORT_FLOWS";
/// `ARRAY(4)` of `[u64; 2]`: SipHash keys of the SYN cookies; see `cookie::key_slot`.
pub const COOKIE_KEYS: &str = "COOKIE_KEYS";
/// `LPM_TRIE` [`super::Address`] → [`super::SourceRule`]: what holds for connections from an address. IPv4 prefixes
/// are 96 bits longer than they look.
pub const SOURCE_RULES: &str = "SOURCE_RULES";
/// `HASH` interface index → [`super::PublicLink`]: the public interfaces.
pub const PUBLIC_LINKS: &str = "PUBLIC_LINKS";
/// `ARRAY(1)` of [`super::Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// `PERCPU_ARRAY` of `u64`, indexed by `DropReason`.
pub const DROPS: &str = "DROPS";
/// `PERCPU_ARRAY` of [`super::PathStats`], indexed like [`PATHS`].
pub const PATH_STATS: &str = "PATH_STATS";
/// `PERCPU_ARRAY` of [`super::NodeStats`], indexed like [`NODES`].
pub const NODE_STATS: &str = "NODE_STATS";
/// `PERCPU_ARRAY` of [`super::ListenerStats`], indexed by listener number.
pub const LISTENER_STATS: &str = "LISTENER_STATS";
/// `RINGBUF` of [`super::Event`].
pub const EVENTS: &str = "EVENTS";
/// `PERCPU_ARRAY` of `u64`, indexed by [`super::tally`].
pub const TALLIES: &str = "TALLIES";
/// `ARRAY` of [`crate::node_options::LeastMss`], indexed like [`VIPS`]: the smallest segments that the nodes behind
/// it offered lately.
pub const VIP_MSS: &str = "VIP_MSS";
/// `PROG_ARRAY`: the stages of the slow path, indexed by [`super::stage`].
pub const STAGES: &str = "STAGES";
