//! `forwarder route`: which names lead where, and other ones.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use forwarder::control::client::target;
use serde_json::{Value, json};

use super::globals::Globals;
use super::remote::{EXIT_CODES, client, explained, show, show_edit, show_json, table_of};

const EXAMPLES: &str = "\
Examples:
  forwarder route ls
  forwarder route add www.example.org '*.apps.example.org' --pool k3s
  forwarder route rm www.example.org --reset
  forwarder route add shop.example.org --pool k3s --persist";

/// Show, add and remove routes while flows are open.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Route {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the routes in use.
    Ls {
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let names lead to a pool, until the next reload.
    Add {
        /// Names, exact or with a leading `*.`.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The pool they lead to; may be left out where there is only one.
        #[arg(long)]
        pool: Option<String>,
        /// Only on this listener; may be given several times.
        #[arg(long = "listener", value_name = "LISTENER")]
        listeners: Vec<String>,
        /// Write it to the configuration file too.
        #[arg(long)]
        persist: bool,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let names lead nowhere, until the next reload; open flows go on.
    Rm {
        /// Names as listed.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// End their flows.
        #[arg(long)]
        reset: bool,
        /// Write it to the configuration file too.
        #[arg(long)]
        persist: bool,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The one pool there is.
fn only_pool(answer: &Value) -> anyhow::Result<String> {
    let pools = answer["pools"].as_array().into_iter().flatten();
    let names: Vec<_> = pools.filter_map(|own| own["name"].as_str()).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => bail!("there is no pool that the names could lead to"),
        names => bail!("which pool? --pool is one of {}", names.join(", ")),
    }
}

impl Route {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let client = client(globals);
        match self.verb {
            Verb::Ls { json } => {
                let answer: Value = client.ask("GET", "/v1/routes", None)?;
                if json {
                    show_json(&answer)?;
                } else {
                    let columns = [
                        ("NAMES", "names"),
                        ("POOL", "pool"),
                        ("LISTENERS", "listeners"),
                        ("OPENED", "opened"),
                    ];
                    show(&table_of(&answer, "routes", &columns))?;
                }
            }
            Verb::Add {
                names,
                pool,
                listeners,
                persist,
                json,
            } => {
                let pool = match pool {
                    Some(pool) => pool,
                    None => only_pool(&client.ask("GET", "/v1/pools", None)?)?,
                };
                let listeners = (!listeners.is_empty()).then_some(listeners);
                let body = json!({ "names": names, "pool": pool, "listeners": listeners });
                let target = target("/v1/routes", &[("persist", persist.then_some("true"))]);
                let answer = explained(client.ask("PUT", &target, Some(&body)))?;
                show_edit(&answer, json)?;
            }
            Verb::Rm {
                names,
                reset,
                persist,
                json,
            } => {
                let parameters = [
                    ("persist", persist.then_some("true")),
                    ("reset", reset.then_some("true")),
                ];
                let target = target("/v1/routes", &parameters);
                let body = json!({ "names": names });
                let answer = explained(client.ask("DELETE", &target, Some(&body)))?;
                show_edit(&answer, json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_pool_need_not_be_named() {
        let pools = |names: &[&str]| {
            let pools: Vec<_> = names.iter().map(|name| json!({ "name": name })).collect();
            only_pool(&json!({ "pools": pools }))
        };
        assert_eq!(pools(&["k3s"]).unwrap(), "k3s");
        let said = pools(&["a", "b"]).unwrap_err().to_string();
        assert!(said.contains("a, b"), "{said}");
        assert!(pools(&[]).is_err());
    }
}
