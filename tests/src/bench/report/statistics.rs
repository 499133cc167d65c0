//! Medians, spreads and ratios.
//!
//! Figures of one round belong together: the control's is taken off, and ratios are formed, round by
//! round; only then come medians. So what disturbs a whole round drops out.

use std::collections::{BTreeMap, BTreeSet};

use crate::bench::record::Run;
use crate::bench::workload::{Compared, Metric, Workload};

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
    /// Less the control's, or the yardstick's, of the same round, as the metric says.
    pub less: Option<Spread>,
    /// In relation to the yardstick's, marginal where the metric says so.
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
    let (control, yardstick) = (workload.control, workload.yardstick);
    let base = match metric.compared {
        Compared::Marginal => Some(control),
        Compared::Added => Some(yardstick),
        Compared::Ratio | Compared::Alone => None,
    };
    let compared = |round: &BTreeMap<&str, f64>, name: &str| match metric.compared {
        Compared::Marginal => Some(round.get(name)? - round.get(control)?),
        Compared::Ratio => round.get(name).copied(),
        Compared::Added | Compared::Alone => None,
    };
    let over = |figure: &dyn Fn(&BTreeMap<&str, f64>) -> Option<f64>| {
        Spread::of(rounds.values().filter_map(figure))
    };
    let names: BTreeSet<&str> = rounds.values().flat_map(BTreeMap::keys).copied().collect();
    names
        .into_iter()
        .filter_map(|name| {
            let is_control = metric.compared == Compared::Marginal && name == control;
            let figure = Figure {
                plain: over(&|round| round.get(name).copied())?,
                less: over(&|round| Some(round.get(name)? - round.get(base?)?))
                    .filter(|_| base != Some(name)),
                ratio: over(&|round| Some(compared(round, name)? / compared(round, yardstick)?))
                    .filter(|_| !is_control),
            };
            Some((name.to_owned(), figure))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Run, Spread, figures};
    use crate::bench::record::{Machine, Noise, Sample};
    use crate::bench::workload::{self, Scale};

    #[test]
    fn medians_of_odd_and_even_counts() {
        let spread = Spread::of([3.0, 1.0, 2.0, f64::NAN]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    /// In the second round everything costs twice as much, which ratios do not show.
    #[test]
    fn what_disturbs_a_whole_round_drops_out_of_ratios() {
        let mut samples = Vec::new();
        for (round, factor) in [(0, 1.0), (1, 2.0)] {
            for (contender, cpu) in [("direct", 100.0), ("routing", 110.0), ("nginx", 160.0)] {
                samples.push(Sample {
                    workload: "connections".to_owned(),
                    contender: contender.to_owned(),
                    round,
                    noise: 0.0,
                    values: [("cpu".to_owned(), cpu * factor)].into(),
                    note: None,
                });
            }
        }
        let run = Run {
            began: 0,
            took: 0.0,
            machine: Machine::this(),
            versions: std::collections::BTreeMap::new(),
            scale: Scale {
                seconds: 1.0,
                flows: 1,
                names: 1,
            },
            rounds: 2,
            noise: Noise::default(),
            samples,
            failures: Vec::new(),
        };
        let workload = workload::named("connections").unwrap();
        let figures = figures(&run, workload, &workload.metrics[0]);
        let nginx = figures["nginx"];
        assert_eq!(nginx.plain.median, 240.0);
        assert_eq!(
            (nginx.less.unwrap().least, nginx.less.unwrap().most),
            (60.0, 120.0)
        );
        let ratio = nginx.ratio.unwrap();
        assert_eq!((ratio.least, ratio.most), (6.0, 6.0));
        assert_eq!(
            (figures["direct"].less, figures["direct"].ratio),
            (None, None)
        );
    }
}
