//! `forwarder pool`: the pools in use.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::Globals;
use super::remote::{EXIT_CODES, cell, client, show, show_json, table};

/// Show pools and their nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Pool {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the pools in use.
    Ls {
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Pool {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Verb::Ls { json } = self.verb;
        let answer: Value = client(globals).ask("GET", "/v1/pools", None)?;
        if json {
            show_json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = table(&["POOL", "CLIENT ADDRESS", "BALANCE", "FLOWS", "NODES"]);
        for pool in answer["pools"].as_array().into_iter().flatten() {
            let nodes = pool["nodes"].as_array().into_iter().flatten();
            let nodes: Vec<_> = nodes.map(describe).collect();
            let mut row: Vec<_> = ["name", "client_address", "balance", "flows"]
                .iter()
                .map(|key| cell(&pool[*key]))
                .collect();
            row.push(nodes.join("\n"));
            out.add_row(row);
        }
        show(&format!("{out}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(node: &Value) -> String {
    let (name, state) = (cell(&node["name"]), cell(&node["state"]));
    format!("{name} ({state}, weight {})", node["weight"])
}
