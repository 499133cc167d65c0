//! `forwarder status`: what is attached, and the counters.

use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use comfy_table::{Table, presets};
use forwarder::health::report::{NodeReport, State};
use forwarder::status::{self, Status, Traffic};

use super::Globals;

const AFTER_HELP: &str = "\
Reads the pinned maps, so it works whether the daemon runs or not.

Examples:
  forwarder status
  forwarder status --json | jq '.nodes[] | {name, accepted, syn_timeouts}'

Exit codes:
  0  shown
  1  no forwarder is loaded, or its maps cannot be read
  2  the command line is wrong";

/// Show what is attached, flows, listeners, routes, nodes and refusals.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ShowStatus {
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let status = status::read(&globals.place(None))?;
        let text = if self.json {
            let mut json = serde_json::to_string_pretty(&status)?;
            json.push('\n');
            json
        } else {
            render(&status)
        };
        stdout()
            .write_all(text.as_bytes())
            .context("cannot write the status")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How long ago that was, seconds since 1970.
fn since(unix: u64) -> String {
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(unix));
    let ago = Duration::from_secs(ago.unwrap_or_default().as_secs());
    format!(" for {}", humantime::format_duration(ago))
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let _ = match &status.daemon {
        Some(pid) => writeln!(out, "daemon     process {pid}"),
        None => writeln!(out, "daemon     not running; programs serve on their own"),
    };
    let _ = writeln!(
        out,
        "flows      {} of {}",
        status.flows.open, status.flows.max
    );
    for own in &status.attachments {
        let hook = format!("{:?}", own.hook).to_lowercase();
        let _ = writeln!(out, "{:<10} {} ({hook})", own.side.word(), own.interface);
    }
    for interface in &status.missing {
        let _ = writeln!(out, "{:<10} {interface}: no such interface", "MISSING");
    }
    for own in &status.armour {
        let word = match (&own.refusal, own.worn) {
            (Some(why), _) => format!("refused: {why}"),
            (None, true) => String::from("on"),
            (None, false) => String::from("off"),
        };
        let since = own.since.map_or_else(String::new, since);
        let _ = writeln!(
            out,
            "armour     {} {word}{since}; put on {} times",
            own.interface, own.attached
        );
    }

    let mut listeners = table(&[
        "LISTENER",
        "ADDRESSES",
        "SYNS",
        "HELLOS",
        "OPENED",
        "REFUSED",
    ]);
    for own in &status.listeners {
        listeners.add_row([
            own.name.clone(),
            own.addresses.join("\n"),
            own.syns.to_string(),
            own.hellos.to_string(),
            own.opened.to_string(),
            own.refused.to_string(),
        ]);
    }
    let mut routes = table(&[
        "ROUTE", "POOL", "OPENED", "CLOSED", "RESET", "EXPIRED", "FAILED", "UP", "DOWN",
    ]);
    for own in &status.routes {
        let mut row = vec![own.first_name.clone(), own.pool.clone()];
        row.extend(traffic(&own.traffic));
        routes.add_row(row);
    }
    let mut nodes = table(&[
        "NODE", "ADDRESS", "TUNNEL", "HEALTH", "ACCEPTED", "TIMEOUTS", "RESETS", "CONNECT", "UP",
        "DOWN",
    ]);
    for own in &status.nodes {
        let connect = own
            .connect_us
            .map(|us| format!("{:.1} ms", us as f64 / 1_000.0));
        nodes.add_row([
            own.name.clone(),
            own.address.clone(),
            String::from(if own.reachable { "yes" } else { "NONE" }),
            health(&own.health),
            own.accepted.to_string(),
            own.syn_timeouts.to_string(),
            own.syn_resets.to_string(),
            connect.unwrap_or_default(),
            bytes(own.traffic.up_bytes),
            bytes(own.traffic.down_bytes),
        ]);
    }
    let mut drops = table(&["NOT FORWARDED", "COUNT"]);
    for (reason, count) in &status.drops {
        drops.add_row([(*reason).to_owned(), count.to_string()]);
    }
    for table in [listeners, routes, nodes, drops] {
        if !table.is_empty() {
            let _ = write!(out, "\n{table}\n");
        }
    }
    out
}

/// `up 3m, 1.2 ms`, or why not; a line for each pool of the node.
fn health(pools: &[NodeReport]) -> String {
    let now = SystemTime::now();
    let lines = pools.iter().map(|own| {
        let since = now.duration_since(own.since).unwrap_or_default();
        let since = humantime::format_duration(Duration::from_secs(since.as_secs()));
        let last = own.last.as_ref();
        let mut line = match (own.is_down(), last.and_then(|last| last.error.as_ref())) {
            (false, _) => own.state.word().to_owned(),
            (true, None) => format!("{} {since}", own.state.word()),
            (true, Some(error)) => format!("{} {since}: {error}", own.state.word()),
        };
        if own.state == State::Up {
            let _ = write!(line, " {since}");
            if let Some(last) = last {
                let _ = write!(line, ", {:.1} ms", last.took.as_secs_f64() * 1e3);
            }
        }
        if own.share < 100 && !own.is_down() {
            let _ = write!(line, ", {} %", own.share);
        }
        if let Some(expires) = own.certificate_expires {
            let days = expires
                .duration_since(now)
                .map(|left| left.as_secs() / 86_400);
            let _ = match days {
                Ok(days) => write!(line, ", certificate {days} d"),
                Err(_) => write!(line, ", certificate EXPIRED"),
            };
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn traffic(traffic: &Traffic) -> [String; 7] {
    [
        traffic.opened.to_string(),
        traffic.closed.to_string(),
        traffic.reset.to_string(),
        traffic.expired.to_string(),
        traffic.failed.to_string(),
        bytes(traffic.up_bytes),
        bytes(traffic.down_bytes),
    ]
}

/// `1536` → `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1_024.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
