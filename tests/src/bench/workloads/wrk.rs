//! Requests over TLS on kept connections by `wrk`, a load generator that nobody here wrote.

use super::requests::METRICS;
use crate::bench::load::server::TLS;
use crate::bench::measure::Meter;
use crate::bench::scene::NAME;
use crate::bench::workload::{Outcome, Stage, Workload};
use crate::command::run as run_command;
use crate::error::{Context, Error, Result};

/// With as many connections as our own load has.
pub const WRK: Workload = Workload {
    name: "wrk",
    title: "requests over TLS on 32 kept connections, by wrk",
    metrics: METRICS,
    rounds: 3,
    quick: false,
    run,
    ..super::connections::SMALL
};

fn run(stage: &mut Stage<'_>) -> Result<Outcome> {
    let scene = stage.scene;
    let seconds = stage.scale.seconds.ceil();
    let target = stage.up()?.service(TLS);
    // wrk takes the server name from the address that it connects to.
    let hosts = scene.lab.folder().join("bench-hosts");
    let line = format!("{} {NAME}\n", target.ip());
    std::fs::write(&hosts, line).context(|| format!("writing {}", hosts.display()))?;
    let mut command = scene.client().command("sh")?;
    command.args(["-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(&hosts).arg(crate::command::find("wrk")?);
    command.args(["--threads", "1", "--connections", "32", "--latency"]);
    command.args(["--duration", &format!("{seconds}s")]);
    command.arg(format!("https://{NAME}:{}/", target.port()));
    let meter = Meter::start();
    let text = run_command(&mut command)?;
    let usage = meter.stop();
    let figures = Figures::read(&text).ok_or_else(|| Error::Unintelligible {
        what: "what wrk says".to_owned(),
        text: text.clone(),
    })?;
    let cost = usage.busy.as_secs_f64() * 1e6 / figures.requests.max(1.0);
    Ok(Outcome::new(
        &usage,
        vec![
            ("cpu", cost),
            ("rate", figures.rate),
            ("p50", figures.p50),
            ("p99", figures.p99),
            ("failed", figures.failed),
        ],
    ))
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    requests: f64,
    rate: f64,
    p50: f64,
    p99: f64,
    failed: f64,
}

impl Figures {
    fn read(text: &str) -> Option<Self> {
        let after = |mark: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(mark));
            line.map(str::trim)
        };
        let number = |word: &str| word.trim_end_matches(',').parse::<f64>().ok();
        let requests = text.lines().find(|line| line.contains(" requests in "))?;
        let failed = after("Socket errors:").unwrap_or_default();
        Some(Self {
            requests: number(requests.split_whitespace().next()?)?,
            rate: number(after("Requests/sec:")?)?,
            p50: microseconds(after("50%")?)?,
            p99: microseconds(after("99%")?)?,
            // An empty sum of floating-point numbers is minus zero.
            failed: failed
                .split_whitespace()
                .filter_map(number)
                .fold(0.0, |sum, it| sum + it),
        })
    }
}

/// `12.34us`, `1.20ms`, `1.02s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, factor) = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn reads_what_wrk_says() {
        let text = "Running 2s test @ https://www.example.org:7443/\n  1 threads and 32 connections\n\
             \x20 Latency Distribution\n     50%  812.00us\n     75%    1.20ms\n     99%    2.50ms\n\
             \x20 12345 requests in 2.00s, 1.20MB read\n\
             \x20 Socket errors: connect 0, read 3, write 0, timeout 1\nRequests/sec:   6172.50\n";
        let figures = Figures::read(text).unwrap();
        assert_eq!((figures.requests, figures.rate), (12_345.0, 6_172.5));
        assert_eq!(
            (figures.p50, figures.p99, figures.failed),
            (812.0, 2_500.0, 4.0)
        );
    }
}
