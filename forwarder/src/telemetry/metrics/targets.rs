//! A bound on series: with very many targets (listener, route, pool, node) their labels are left out one by one.

use std::collections::BTreeMap;

use super::snapshot::{PathLabels, PathSample};

/// Labels in the order in which they are left out, as indices of [`PathLabels`]: of routes there are most, and nodes
/// have metrics of their own.
const LEFT_OUT: [usize; 3] = [1, 3, 2];

/// Targets as they are shown.
#[derive(Debug)]
pub struct Targets {
    /// By listener, route, pool and node, of which some may be empty.
    pub shown: BTreeMap<PathLabels, PathSample>,
    /// How many there are.
    pub count: usize,
    /// Labels that are not empty.
    pub labels: usize,
}

/// Adds up targets until there are at most `max`, or one for each listener. It depends on the configuration alone and
/// not on traffic, so that no series comes and goes.
pub fn limit(mut shown: BTreeMap<PathLabels, PathSample>, max: u32) -> Targets {
    let count = shown.len();
    let mut labels = 4;
    for label in LEFT_OUT {
        if shown.len() <= max as usize {
            break;
        }
        labels -= 1;
        let mut merged: BTreeMap<PathLabels, PathSample> = BTreeMap::new();
        for (mut key, own) in shown {
            key[label].clear();
            merged
                .entry(key)
                .and_modify(|sample| sample.add(&own))
                .or_insert(own);
        }
        shown = merged;
    }
    Targets {
        shown,
        count,
        labels,
    }
}

#[cfg(test)]
mod tests {
    use forwarder_common::abi::PathStats;

    use super::*;
    use crate::dataplane::flows::expired::Counts;

    /// Two listeners, forty routes to four pools of three nodes, each target with one connection.
    fn targets() -> BTreeMap<PathLabels, PathSample> {
        let mut all = BTreeMap::new();
        for listener in ["a", "b"] {
            for route in 0..40 {
                for node in 0..3 {
                    // SAFETY: integers only: zeros are counters.
                    let mut stats: PathStats = unsafe { std::mem::zeroed() };
                    stats.opened = 1;
                    let sample = PathSample {
                        stats,
                        swept: Counts::default(),
                        flows: [0, 0, 1],
                    };
                    let pool = route % 4;
                    let labels = [
                        listener.to_owned(),
                        format!("{route}.example.org"),
                        format!("p{pool}"),
                        format!("n{pool}-{node}"),
                    ];
                    all.insert(labels, sample);
                }
            }
        }
        all
    }

    #[test]
    fn series_are_bounded_and_nothing_is_lost() {
        for (max, shown, labels) in [
            (1_000, 240, 4),
            (240, 240, 4),
            (239, 24, 3),
            (23, 8, 2),
            (7, 2, 1),
            (1, 2, 1),
        ] {
            let limited = limit(targets(), max);
            assert_eq!(limited.count, 240);
            assert_eq!(
                (limited.shown.len(), limited.labels),
                (shown, labels),
                "{max}"
            );
            let samples = limited.shown.values();
            let sum = samples.fold([0, 0], |[opened, flows], own| {
                [opened + own.stats.opened, flows + own.flows[2]]
            });
            assert_eq!(sum, [240, 240], "{max}");
        }
    }
}
