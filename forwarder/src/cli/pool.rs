//! `forwarder pool`: the pools in use.

use std::process::ExitCode;

use clap::Subcommand;
use forwarder::health::report::PoolReport;
use forwarder::health::words;
use serde_json::Value;

use super::globals::Globals;
use super::remote::{EXIT_CODES, cell, client, health_cell, show, show_json, table};

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
        let mut out = table(&[
            "POOL",
            "CLIENT ADDRESS",
            "BALANCE",
            "CHECK",
            "WORKING",
            "FLOWS",
            "NODE",
            "STATE",
            "WEIGHT",
            "HEALTH",
        ]);
        for pool in answer["pools"].as_array().into_iter().flatten() {
            let nodes: Vec<_> = pool["nodes"].as_array().into_iter().flatten().collect();
            // One line for each node; the pool's own cells stand on the first.
            let column = |cell: &dyn Fn(&Value) -> anyhow::Result<String>| {
                let cells: anyhow::Result<Vec<_>> = nodes.iter().map(|node| cell(node)).collect();
                cells.map(|cells| cells.join("\n"))
            };
            out.add_row([
                cell(&pool["name"]),
                cell(&pool["client_address"]),
                cell(&pool["balance"]),
                cell(&pool["check"]),
                working(pool, nodes.len()),
                cell(&pool["flows"]),
                column(&|node| Ok(cell(&node["name"])))?,
                column(&|node| Ok(cell(&node["state"])))?,
                column(&|node| Ok(cell(&node["weight"])))?,
                column(&health_cell)?,
            ]);
        }
        show(&format!("{out}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `2/3`, and what follows if there is none.
fn working(pool: &Value, nodes: usize) -> String {
    let Some(available) = pool["available"].as_u64() else {
        return String::from("-");
    };
    let report = PoolReport {
        name: cell(&pool["name"]),
        nodes,
        available: usize::try_from(available).unwrap_or_default(),
        refusing: pool["refusing"] == true,
    };
    words::pool(&report)
}
