//! The five views: which columns each has, and what stands in them. Pure.

use std::time::{Duration, SystemTime};

use super::grid::{Column, Grid, Key, Row, Sort, Width, number, text};
use super::picture::{Picture, Rates};
use crate::config::model::NodeState as Operator;
use crate::health::report::NodeReport;
use crate::health::words;
use crate::status::NodeStatus;
use crate::units::{age, rate, short};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A little of everything.
    Overview,
    /// Nodes.
    Nodes,
    /// Routes.
    Routes,
    /// Flows.
    Flows,
    /// Refusals and drops by reason.
    Refusals,
}

impl View {
    /// All of them, in the order of their keys, `1` to `5`.
    pub const ALL: [Self; 5] = [
        Self::Overview,
        Self::Nodes,
        Self::Routes,
        Self::Flows,
        Self::Refusals,
    ];

    /// Its word.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Nodes => "Nodes",
            Self::Routes => "Routes",
            Self::Flows => "Flows",
            Self::Refusals => "Refusals",
        }
    }

    /// By what it is sorted until somebody wants it otherwise.
    pub fn sort(self) -> Sort {
        let title = match self {
            Self::Overview | Self::Nodes => "NODE",
            Self::Routes | Self::Flows => "DOWN/S",
            Self::Refusals => "A SECOND",
        };
        let column = self.columns().iter().position(|own| own.title == title);
        Sort {
            column: column.unwrap_or_default(),
            reverse: false,
        }
    }

    /// The columns of its grid.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Overview => &BRIEF,
            Self::Nodes => &NODES,
            Self::Routes => &ROUTES,
            Self::Flows => &FLOWS,
            Self::Refusals => &REFUSALS,
        }
    }

    /// Its grid.
    pub fn grid(self, picture: &Picture) -> Grid {
        let rows = match self {
            Self::Overview => brief(picture),
            Self::Nodes => nodes(picture),
            Self::Routes => routes(picture),
            Self::Flows => flows(picture),
            Self::Refusals => refusals(picture),
        };
        Grid {
            columns: self.columns(),
            rows,
        }
    }
}

const fn wide(title: &'static str, share: u16) -> Column {
    Column {
        title,
        width: Width::Wide(share),
    }
}

const fn narrow(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width: Width::Number(width),
    }
}

static BRIEF: [Column; 5] = [
    wide("NODE", 2),
    wide("HEALTH", 4),
    narrow("CONN/S", 6),
    narrow("UP/S", 6),
    narrow("DOWN/S", 6),
];

static NODES: [Column; 8] = [
    wide("NODE", 3),
    wide("HEALTH", 6),
    wide("TUNNEL", 4),
    narrow("CONN/S", 6),
    narrow("FAIL/S", 6),
    narrow("CONNECT", 8),
    narrow("UP/S", 6),
    narrow("DOWN/S", 6),
];

static ROUTES: [Column; 8] = [
    wide("ROUTE", 3),
    wide("POOL", 1),
    narrow("CONN/S", 6),
    narrow("OPENED", 8),
    narrow("FAILED", 7),
    narrow("UP/S", 6),
    narrow("DOWN/S", 6),
    narrow("DOWN", 6),
];

static FLOWS: [Column; 8] = [
    wide("CLIENT", 4),
    wide("NAME", 4),
    wide("NODE", 2),
    narrow("AGE", 7),
    narrow("UP/S", 5),
    narrow("DOWN/S", 6),
    narrow("UP", 5),
    narrow("DOWN", 5),
];

static REFUSALS: [Column; 4] = [
    wide("REASON", 2),
    wide("WHAT", 1),
    narrow("A SECOND", 9),
    narrow("COUNT", 12),
];

/// Rates of bytes, up and down.
fn traffic(rates: &Rates) -> [(String, Key); 2] {
    [rates.up, rates.down].map(|own| number(short(own), own))
}

