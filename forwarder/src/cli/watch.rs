//! `forwarder watch`: what happens to flows, as it happens.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::bail;
use forwarder::control::client::target;
use forwarder::telemetry::flow_event::FlowEvent;
use forwarder::units;

use super::globals::Globals;
use super::output;
use super::remote::{client, clients};

const AFTER_HELP: &str = "\
Examples:
  forwarder watch
  forwarder watch --refused
  forwarder watch --client 198.51.100.4 --json | jq .reason

Exit codes:
  1  no daemon, no permission, or the daemon ended
  2  the command line is wrong";

/// Follow flows that open and close, and connections that are refused.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Watch {
    /// Only refused connections.
    #[arg(long)]
    refused: bool,
    /// Only of these clients: an address, a network (198.51.100.0/24), or an address and port.
    #[arg(long, value_parser = clients)]
    client: Option<String>,
    /// Only of this name: as sent, or as listed for flows that close; a wildcard means all names it covers.
    #[arg(long)]
    name: Option<String>,
    /// Write one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let parameters = [
            ("refused", self.refused.then_some("true")),
            ("client", self.client.as_deref()),
            ("name", self.name.as_deref()),
        ];
        let ended = client(globals).follow(&target("/v1/events", &parameters), |data| {
            let line = match serde_json::from_str::<FlowEvent>(data) {
                Ok(told) if !self.json => render(&told),
                _ => data.to_owned(),
            };
            output::written(writeln!(stdout(), "{line}")).map(|()| true)
        })?;
        if ended {
            bail!("the daemon has ended, and nothing more is told");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(told: &FlowEvent) -> String {
    let mut line = format!("{:<8} {} → ", told.event, told.client);
    line.push_str(if told.name.is_empty() {
        "(no name)"
    } else {
        &told.name
    });
    if let Some(node) = &told.node {
        line.push_str(&format!(" → {node}"));
    }
    if let Some(reason) = &told.reason {
        line.push_str(&format!(" ({reason})"));
    }
    match told.event.as_str() {
        "opened" => line.push_str(&format!(", connected in {} µs", told.duration)),
        "closed" => line.push_str(&format!(
            ", up {}, down {}, {:.1} s",
            units::bytes(told.up_bytes),
            units::bytes(told.down_bytes),
            f64::from(told.duration) / 1_000.0
        )),
        _ => {}
    }
    line
}
