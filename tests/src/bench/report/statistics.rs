//! Medians, spreads and ratios.
//!
//! Figures of one round belong together: the control's is taken off, and ratios are formed, round by
//! round; only then come medians. So what disturbs a whole round drops out.

use std::collections::BTreeMap;

use crate::bench::record::Run;
use crate::bench::workload::{Metric, Workload};

/// A median, and the least and the greatest of what it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    /// Of some figures; none of nothing.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|it| it.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// One contender's figures for one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// As measured.
    pub plain: Spread,
    /// Less the control's of the same round, where that makes sense.
    pub marginal: Option<Spread>,
    /// That (or the plain figure, where there is no marginal one) in relation to the yardstick's.
    pub ratio: Option<Spread>,
}

/// The figures of all contenders that a workload has measured, by their names.
#[must_use]
pub fn figures(run: &Run, workload: &Workload, metric: &Metric) -> BTreeMap<String, Figure> {
    let mut rounds: BTreeMap<usize, BTreeMap<&str, f64>> = BTreeMap::new();
    for sample in run.samples.iter().filter(|it| it.workload == workload.name) {
        if let Some(value) = sample.values.get(metric.name) {
            let round = rounds.entry(sample.round).or_default();
            round.insert(&sample.contender, *value);
        }
    }
    let names = rounds.values().flat_map(BTreeMap::keys).copied();
    let names: std::collections::BTreeSet<&str> = names.collect();
    let worth = |round: &BTreeMap<&str, f64>, name: &str| {
        let own = *round.get(name)?;
        if !metric.marginal {
            return Some(own);
        }
        Some(own - round.get(workload.control)?)
    };
    let mut figures = BTreeMap::new();
    for name in names {
        let plain = Spread::of(rounds.values().filter_map(|round| round.get(name).copied()));
        let worths = Spread::of(rounds.values().filter_map(|round| worth(round, name)));
        let ratios = rounds.values().filter_map(|round| {
            let yardstick = worth(round, workload.yardstick)?;
            Some(worth(round, name)? / yardstick)
        });
        let is_control = name == workload.control;
        if let Some(plain) = plain {
            let figure = Figure {
                plain,
                marginal: worths.filter(|_| metric.marginal && !is_control),
                ratio: Spread::of(ratios).filter(|_| !(metric.marginal && is_control)),
            };
            figures.insert(name.to_owned(), figure);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn medians_of_odd_and_even_counts() {
        let spread = Spread::of([3.0, 1.0, 2.0, f64::NAN]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }
}
