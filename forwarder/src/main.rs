//! `forwarder`: parses the command line, runs one subcommand, and turns its outcome into an exit code.

mod cli;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    let matches = cli::Cli::command().get_matches();
    let json = cli::failure::wants_json(&matches);
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.execute() {
        Ok(code) => code,
        Err(error) => {
            cli::failure::show(&error, json);
            ExitCode::FAILURE
        }
    }
}
