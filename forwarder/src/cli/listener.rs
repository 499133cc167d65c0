//! `forwarder listener`: where clients connect.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::globals::Globals;
use super::remote::{EXIT_CODES, client, show, show_json, table_of};

/// Show listeners and the addresses they claim.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Listener {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the listeners in use.
    Ls {
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Listener {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let Verb::Ls { json } = self.verb;
        let answer: Value = client(globals).ask("GET", "/v1/listeners", None)?;
        if json {
            show_json(&answer)?;
        } else {
            let columns = [
                ("LISTENER", "name"),
                ("PROTOCOL", "protocol"),
                ("PORT", "port"),
                ("REFUSES BY", "on_refuse"),
                ("ADDRESSES", "addresses"),
                ("OPENED", "opened"),
                ("REFUSED", "refused"),
            ];
            show(&table_of(&answer, "listeners", &columns))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
