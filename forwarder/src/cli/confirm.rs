//! `forwarder confirm`: ends the probation of `forwarder run --confirm` and of `forwarder reload --confirm`.

use std::process::ExitCode;

use serde_json::Value;

use super::globals::Globals;
use super::remote::{EXIT_CODES, client, show};

/// Keep what `forwarder run --confirm` attached, or the configuration of `forwarder reload --confirm`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Confirm {}

impl Confirm {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let answer: Value = client(globals).ask("POST", "/v1/confirm", None)?;
        show(if answer["waited"] == true {
            "confirmed; programs stay attached, and the configuration in use\n"
        } else {
            "nothing waits to be confirmed\n"
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
