//! Which way a connection would take, and why.
//!
//! Listener and route follow from the configuration by the rule that the name trie is tested against; the node
//! is read from the very table that programs look it up in, by the same hash. What health says about the nodes
//! is in that table already; its report tells why.

use std::net::IpAddr;
use std::time::SystemTime;

use forwarder_common::abi::{MaglevTable, map};
use forwarder_common::maglev::{TABLE_SIZE, client_hash};
use forwarder_common::name::{PatternKind, most_specific};
use forwarder_common::source_flows;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::difference::word;
use crate::config::model::{Balance, NodeState, Pattern, Pool};
use crate::dataplane::address::address;
use crate::dataplane::bpf::maps::{MapsError, OfMap, found, open_source_flows};
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::clock::monotonic;
use crate::dataplane::config_maps::ConfigMaps;
use crate::dataplane::registry::Registry;
use crate::health::report::{NodeReport, Report};
use crate::health::words;

/// Which connection.
#[derive(Clone, Debug)]
pub struct Question {
    /// The server name the client sends.
    pub name: String,
    /// The client.
    pub from: IpAddr,
    /// The port it connects to; any when absent.
    pub port: Option<u16>,
}

/// The ways it may take, one for each listener that is asked about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The name.
    pub name: String,
    /// The client.
    pub from: IpAddr,
    /// The ways; none if no listener has the port.
    pub ways: Vec<Way>,
    /// What is to be said about all of them.
    pub note: Option<String>,
}

/// What happens on one listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// The listener.
    pub listener: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is forwarded.
    pub forwarded: bool,
    /// Each step of the decision in words.
    pub why: Vec<String>,
    /// The listed name that decides.
    pub listed: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node that takes it; absent if it is refused or chosen at random.
    pub node: Option<String>,
    /// The nodes of the pool in the order in which they are tried.
    pub nodes: Vec<Turn>,
}

/// A node, when its turn comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// Share of all clients of this family whose first choice it is, in percent.
    pub share: f64,
    /// Why it is passed over; absent if it is not.
    pub passed_over: Option<String>,
    /// What is known about its health.
    pub health: Option<NodeReport>,
    /// Why it gets a smaller share than its weight says, though it is not passed over.
    pub hindrance: Option<String>,
}

/// What is known beside the configuration.
struct Known<'a> {
    registry: &'a Registry,
    tables: ConfigMaps,
    health: &'a Report,
    source: Source,
}

/// How many flows the client's source has, all have, and there can be.
struct Source {
    own: u32,
    all: u32,
    capacity: u32,
    most: u32,
}

impl Source {
    fn of(client: IpAddr, pins: &Pins, tables: &ConfigMaps) -> Result<Self, MapsError> {
        let settings = tables.settings.get(&0, 0).reading(map::SETTINGS)?;
        let (own, all) = open_source_flows(pins)?.of(&address(client.to_canonical()));
        Ok(Self {
            own,
            all,
            capacity: settings.flows,
            most: settings.flows_per_source,
        })
    }

    fn refused(&self) -> Option<String> {
        let Self { own, all, most, .. } = *self;
        if source_flows::has_room(own, all, self.capacity, most) {
            return None;
        }
        Some(if most != 0 && source_flows::known(own, all) >= most {
            format!(
                "its source (an IPv4 address, an IPv6 /64) has {own} connections: refused (source_limit), because of \
                 `max_flows_per_source = {most}`"
            )
        } else {
            format!(
                "its source (an IPv4 address, an IPv6 /64) has {own} connections, and no more than that are left of \
                 `max_flows = {}`: refused (source_limit)",
                self.capacity
            )
        })
    }
}

