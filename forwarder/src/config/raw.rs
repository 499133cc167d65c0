//! The configuration as written: every key optional, every value with its place in the file.
//!
//! These types are the schema. Their field names are the contract with the user: the loader, the
//! unknown-key check, `docs/config.md` and the commented example are all held against them.

use serde::Deserialize as Derive;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_spanned::Spanned;

/// A text value and its place.
pub type Text = Spanned<String>;
/// A whole number and its place; its range is judged later, with a better message.
pub type Number = Spanned<i64>;
/// A list, its place, and the place of each element.
pub type List<T> = Option<Spanned<Vec<T>>>;

/// The whole file.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `[entrance]`
    pub entrance: Option<Spanned<RawEntrance>>,
    /// `[metrics]`
    pub metrics: Option<Spanned<RawMetrics>>,
    /// `[flow_log]`
    pub flow_log: Option<Spanned<RawFlowLog>>,
    /// `[geoip]`
    pub geoip: Option<Spanned<RawGeoIp>>,
    /// `[[listener]]`
    pub listener: Vec<Spanned<RawListener>>,
    /// `[[pool]]`
    pub pool: Vec<Spanned<RawPool>>,
    /// `[[route]]`
    pub route: Vec<Spanned<RawRoute>>,
}

/// `[entrance]`: this machine.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawEntrance {
    /// Interfaces that face the internet.
    pub public: List<Text>,
    /// Interfaces that lead to nodes.
    pub tunnels: List<Text>,
    /// Size of the flow table.
    pub max_flows: Option<Number>,
    /// How many flows a source may have.
    pub max_flows_per_source: Option<Number>,
    /// How many ClientHellos may be incomplete at once.
    pub hello_buffers: Option<Number>,
    /// How long one may take from its first byte on.
    pub hello_timeout: Option<Text>,
    /// Local ports used towards nodes, `first-last`.
    pub source_ports: Option<Text>,
    /// Where maps, programs and links are pinned.
    pub bpffs: Option<Text>,
    /// How long a silent flow is kept.
    pub idle_timeout: Option<Text>,
    /// Resets a second in answer to packets of unknown flows.
    pub rst_rate: Option<Number>,
    /// Whether changes of the configuration files are put to use by themselves.
    pub watch: Option<Spanned<bool>>,
    /// When public interfaces have the XDP filter attached: `auto`, `on` or `off`.
    pub xdp: Option<Text>,
    /// Whether a veth may have the XDP filter attached.
    pub xdp_veth: Option<Spanned<bool>>,
    /// Segments a second of unproven connections from which on it is a flood.
    pub xdp_above: Option<Number>,
    /// How long it must have been calm until the XDP filter is detached.
    pub xdp_calm: Option<Text>,
}

/// `[metrics]`: what the machine says about itself.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// Address and port of the metrics page.
    pub listen: Option<Text>,
    /// Targets with series of their own.
    pub max_targets: Option<Number>,
}

/// `[flow_log]`: what is written about flows.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawFlowLog {
    /// Where lines go.
    pub to: Option<Text>,
    /// Whether flows that open get a line.
    pub opened: Option<Spanned<bool>>,
    /// Whether flows that close get one.
    pub closed: Option<Spanned<bool>>,
    /// Whether connections that are refused get one.
    pub refused: Option<Spanned<bool>>,
    /// Lines a second.
    pub rate: Option<Number>,
    /// Lines at once.
    pub burst: Option<Number>,
    /// Lines a minute of refused connections.
    pub refused_per_minute: Option<Number>,
    /// Size at which the file is moved away.
    pub max_size: Option<Text>,
}

/// `[geoip]`: where clients are looked up.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawGeoIp {
    /// Database of countries.
    pub country: Option<Text>,
    /// Database of networks.
    pub asn: Option<Text>,
}

/// `[[listener]]`: addresses and a port that clients connect to.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawListener {
    /// Its name, referred to by routes.
    pub name: Option<Text>,
    /// What is spoken on it.
    pub protocol: Option<Text>,
    /// Its addresses; all of the public interfaces when absent.
    pub addresses: List<Text>,
    /// Its TCP port.
    pub port: Option<Number>,
    /// What a client gets whose name is not listed.
    pub on_refuse: Option<Text>,
}

/// `[[pool]]`: nodes that serve the same names.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawPool {
    /// Its name, referred to by routes.
    pub name: Option<Text>,
    /// How the nodes learn the client's address.
    pub client_address: Option<Text>,
    /// How a node is chosen.
    pub balance: Option<Text>,
    /// How it is found out whether its nodes work.
    pub health: Option<Spanned<RawHealth>>,
    /// How long a node that comes back takes to its full share.
    pub slow_start: Option<Text>,
    /// What happens to new connections while no node works.
    pub when_empty: Option<Text>,
    /// What happens to the connections of a node that stops working.
    pub on_down: Option<Text>,
    /// Its nodes.
    pub nodes: List<Spanned<RawNode>>,
}

/// `health` of a pool: how it is found out whether its nodes work.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawHealth {
    /// What is tried.
    pub check: Option<Text>,
    /// Name sent in the hello and as `Host`.
    pub server_name: Option<Text>,
    /// Path asked for.
    pub path: Option<Text>,
    /// HTTP status codes that are success.
    pub expect: List<Number>,
    /// From one check to the next.
    pub interval: Option<Text>,
    /// How long one may take.
    pub timeout: Option<Text>,
    /// Successes in a row that bring a node back.
    pub rise: Option<Number>,
    /// Failures in a row that take it out.
    pub fall: Option<Number>,
    /// Which PROXY header comes first, if any.
    pub proxy: Option<Spanned<RawProxy>>,
    /// Whether the certificate must be valid for the name.
    pub verify: Option<Spanned<bool>>,
    /// Whether connections of clients that fail count too.
    pub passive: Option<Spanned<bool>>,
}

/// `proxy` of `health`: a word, or whether there is a header at all.
#[derive(Debug)]
pub enum RawProxy {
    /// `true` or `false`.
    Flag(bool),
    /// A word.
    Word(String),
}

/// `[[route]]`: names and the pool that serves them.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawRoute {
    /// Names, exact or with a leading `*.`.
    pub names: List<Text>,
    /// The pool that serves them.
    pub pool: Option<Text>,
    /// The listeners it holds on; all of the protocol when absent.
    pub listeners: List<Text>,
}

/// One element of `nodes`: `"10.0.0.2:443"` or a table.
#[derive(Debug)]
pub enum RawNode {
    /// Only the address.
    Address(String),
    /// A table.
    Table(RawNodeTable),
}

/// The table form of a node.
#[derive(Debug, Default, Derive)]
#[serde(deny_unknown_fields, default)]
pub struct RawNodeTable {
    /// Its name in output and metrics; the address when absent.
    pub name: Option<Text>,
    /// Address and port.
    pub address: Option<Text>,
    /// Its share of new connections.
    pub weight: Option<Number>,
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawNode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"address:port\" or { address = \"address:port\", … }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawNode, E> {
                Ok(RawNode::Address(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawNode, A::Error> {
                RawNodeTable::deserialize(MapAccessDeserializer::new(map)).map(RawNode::Table)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for RawProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = RawProxy;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"local\", \"proxy\" or false")
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<RawProxy, E> {
                Ok(RawProxy::Flag(flag))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawProxy, E> {
                Ok(RawProxy::Word(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
