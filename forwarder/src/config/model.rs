//! The configuration as used: validated, defaults filled in, references resolved to indices.
//!
//! Values that a later check may have to point at (interfaces, addresses) keep their place in the
//! file. Indices into [`Config::listeners`] and [`Config::pools`] are valid by construction.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forwarder_common::abi::client_address;
use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

/// A name pattern; copies share its text.
pub type Pattern = forwarder_common::name::Pattern<Arc<str>>;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first 48 bits of the SHA-256 of the text it was read from.
    pub digest: u64,
    /// This machine.
    pub entrance: Entrance,
    /// What is served about it.
    pub metrics: Metrics,
    /// What is written about flows.
    pub flow_log: FlowLog,
    /// Where clients are looked up.
    pub geoip: GeoIp,
    /// Where clients connect, in the order of the file.
    pub listeners: Vec<Listener>,
    /// What serves them, in the order of the file.
    pub pools: Vec<Pool>,
    /// Which name goes to which pool, in the order of the file. Copies of a configuration share them.
    pub routes: Vec<Arc<Route>>,
}

impl Config {
    /// The listener that claims an address and port.
    pub fn listener_at(&self, (address, port): (IpAddr, u16)) -> Option<&str> {
        let claims = |own: &&Listener| {
            let addresses = own.addresses.as_ref();
            own.port == port
                && addresses.is_none_or(|all| all.iter().any(|own| *own.get_ref() == address))
        };
        let found = self.listeners.iter().find(claims);
        found.map(|own| own.name.get_ref().as_str())
    }
}

/// `[entrance]`.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Interfaces that face the internet.
    pub public: Vec<Spanned<String>>,
    /// Interfaces that lead to nodes.
    pub tunnels: Vec<Spanned<String>>,
    /// Size of the flow table.
    pub max_flows: u32,
    /// How many flows an IPv4 address or IPv6 /64 may have; 0: no more than are left free.
    pub max_flows_per_source: u32,
    /// How many ClientHellos may be incomplete at once.
    pub hello_buffers: u32,
    /// How long one may take from its first byte on.
    pub hello_timeout: Duration,
    /// Local ports used towards nodes in `proxy-v2` and `masquerade`.
    pub source_ports: Spanned<RangeInclusive<u16>>,
    /// Where maps, programs and links are pinned.
    pub bpffs: PathBuf,
    /// How long a silent flow is kept.
    pub idle_timeout: Duration,
    /// Resets a second in answer to packets of unknown flows.
    pub rst_rate: u32,
    /// Whether changes of the configuration files are put to use by themselves.
    pub watch: bool,
    /// When public interfaces have the XDP filter attached.
    pub xdp: Xdp,
    /// Whether a veth may have it attached, too.
    pub xdp_veth: bool,
    /// Segments a second of unproven connections from which on it is a flood.
    pub xdp_above: u32,
    /// How long it must have been calm until the XDP filter is detached.
    pub xdp_calm: Duration,
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where they are served, if at all.
    pub listen: Option<SocketAddr>,
    /// Targets (listener, route, pool, node) with series of their own; of more, labels are left out.
    pub max_targets: u32,
}

/// `[flow_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// Where lines go.
    pub to: FlowLogTo,
    /// Whether flows that open get a line.
    pub opened: bool,
    /// Whether flows that close get one.
    pub closed: bool,
    /// Whether connections that are refused get one.
    pub refused: bool,
    /// Lines a second, of flows.
    pub rate: u32,
    /// Lines of flows at once, after a calm.
    pub burst: u32,
    /// Lines a minute, of refused connections. Those that are left out are summed up once a minute.
    pub refused_per_minute: u32,
    /// Bytes at which a file is moved to `….old`, in place of the one that is there.
    pub max_size: u64,
}

/// Where lines of the flow log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowLogTo {
    /// Nowhere.
    None,
    /// Among the daemon's own log lines.
    Log,
    /// To the systemd journal, each field its own.
    Journald,
    /// To standard output, as JSON.
    Stdout,
    /// To a file, as JSON.
    File(PathBuf),
}

impl FlowLogTo {
    /// Every destination that is a word.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("log", Self::Log),
        ("journald", Self::Journald),
        ("stdout", Self::Stdout),
        ("none", Self::None),
    ];
}

impl fmt::Display for FlowLogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            own => {
                let word = Self::WORDS.iter().find(|(_, to)| to == own);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

/// `[geoip]`: MaxMind DB files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeoIp {
    /// Database of countries.
    pub country: Option<PathBuf>,
    /// Database of networks (autonomous systems).
    pub asn: Option<PathBuf>,
}

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name.
    pub name: Spanned<String>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Its addresses; `None` means all of the public interfaces, which may change at run time.
    pub addresses: Option<Vec<Spanned<IpAddr>>>,
    /// Its TCP port.
    pub port: u16,
    /// What a client gets whose name is not listed.
    pub on_refuse: OnRefuse,
}

/// `[[pool]]`.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: Spanned<String>,
    /// How the nodes learn the client's address.
    pub client_address: ClientAddress,
    /// How a node is chosen.
    pub balance: Balance,
    /// How it is found out whether its nodes work.
    pub health: Checks,
    /// How long a node that comes back takes to its full share; zero: none.
    pub slow_start: Duration,
    /// What happens to new connections while no node works.
    pub when_empty: WhenEmpty,
    /// What happens to the connections of a node that stops working.
    pub on_down: OnDown,
    /// Its nodes, in the order of the file; never empty.
    pub nodes: Vec<Node>,
}