fn milliseconds(us: Option<u64>) -> (String, Key) {
    match us {
        Some(us) => number(format!("{:.1} ms", us as f64 / 1e3), us as f64),
        None => number("-", 0.0),
    }
}

/// The health of a node in the pool in which it is worst.
fn health(node: &NodeStatus, now: SystemTime) -> (String, bool) {
    let worst = node.health.iter().min_by_key(|own| own.share);
    let Some(worst) = worst else {
        return (String::from("-"), false);
    };
    let operator = words::hindrance(worst, now).filter(|_| worst.operator != Operator::Ready);
    let words = operator.unwrap_or_else(|| words::health(worst, now));
    (words, node.health.iter().any(NodeReport::is_down))
}

fn brief(picture: &Picture) -> Vec<Row> {
    let now = picture.last.moment();
    let nodes = picture.last.status.nodes.iter().zip(&picture.nodes);
    let rows = nodes.map(|(node, rates)| {
        let (words, down) = health(node, now);
        let [up, down_s] = traffic(rates);
        Row::new([
            text(&node.name),
            text(words),
            number(rate(rates.opened), rates.opened),
            up,
            down_s,
        ])
        .alarm(down || !node.reachable)
    });
    rows.collect()
}

fn nodes(picture: &Picture) -> Vec<Row> {
    let now = picture.last.moment();
    let nodes = picture.last.status.nodes.iter();
    let nodes = nodes.zip(&picture.nodes).zip(&picture.failures);
    let rows = nodes.map(|((node, rates), failures)| {
        let (words, down) = health(node, now);
        let tunnel = node.tunnel.as_ref();
        let [up, down_s] = traffic(rates);
        Row::new([
            text(&node.name),
            text(words),
            text(tunnel.map_or_else(|| String::from("NONE"), |own| own.short())),
            number(rate(rates.opened), rates.opened),
            number(rate(*failures), *failures),
            milliseconds(node.connect_us),
            up,
            down_s,
        ])
        .alarm(down || !node.reachable || tunnel.is_some_and(|own| own.silent))
    });
    rows.collect()
}

fn routes(picture: &Picture) -> Vec<Row> {
    let routes = picture.last.status.routes.iter().zip(&picture.routes);
    let rows = routes.map(|(route, rates)| {
        let counted = &route.traffic;
        let [up, down] = traffic(rates);
        Row::new([
            text(&route.first_name),
            text(&route.pool),
            number(rate(rates.opened), rates.opened),
            number(counted.opened.to_string(), counted.opened as f64),
            number(counted.failed.to_string(), counted.failed as f64),
            up,
            down,
            number(short(counted.down_bytes as f64), counted.down_bytes as f64),
        ])
    });
    rows.collect()
}

fn flows(picture: &Picture) -> Vec<Row> {
    let flows = picture.last.flows.iter().zip(&picture.flows);
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| String::from("-"));
    let rows = flows.map(|(flow, rates)| {
        let lived = Duration::from_millis(flow.age_ms.into());
        let [up, down] = traffic(rates);
        Row::new([
            text(flow.client.to_string()),
            text(known(&flow.name)),
            text(known(&flow.node)),
            number(age(lived), lived.as_secs_f64()),
            up,
            down,
            number(short(flow.up_bytes as f64), flow.up_bytes as f64),
            number(short(flow.down_bytes as f64), flow.down_bytes as f64),
        ])
    });
    rows.collect()
}

fn refusals(picture: &Picture) -> Vec<Row> {
    let status = &picture.last.status;
    let drops = status.drops.iter().zip(&picture.drops);
    let rows = drops.map(|((reason, count), a_second)| {
        let refusal = status.refusals.contains_key(reason);
        Row::new([
            text(reason),
            text(if refusal { "connections" } else { "packets" }),
            number(rate(*a_second), *a_second),
            number(count.to_string(), *count as f64),
        ])
    });
    rows.collect()
}
