//! Lets a lab be busy for a while before a real Prometheus, and writes what every panel of every dashboard has to
//! show: the data of `cargo xtask previews`.
//!
//! The file is one JSON object: `start`, `end` (seconds since 1970), `window` (what rates look back over), and
//! `dashboards`: by their uid and then by the panel's number and the query's letter, the series with `labels` and
//! `points`, pairs of time and value.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use forwarder_tests::busy::Busy;
use forwarder_tests::dashboard::{self, Dashboard, Values, interpolate};
use forwarder_tests::error::{Context, Result};
use forwarder_tests::server::prometheus::{Prometheus, Series, now};
use serde_json::{Map, Value, json};

/// What rates look back over: a few scrapes.
const WINDOW: &str = "10s";
/// How many points a series of a graph has, about.
const POINTS: f64 = 240.0;

/// Runs a busy lab and writes what the dashboards show of it.
#[derive(Parser)]
struct Arguments {
    /// How long the lab is busy.
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// Where the data goes.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let busy = Busy::start()?;
    let prometheus = Prometheus::start(busy.lab)?;
    let start = now();
    eprintln!("the lab is busy for {} s", arguments.seconds);
    let tally = busy.run(Duration::from_secs(arguments.seconds))?;
    let end = now();
    eprintln!("{tally:?}");
    let mut dashboards = Map::new();
    for dashboard in dashboard::all()? {
        let panels = panels(&prometheus, &dashboard, start, end)?;
        dashboards.insert(dashboard.name, panels);
    }
    let all = json!({ "start": start, "end": end, "window": WINDOW, "dashboards": dashboards });
    std::fs::write(&arguments.output, all.to_string())
        .context(|| format!("writing {}", arguments.output.display()))
}

/// The series of every query of a dashboard.
fn panels(
    prometheus: &Prometheus<'_>,
    dashboard: &Dashboard,
    start: f64,
    end: f64,
) -> Result<Value> {
    let mut values = Values::new();
    for variable in dashboard.variables()? {
        let selector = interpolate(variable.selector, &values, WINDOW, WINDOW);
        let found = prometheus.label_values(&selector, variable.label)?;
        values.insert(variable.name.to_owned(), found);
    }
    let range = format!("{:.0}s", end - start);
    let step = ((end - start) / POINTS).max(1.0);
    let mut panels = Map::new();
    for target in dashboard.targets() {
        let query = interpolate(target.expression, &values, WINDOW, &range);
        let series = if target.instant {
            prometheus.query(&query)?
        } else {
            prometheus.query_range(&query, start, end, step)?
        };
        let panel = panels
            .entry(target.panel_id.to_string())
            .or_insert_with(|| json!({}));
        panel[target.letter] = series.iter().map(shown).collect();
    }
    Ok(Value::Object(panels))
}

/// A series as JSON; what is no number becomes `null`.
fn shown(series: &Series) -> Value {
    json!({ "labels": series.labels, "points": series.points })
}
