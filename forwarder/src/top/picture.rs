//! What two samples amount to: counts a second, by node, route, flow and reason. Pure.

use std::collections::HashMap;

use super::sample::Sample;
use crate::status::Traffic;

/// Samples closer together than this tell no rates.
const SHORTEST: f64 = 0.05;

/// What something carries in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Connections accepted.
    pub opened: f64,
    /// Bytes client → node.
    pub up: f64,
    /// Bytes node → client.
    pub down: f64,
}

/// Two samples and the rates between them; with one sample all rates are zero.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The later sample.
    pub last: Sample,
    /// All routes together.
    pub total: Rates,
    /// Refused connections a second.
    pub refused: f64,
    /// By route, in the order of the sample.
    pub routes: Vec<Rates>,
    /// By node, in the order of the sample.
    pub nodes: Vec<Rates>,
    /// SYNs a second that a node left unanswered or refused, in the order of the sample.
    pub failures: Vec<f64>,
    /// By flow, in the order of the sample; `opened` is zero.
    pub flows: Vec<Rates>,
    /// By reason, in the order of the sample's drops.
    pub drops: Vec<f64>,
}

/// Counts that a daemon's maps made anew have begun again count from zero.
fn difference(before: u64, after: u64) -> f64 {
    after.checked_sub(before).unwrap_or(after) as f64
}

/// What happened between two readings of the same counters.
fn rates(before: Option<&Traffic>, after: &Traffic, seconds: f64) -> Rates {
    let Some(before) = before.filter(|_| seconds > 0.0) else {
        return Rates::default();
    };
    Rates {
        opened: difference(before.opened, after.opened) / seconds,
        up: difference(before.up_bytes, after.up_bytes) / seconds,
        down: difference(before.down_bytes, after.down_bytes) / seconds,
    }
}

impl Picture {
    /// What happened between `before` and `last`.
    pub fn new(before: Option<&Sample>, last: Sample) -> Self {
        let seconds = before.map_or(0.0, |before| last.time - before.time);
        let before = before.filter(|_| seconds >= SHORTEST);
        let seconds = if before.is_some() { seconds } else { 0.0 };
        let (was, is) = (before.map(|before| &before.status), &last.status);
        let routes: Vec<_> = is
            .routes
            .iter()
            .map(|own| {
                let mut former = was.into_iter().flat_map(|was| &was.routes);
                let former = former
                    .find(|other| other.first_name == own.first_name && other.pool == own.pool);
                rates(former.map(|own| &own.traffic), &own.traffic, seconds)
            })
            .collect();
        let mut nodes = Vec::new();
        let mut failures = Vec::new();
        for own in &is.nodes {
            let mut former = was.into_iter().flat_map(|was| &was.nodes);
            let former = former.find(|other| other.address == own.address);
            nodes.push(rates(former.map(|own| &own.traffic), &own.traffic, seconds));
            failures.push(former.map_or(0.0, |former| {
                let failed = |node: &crate::status::NodeStatus| node.syn_timeouts + node.syn_resets;
                difference(failed(former), failed(own)) / seconds
            }));
        }
        let drops: Vec<f64> = is
            .drops
            .iter()
            .map(|(reason, count)| {
                // What is not there was zero.
                let former = |was: &crate::status::Status| was.drops.get(reason).copied();
                was.map_or(0.0, |was| {
                    difference(former(was).unwrap_or_default(), *count) / seconds
                })
            })
            .collect();
        let refused = is.drops.keys().zip(&drops);
        let refused = refused.filter(|(reason, _)| is.refusals.contains_key(*reason));
        Self {
            total: routes.iter().fold(Rates::default(), |sum, own| Rates {
                opened: sum.opened + own.opened,
                up: sum.up + own.up,
                down: sum.down + own.down,
            }),
            refused: refused.map(|(_, rate)| rate).sum(),
            flows: flows(before, &last, seconds),
            routes,
            nodes,
            failures,
            drops,
            last,
        }
    }
}

fn flows(before: Option<&Sample>, last: &Sample, seconds: f64) -> Vec<Rates> {
    let before: HashMap<&str, [u64; 2]> = before
        .into_iter()
        .flat_map(|before| &before.flows)
        .map(|own| (own.id.as_str(), [own.up_bytes, own.down_bytes]))
        .collect();
    let of = |own: &crate::dataplane::flows::open::OpenFlow| {
        // One that was not among the busiest before cannot be compared.
        let former = before.get(own.id.as_str());
        former.map_or_else(Rates::default, |[up, down]| Rates {
            opened: 0.0,
            up: difference(*up, own.up_bytes) / seconds,
            down: difference(*down, own.down_bytes) / seconds,
        })
    };
    last.flows.iter().map(of).collect()
}
