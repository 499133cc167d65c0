//! Tables of a run's figures, in Markdown, which a terminal shows well enough.

use crate::bench::contender;
use crate::bench::record::Run;
use crate::bench::workload::{self, Compared, Metric, Workload};

use super::statistics::{Figure, Spread, figures};

/// Every workload of a run with a table of its own.
#[must_use]
pub fn all(run: &Run) -> String {
    let measured = workload::ALL.iter().filter(|workload| {
        let mut all = run.samples.iter().map(|it| &it.workload);
        all.any(|name| name == workload.name)
    });
    let mut text: Vec<String> = measured.map(|workload| one(run, workload)).collect();
    text.extend(failures(run));
    text.join("\n")
}

/// A workload's table: a row for each contender, medians with the least and the greatest in brackets.
#[must_use]
pub fn one(run: &Run, workload: &Workload) -> String {
    let columns: Vec<_> = workload
        .metrics
        .iter()
        .map(|metric| (metric, figures(run, workload, metric)))
        .collect();
    let mut head = vec!["contender".to_owned()];
    for (metric, _) in &columns {
        head.push(title(metric));
        head.extend(comparisons(workload, metric));
    }
    let mut rows = Vec::new();
    for contender in contender::ALL {
        let own: Vec<Option<Figure>> = columns
            .iter()
            .map(|(_, figures)| figures.get(contender.name).copied())
            .collect();
        if own.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![contender.name.to_owned()];
        for ((metric, _), figure) in columns.iter().zip(own) {
            row.push(cell(figure.map(|it| it.plain)));
            let (less, ratio) = (
                figure.and_then(|it| it.less),
                figure.and_then(|it| it.ratio),
            );
            match metric.compared {
                Compared::Marginal => row.extend([cell(less), cell(ratio)]),
                Compared::Added => row.push(cell(less)),
                Compared::Ratio => row.push(cell(ratio)),
                Compared::Alone => {}
            }
        }
        rows.push(row);
    }
    format!(
        "### {}: {}\n\n{}",
        workload.name,
        workload.title,
        lines(&head, &rows)
    )
}

fn title(metric: &Metric) -> String {
    if metric.unit.is_empty() {
        metric.title.to_owned()
    } else {
        format!("{}, {}", metric.title, metric.unit)
    }
}

/// The heads of the columns that compare a metric.
fn comparisons(workload: &Workload, metric: &Metric) -> Vec<String> {
    let yardstick = workload.yardstick;
    match metric.compared {
        Compared::Marginal => vec!["marginal".to_owned(), format!("× {yardstick}")],
        Compared::Added => vec![format!("over {yardstick}")],
        Compared::Ratio => vec![format!("× {yardstick}")],
        Compared::Alone => Vec::new(),
    }
}

fn failures(run: &Run) -> Option<String> {
    if run.failures.is_empty() {
        return None;
    }
    let mut seen = std::collections::BTreeMap::new();
    for failure in &run.failures {
        // What was being done, and the last word about it.
        let mut lines = failure
            .reason
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let last = lines.next_back().unwrap_or_default();
        let reason = format!("{first} {last}").trim_end().to_owned();
        *seen
            .entry((&failure.contender, &failure.workload, reason))
            .or_insert(0) += 1;
    }
    let mut text = "### Not measured\n\n".to_owned();
    for ((contender, workload, reason), count) in seen {
        text.push_str(&format!("- {contender}, {workload} ({count}×): {reason}\n"));
    }
    Some(text)
}

fn cell(spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "–".to_owned();
    };
    if spread.least == spread.most {
        return number(spread.median);
    }
    format!(
        "{} ({}–{})",
        number(spread.median),
        number(spread.least),
        number(spread.most)
    )
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

fn lines(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain([&head[column]]);
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(head) + &format!("|-{}-|\n", rule.join("-|-"));
    text.extend(rows.iter().map(|row| line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.123_4, 1.005, 12.34, 123.4, 12_345.6].map(number);
        assert_eq!(shown, ["0", "0.12", "1.00", "12.3", "123", "12346"]);
    }
}