/// Answers `question` from the maps below `pins`.
pub fn explain(
    question: &Question,
    config: &Config,
    registry: &Registry,
    pins: &Pins,
    health: &Report,
) -> Result<Explanation, MapsError> {
    let tables = ConfigMaps::open(pins)?;
    let known = Known {
        registry,
        source: Source::of(question.from, pins, &tables)?,
        tables,
        health,
    };
    let mut explanation = Explanation {
        name: question.name.clone(),
        from: question.from,
        ways: Vec::new(),
        note: None,
    };
    match Pattern::parse(&question.name) {
        Ok(pattern) if pattern.kind() == PatternKind::Exact => {}
        Ok(_) => {
            explanation.note = Some(String::from(
                "clients send whole names; ask about one that the pattern covers",
            ));
            return Ok(explanation);
        }
        Err(why) => {
            explanation.note = Some(format!("refused everywhere (bad_server_name): {why}"));
            return Ok(explanation);
        }
    }
    for (at, listener) in config.listeners.iter().enumerate() {
        if question.port.is_none_or(|port| port == listener.port) {
            let way = way(question, config, at, &known)?;
            explanation.ways.push(way);
        }
    }
    if let (Some(port), true) = (question.port, explanation.ways.is_empty()) {
        explanation.note = Some(format!(
            "no listener has port {port}; such packets are this machine's own"
        ));
    }
    Ok(explanation)
}

fn way(
    question: &Question,
    config: &Config,
    at: usize,
    known: &Known<'_>,
) -> Result<Way, MapsError> {
    let listener = &config.listeners[at];
    let mut way = Way {
        listener: listener.name.get_ref().clone(),
        port: listener.port,
        forwarded: false,
        why: Vec::new(),
        listed: None,
        pool: None,
        node: None,
        nodes: Vec::new(),
    };
    let here = config
        .routes
        .iter()
        .filter(|route| route.listeners.contains(&at));
    let listed = most_specific(here.clone().flat_map(|route| &route.names), &question.name);
    let route = listed.and_then(|listed| here.clone().find(|own| own.names.contains(listed)));
    let (Some(listed), Some(route)) = (listed, route) else {
        way.why.push(format!(
            "`{}` is not listed on listener `{}`: refused by {}",
            question.name,
            way.listener,
            word(listener.on_refuse)
        ));
        return Ok(way);
    };
    let pool = &config.pools[route.pool];
    let others = here
        .flat_map(|route| &route.names)
        .filter(|own| own.matches(&question.name))
        .count()
        - 1;
    way.why.push(match (listed.kind(), others) {
        (PatternKind::Exact, 0) => format!("`{listed}` is listed"),
        (PatternKind::Exact, _) => format!("`{listed}` is listed; an exact name beats wildcards"),
        (_, 0) => format!("`{listed}` covers it"),
        (_, _) => format!(
            "`{listed}` covers it; of {} wildcards the longest wins",
            others + 1
        ),
    });
    way.listed = Some(listed.to_string());
    way.pool = Some(pool.name.get_ref().clone());
    choose(&mut way, question, pool, known)?;
    Ok(way)
}