/// `health` of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// What is tried.
    pub check: Check,
    /// Name sent in the hello and as `Host`; `None`: the first exact name routed to the pool.
    pub server_name: Option<String>,
    /// Path asked for.
    pub path: String,
    /// HTTP status codes that are success; empty: 200 to 399.
    pub expect: Vec<u16>,
    /// From one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row that bring a node back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// The command of the PROXY header (version 2) that comes first; `None`: there is no header.
    pub proxy: Option<ProxyCommand>,
    /// Whether the certificate must be valid for the name.
    pub verify: bool,
    /// Whether connections of clients that fail count too.
    pub passive: bool,
}

/// One node of a pool.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in output and metrics.
    pub name: String,
    /// Where it listens.
    pub address: Spanned<SocketAddr>,
    /// Its share of new connections, 1 to 1000; 0 by an edit at run time only.
    pub weight: u16,
    /// Whether it takes new flows; the file cannot say so, edits at run time can.
    pub state: NodeState,
}

impl Node {
    /// Its weight in the table of its pool.
    pub fn share(&self) -> u16 {
        match self.state {
            NodeState::Ready => self.weight,
            NodeState::Drain | NodeState::Maint => 0,
        }
    }
}

/// `[[route]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The names, never empty.
    pub names: Vec<Pattern>,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Indices into [`Config::listeners`], in the order of the file, never empty.
    pub listeners: Vec<usize>,
}

/// An enumeration that is written as one of a few words.
pub trait Keyword: Copy + Sized + 'static {
    /// Every word and what it stands for.
    const WORDS: &'static [(&'static str, Self)];

    /// What `word` stands for.
    fn from_word(word: &str) -> Option<Self> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value)
    }
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TLS; the route follows the server name of the ClientHello.
    Tls,
}

impl Keyword for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tls", Self::Tls)];
}

/// What a client gets whose name is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRefuse {
    /// The TLS alert `unrecognized_name`, then the end of the connection.
    Alert,
    /// A TCP reset.
    Reset,
    /// Silence.
    Drop,
}

impl Keyword for OnRefuse {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("alert", Self::Alert),
        ("reset", Self::Reset),
        ("drop", Self::Drop),
    ];
}

/// How nodes learn the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// Packets keep the client's address as their source.
    Transparent,
    /// A PROXY protocol v2 header precedes the hello.
    ProxyV2,
    /// Not at all: the entrance's tunnel address is the source.
    Masquerade,
}

impl ClientAddress {
    /// Its number in the maps.
    pub const fn number(self) -> u8 {
        match self {
            Self::Transparent => client_address::TRANSPARENT,
            Self::ProxyV2 => client_address::PROXY_V2,
            Self::Masquerade => client_address::MASQUERADE,
        }
    }

    /// What a number in the maps stands for.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            client_address::TRANSPARENT => Some(Self::Transparent),
            client_address::PROXY_V2 => Some(Self::ProxyV2),
            client_address::MASQUERADE => Some(Self::Masquerade),
            _ => None,
        }
    }
}

impl Keyword for ClientAddress {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("transparent", Self::Transparent),
        ("proxy-v2", Self::ProxyV2),
        ("masquerade", Self::Masquerade),
    ];
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By the client's address: one client stays with one node.
    Source,
    /// At random.
    Random,
}

impl Keyword for Balance {
    const WORDS: &'static [(&'static str, Self)] =
        &[("source", Self::Source), ("random", Self::Random)];
}

/// Whether a node takes new flows, as its operator decided.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It does.
    #[default]
    Ready,
    /// It does not; open flows go on.
    Drain,
    /// It does not; it may be switched off.
    Maint,
}

impl Keyword for NodeState {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("ready", Self::Ready),
        ("drain", Self::Drain),
        ("maint", Self::Maint),
    ];
}

/// What a health check tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Nothing.
    None,
    /// To connect.
    Tcp,
    /// A TLS handshake.
    Tls,
    /// An HTTP request in clear.
    Http,
    /// An HTTP request over TLS.
    Https,
}

impl Keyword for Check {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tcp", Self::Tcp),
        ("tls", Self::Tls),
        ("http", Self::Http),
        ("https", Self::Https),
        ("none", Self::None),
    ];
}

impl Check {
    /// Whether it speaks TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Whether it speaks HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// The command of a check's PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyCommand {
    /// LOCAL: the connection is the entrance's own.
    Local,
    /// PROXY: it comes from the entrance's address in the tunnel.
    Proxy,
}

impl Keyword for ProxyCommand {
    const WORDS: &'static [(&'static str, Self)] =
        &[("local", Self::Local), ("proxy", Self::Proxy)];
}

/// What happens to new connections while no node of a pool works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenEmpty {
    /// Every node is tried, as if all worked.
    TryAll,
    /// They are refused at once.
    Refuse,
}

impl Keyword for WhenEmpty {
    const WORDS: &'static [(&'static str, Self)] =
        &[("try_all", Self::TryAll), ("refuse", Self::Refuse)];
}

/// What happens to the connections of a node that stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They are left alone: the node may come back.
    Keep,
    /// Both ends get a reset at their next packet.
    Reset,
}

impl Keyword for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("reset", Self::Reset)];
}

/// When public interfaces have the XDP filter attached, a native XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Xdp {
    /// While a flood lasts.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Keyword for Xdp {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_match_serde<T: Keyword + Serialize>() {
        for (word, value) in T::WORDS {
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
        }
    }

    #[test]
    fn every_word_is_written_as_it_is_read() {
        words_match_serde::<Protocol>();
        words_match_serde::<Xdp>();
        words_match_serde::<OnRefuse>();
        words_match_serde::<ClientAddress>();
        words_match_serde::<Balance>();
        words_match_serde::<NodeState>();
        words_match_serde::<Check>();
        words_match_serde::<ProxyCommand>();
        words_match_serde::<WhenEmpty>();
        words_match_serde::<OnDown>();
    }
}
