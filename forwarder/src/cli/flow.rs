//! `forwarder flow`: open flows, and their end.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use forwarder::control::client::target;
use forwarder::units;
use serde_json::Value;

use super::globals::Globals;
use super::remote::{EXIT_CODES, cell, client, clients, show, show_json, table};

const EXAMPLES: &str = "\
Examples:
  forwarder flow ls --name www.example.org
  forwarder flow kill --client 198.51.100.4
  forwarder flow kill --node thinkpad";

/// Show open flows and end some.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Flow {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show open flows, the oldest first.
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// End flows: both ends are reset at their next packet.
    Kill {
        #[command(flatten)]
        filter: Filter,
        /// Without a filter: really every flow.
        #[arg(long)]
        all: bool,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Filter {
    /// Of these clients: an address, a network (198.51.100.0/24), or an address and port.
    #[arg(long, value_parser = clients)]
    client: Option<String>,
    /// Of this name, as it is listed.
    #[arg(long)]
    name: Option<String>,
    /// Of this node: its name, address, or address and port.
    #[arg(long)]
    node: Option<String>,
}

impl Filter {
    fn target(&self, all: bool) -> String {
        let parameters = [
            ("client", self.client.as_deref()),
            ("name", self.name.as_deref()),
            ("node", self.node.as_deref()),
            ("all", all.then_some("true")),
        ];
        target("/v1/flows", &parameters)
    }
}

impl Flow {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let client = client(globals);
        match self.verb {
            Verb::Ls { filter, json } => {
                let answer: Value = client.ask("GET", &filter.target(false), None)?;
                if json {
                    show_json(&answer)?;
                } else {
                    show(&render(&answer))?;
                }
            }
            Verb::Kill { filter, all, json } => {
                let answer: Value = client.ask("DELETE", &filter.target(all), None)?;
                if json {
                    show_json(&answer)?;
                } else {
                    let ended = answer["ended"].as_u64().unwrap_or_default();
                    show(&format!("{} ended\n", units::count(ended, "flow")))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(answer: &Value) -> String {
    let header = [
        "CLIENT", "NAME", "NODE", "STATE", "AGE", "SILENT", "UP", "DOWN",
    ];
    let mut out = table(&header);
    for flow in answer["flows"].as_array().into_iter().flatten() {
        let seconds = |key: &str| format!("{} s", flow[key].as_u64().unwrap_or_default() / 1_000);
        let bytes = |key: &str| units::bytes(flow[key].as_u64().unwrap_or_default());
        out.add_row([
            cell(&flow["client"]),
            cell(&flow["name"]),
            cell(&flow["node"]),
            cell(&flow["state"]),
            seconds("age_ms"),
            seconds("silent_ms"),
            bytes("up_bytes"),
            bytes("down_bytes"),
        ]);
    }
    if out.is_empty() {
        return String::from("no flows\n");
    }
    format!("{out}\n")
}
