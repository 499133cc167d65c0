//! `forwarder`: parses the command line, runs one subcommand, and turns its outcome into an exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("forwarder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
