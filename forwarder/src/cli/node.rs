//! `forwarder node`: which nodes take new flows, and how many.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use forwarder::config::edit::WEIGHT_MAX;
use forwarder::control::client::{encoded, target};
use forwarder::units;
use serde_json::{Value, json};

use super::globals::Globals;
use super::remote::{
    EXIT_CODES, cell, client, explained, health_cell, show, show_edit, show_json, table,
    tunnel_cell,
};

/// How often it is asked how many flows are left.
const POLL: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
NODE is a name, an address, or an address and port. States and weights go on
over reloads and restarts of the daemon until they are set anew; a weight also ends when the file says another one.

Examples:
  forwarder node ls
  forwarder node drain thinkpad           # no new flows; open ones go on
  forwarder node drain thinkpad --wait    # and return when the last one has ended
  forwarder node maint thinkpad --reset   # and end the open ones
  forwarder node ready thinkpad
  forwarder node weight 10.0.0.6:443 3 --persist";

/// Show nodes, drain them, weigh them.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the nodes in use.
    Ls {
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// No new flows; open ones go on.
    Drain {
        /// The node.
        node: String,
        /// Return when its last flow has ended, or after this time with exit code 1.
        #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1h", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// New flows again.
    Ready {
        /// The node.
        node: String,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// As drain, for a node that will be switched off; with --reset its flows end.
    Maint {
        /// The node.
        node: String,
        /// End its flows: both ends are reset at their next packet.
        #[arg(long)]
        reset: bool,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Another share of new flows.
    Weight {
        /// The node.
        node: String,
        /// 1 to 1000, or 0 for none.
        #[arg(value_parser = clap::value_parser!(u16).range(0..=i64::from(WEIGHT_MAX)))]
        weight: u16,
        /// Only in this pool.
        #[arg(long)]
        pool: Option<String>,
        /// Write it to the configuration file too.
        #[arg(long)]
        persist: bool,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Node {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Ls { json } => list(globals, json)?,
            Verb::Drain { node, wait, json } => {
                state(globals, &node, "drain", false, json)?;
                if let Some(limit) = wait {
                    return drained(globals, &node, limit);
                }
            }
            Verb::Ready { node, json } => state(globals, &node, "ready", false, json)?,
            Verb::Maint { node, reset, json } => state(globals, &node, "maint", reset, json)?,
            Verb::Weight {
                node,
                weight,
                pool,
                persist,
                json,
            } => {
                let path = format!("/v1/nodes/{}/weight", encoded(&node));
                let target = target(&path, &[("persist", persist.then_some("true"))]);
                let body = json!({ "weight": weight, "pool": pool });
                let answer = explained(client(globals).ask("POST", &target, Some(&body)))?;
                show_edit(&answer, json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(globals: &Globals, json: bool) -> anyhow::Result<()> {
    let answer: Value = client(globals).ask("GET", "/v1/nodes", None)?;
    if json {
        return show_json(&answer);
    }
    let mut out = table(&[
        "NODE", "ADDRESS", "POOL", "STATE", "HEALTH", "WEIGHT", "TUNNEL", "FLOWS", "ACCEPTED",
        "TIMEOUTS", "RESETS",
    ]);
    for node in answer["nodes"].as_array().into_iter().flatten() {
        out.add_row([
            cell(&node["name"]),
            cell(&node["address"]),
            cell(&node["pool"]),
            cell(&node["state"]),
            health_cell(node)?,
            cell(&node["weight"]),
            tunnel_cell(node)?,
            cell(&node["flows"]),
            cell(&node["accepted"]),
            cell(&node["syn_timeouts"]),
            cell(&node["syn_resets"]),
        ]);
    }
    show(&format!("{out}\n"))
}

/// Waits until a node has no flows.
fn drained(globals: &Globals, node: &str, limit: Duration) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + limit;
    let mut told = None;
    loop {
        let answer: Value = client(globals).ask("GET", "/v1/nodes", None)?;
        let flows = flows_of(&answer, node);
        if told != Some(flows) {
            eprintln!("{} left", units::count(flows, "flow"));
            told = Some(flows);
        }
        if flows == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            eprintln!("not drained in time; it stays drained, and its flows go on");
            return Ok(ExitCode::FAILURE);
        }
        std::thread::sleep(POLL);
    }
}

/// Open flows of a node in all its pools, by its name, its address, or its address and port.
fn flows_of(answer: &Value, node: &str) -> u64 {
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    let meant = nodes.filter(|own| {
        let address = own["address"].as_str().unwrap_or_default();
        let ip = address.parse::<SocketAddr>().map(|at| at.ip().to_string());
        own["name"] == node || address == node || ip.is_ok_and(|ip| ip == node)
    });
    meant.filter_map(|own| own["flows"].as_u64()).sum()
}

fn state(
    globals: &Globals,
    node: &str,
    state: &str,
    reset: bool,
    json: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/nodes/{}/state", encoded(node));
    let target = target(&path, &[("reset", reset.then_some("true"))]);
    let body = json!({ "state": state });
    let answer = explained(client(globals).ask("POST", &target, Some(&body)))?;
    show_edit(&answer, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_a_node_are_those_of_all_its_pools() {
        let answer = json!({"nodes": [
            {"name": "thinkpad", "address": "10.0.0.6:443", "flows": 3},
            {"name": "thinkpad", "address": "10.0.0.6:8443", "flows": 4},
            {"name": "10.0.0.2:443", "address": "10.0.0.2:443", "flows": 9},
        ]});
        for (node, flows) in [
            ("thinkpad", 7),
            ("10.0.0.6", 7),
            ("10.0.0.6:8443", 4),
            ("10.0.0.2:443", 9),
            ("10.0.0.7", 0),
        ] {
            assert_eq!(flows_of(&answer, node), flows, "{node}");
        }
    }
}
