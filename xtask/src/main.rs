//! `cargo xtask`: everything a developer runs, in one program without shell scripts.
//!
//! Each command is one module; this file only dispatches. `make` and CI call the same commands,
//! so there is one description of how the project is set up, built and tested.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod debian;
mod process;
mod setup;
mod tools;
mod workspace;

use workspace::Workspace;

/// Sets up, builds, tests and shows forwarder.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: toolchain component, BPF linker, tools for the lab.
    Setup(setup::Arguments),
}

fn main() -> Result<()> {
    let workspace = Workspace::locate()?;
    match Cli::parse().command {
        Command::Setup(arguments) => setup::run(&workspace, &arguments),
    }
}
