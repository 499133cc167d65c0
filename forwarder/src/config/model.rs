//! The configuration as used: validated, defaults filled in, references resolved to indices.
//!
//! Values that a later check may have to point at (interfaces, addresses) keep their place in the
//! file. Indices into [`Config::listeners`] and [`Config::pools`] are valid by construction.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use forwarder_common::name::Pattern;
use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This machine.
    pub entrance: Entrance,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// Where clients connect, in the order of the file.
    pub listeners: Vec<Listener>,
    /// What serves them, in the order of the file.
    pub pools: Vec<Pool>,
    /// Which name goes to which pool, in the order of the file.
    pub routes: Vec<Route>,
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
    /// How many ClientHellos may be incomplete at once.
    pub hello_buffers: u32,
    /// Local ports used towards nodes in `proxy-v2` and `masquerade`.
    pub source_ports: Spanned<RangeInclusive<u16>>,
    /// Where maps, programs and links are pinned.
    pub bpffs: PathBuf,
    /// How long a silent flow is kept.
    pub idle_timeout: Duration,
    /// Resets a second in answer to packets of unknown flows.
    pub rst_rate: u32,
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
    /// Its nodes, in the order of the file; never empty.
    pub nodes: Vec<Node>,
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// Packets keep the client's address as their source.
    Transparent,
    /// A PROXY protocol v2 header precedes the hello.
    ProxyV2,
    /// Not at all: the entrance's tunnel address is the source.
    Masquerade,
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
        words_match_serde::<OnRefuse>();
        words_match_serde::<ClientAddress>();
        words_match_serde::<Balance>();
        words_match_serde::<NodeState>();
    }
}
