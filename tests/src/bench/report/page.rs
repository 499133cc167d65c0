//! `docs/performance.md`: the part of it that a run writes, between two marks, and the charts beside it.
//! What stands outside the marks is written by people and stays.

use std::path::Path;

use crate::bench::contender;
use crate::bench::record::Run;
use crate::bench::workload::{self, Compared, Metric, Workload};
use crate::error::{Context, Error, Result};

use super::chart::{Bar, bars};
use super::statistics::figures;
use super::table;

const BEGIN: &str = "<!-- figures: written by `cargo xtask bench`, do not edit -->";
const END: &str = "<!-- end of figures -->";

/// A chart of a workload's metric; the figure is the marginal one where there is one.
const CHARTS: &[(&str, &str)] = &[
    ("connections", "cpu"),
    ("tls-full", "cpu"),
    ("requests", "cpu"),
    ("latency", "p50"),
    ("latency", "p99"),
    ("download-merged", "cpu"),
    ("download-merged", "rate"),
    ("idle", "memory"),
    ("syn-flood", "rate"),
    ("syn-absorbed", "cpu"),
];

/// Writes the figures of a run into the page, and its charts into `<page's folder>/performance/`.
pub fn write(run: &Run, page: &Path, results: &str) -> Result<()> {
    let old = std::fs::read_to_string(page).context(|| format!("reading {}", page.display()))?;
    let between = old.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let Some((before, after)) = between else {
        return Err(Error::Unintelligible {
            what: format!("{} has no place for figures", page.display()),
            text: format!("it needs the lines {BEGIN} and {END}"),
        });
    };
    let charts = page.with_extension("");
    std::fs::create_dir_all(&charts).context(|| format!("making {}", charts.display()))?;
    let mut pictures = String::new();
    for (workload, metric) in CHARTS {
        if let Some((file, title, text)) = chart(run, workload, metric)? {
            let path = charts.join(&file);
            std::fs::write(&path, text).context(|| format!("writing {}", path.display()))?;
            pictures.push_str(&format!("![{title}](performance/{file})\n\n"));
        }
    }
    let text = format!(
        "{before}{BEGIN}\n\n{}\n{pictures}{}\n{END}{after}",
        preface(run, results),
        table::all(run)
    );
    std::fs::write(page, text).context(|| format!("writing {}", page.display()))
}

fn chart(run: &Run, workload: &str, metric: &str) -> Result<Option<(String, String, String)>> {
    let found = workload::named(workload).and_then(|workload| {
        let metric = workload.metrics.iter().find(|it| it.name == metric)?;
        Some((workload, metric))
    });
    let Some((workload, metric)) = found else {
        return Ok(None);
    };
    let rows = rows(run, workload, metric);
    if rows.is_empty() {
        return Ok(None);
    }
    let marginal = if metric.compared == Compared::Marginal {
        "marginal "
    } else {
        ""
    };
    let title = format!("{}: {marginal}{}", workload.title, metric.title);
    let file = format!("{}-{}.svg", workload.name, metric.name);
    let text = bars(&title, metric.unit, &rows)?;
    Ok(Some((file, title, text)))
}

fn rows(run: &Run, workload: &Workload, metric: &Metric) -> Vec<Bar> {
    let figures = figures(run, workload, metric);
    let bar = |contender: &contender::Contender| {
        let figure = figures.get(contender.name)?;
        let spread = if metric.compared == Compared::Marginal {
            figure.less?
        } else {
            figure.plain
        };
        Some(Bar {
            label: contender.name.to_owned(),
            spread,
            ours: contender.is_forwarder(),
        })
    };
    contender::ALL.iter().filter_map(bar).collect()
}

/// On what, when, and how quietly.
fn preface(run: &Run, results: &str) -> String {
    let machine = &run.machine;
    let versions: Vec<String> = run.versions.values().cloned().collect();
    format!(
        "Run of {date} ({results}): {rounds} rounds in {minutes:.0} minutes, {seconds} s a measurement, on \
         {processors} × {processor}, {memory:.0} GB, Linux {kernel}. {versions}.\n\n\
         Noise: a measurement during which other programs and the hypervisor took more than {limit:.1} % of \
         the machine was made again ({repeated} times); {above} of {all} stayed above. Half of the \
         measurements lost less than {typical:.2} %. {waited:.0} s were spent waiting for silence.\n\n\
         A cell shows the median over the rounds, with the least and the greatest in brackets. *Marginal* is \
         less what the control took in the same round; ratios are formed round by round.\n",
        date = date(run.began),
        rounds = run.rounds,
        minutes = run.took / 60.0,
        seconds = run.scale.seconds,
        processors = machine.processors,
        processor = machine.processor,
        memory = machine.memory as f64 / 1e9,
        kernel = machine.kernel,
        versions = versions.join("; "),
        limit = run.noise.limit * 100.0,
        repeated = run.noise.repeated,
        above = run.noise.above,
        all = run.samples.len(),
        typical = super::statistics::Spread::of(run.samples.iter().map(|it| it.noise))
            .map_or(0.0, |spread| spread.median * 100.0),
        waited = run.noise.waited,
    )
}

/// Year, month and day of a time in seconds since 1970, UTC.
#[must_use]
pub fn date(seconds: u64) -> String {
    // Days to a civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_before_and_after_leap_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_740_787_200), "2025-03-01");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }
}