/// Nodes in the order in which programs try them.
fn choose(
    way: &mut Way,
    question: &Question,
    pool: &Pool,
    known: &Known<'_>,
) -> Result<(), MapsError> {
    let (registry, tables) = (known.registry, &known.tables);
    let name = pool.name.get_ref();
    let number = registry
        .pools
        .iter()
        .find(|(number, key)| registry.pools.is_live(*number) && key.name == *name);
    let value = match number {
        Some((number, _)) => found(tables.pools.get(&(number as u32), 0)).reading(map::POOLS)?,
        None => None,
    };
    let refuse_until_ns = value.map_or(0, |value| value.refuse_until_ns);
    let table = match value {
        Some(value) => found(tables.maglev.get(&value.maglev, 0)).reading(map::MAGLEV)?,
        None => None,
    };
    let Some(table) = table else {
        way.why
            .push(format!("pool `{name}` is not in the maps yet"));
        return Ok(());
    };
    let half = half(&table, question.from);
    let hash = client_hash(&address(question.from.to_canonical()));
    let first = usize::from(half[hash as usize % TABLE_SIZE]);
    for attempt in 0..pool.nodes.len() {
        let ordinal = (first + attempt) % pool.nodes.len();
        let node = &pool.nodes[ordinal];
        let own = half.iter().filter(|entry| usize::from(**entry) == ordinal);
        let health = known.health.of(name, *node.address.get_ref());
        let now = SystemTime::now();
        way.nodes.push(Turn {
            name: node.name.clone(),
            address: node.address.get_ref().to_string(),
            share: own.count() as f64 * 100.0 / TABLE_SIZE as f64,
            passed_over: passed_over(node, question.from, registry, tables)?,
            health: health.cloned(),
            hindrance: health.and_then(|health| words::hindrance(health, now)),
        });
    }
    if u128::from(refuse_until_ns) > monotonic().as_nanos() {
        way.why.push(format!(
            "no node of pool `{name}` works: refused (no_node), because of `when_empty = \"refuse\"`"
        ));
        return Ok(());
    }
    if let Some(own) = known.source.refused() {
        way.why.push(own);
        return Ok(());
    }
    let taker = way.nodes.iter().find(|turn| turn.passed_over.is_none());
    way.forwarded = taker.is_some();
    let client = question.from;
    let mut usable = way.nodes.iter().filter(|turn| turn.passed_over.is_none());
    let works = |turn: &Turn| turn.health.as_ref().is_none_or(|own| !own.is_down());
    if taker.is_some() && !usable.any(works) {
        way.why.push(format!(
            "no node of pool `{name}` works: all are tried, because of `when_empty = \"try_all\"`"
        ));
    }
    way.why.push(match (taker, pool.balance) {
        (None, _) => format!("pool `{name}` has no node that can take it: refused (no_node)"),
        (Some(_), Balance::Random) => {
            format!("pool `{name}` chooses at random; shares are those of the table")
        }
        (Some(taker), Balance::Source) if way.nodes.first() == Some(taker) => {
            format!("pool `{name}` chooses by the client's address: {client} goes to `{}`", taker.name)
        }
        (Some(taker), Balance::Source) => format!(
            "pool `{name}` chooses by the client's address: {client} would go to `{}`, which is passed over; next is `{}`",
            way.nodes[0].name, taker.name
        ),
    });
    if pool.balance == Balance::Source {
        way.node = taker.map(|taker| taker.name.clone());
    }
    Ok(())
}

fn half(table: &MaglevTable, client: IpAddr) -> &[u16] {
    let half = match client.to_canonical() {
        IpAddr::V4(_) => &table.v4,
        IpAddr::V6(_) => &table.v6,
    };
    &half[..TABLE_SIZE]
}

fn passed_over(
    node: &crate::config::model::Node,
    client: IpAddr,
    registry: &Registry,
    tables: &ConfigMaps,
) -> Result<Option<String>, MapsError> {
    let address = *node.address.get_ref();
    if address.is_ipv4() != client.to_canonical().is_ipv4() {
        return Ok(Some(String::from("it is of the other address family")));
    }
    if node.state != NodeState::Ready {
        return Ok(Some(format!("its state is {}", word(node.state))));
    }
    let number = registry.nodes.iter().find(|(_, own)| **own == address);
    let value = match number {
        Some((number, _)) => found(tables.nodes.get(&(number as u32), 0)).reading(map::NODES)?,
        None => None,
    };
    Ok(match value {
        None => Some(String::from("it is not in the maps yet")),
        Some(value) if value.ifindex == 0 => Some(String::from("no tunnel leads to it")),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_has_its_share_is_told_so() {
        let source = |own, all, most| Source {
            own,
            all,
            capacity: 64,
            most,
        };
        assert_eq!(source(31, 31, 0).refused(), None);
        let share = source(32, 32, 0).refused().unwrap();
        assert!(share.contains("has 32 connections") && share.contains("`max_flows = 64`"));
        let fixed = source(3, 3, 3).refused().unwrap();
        assert!(fixed.contains("`max_flows_per_source = 3`"), "{fixed}");
    }
}
