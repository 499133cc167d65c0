//! `cargo xtask`: everything a developer runs, in one program without shell scripts.
//!
//! Each command is one module; this file only dispatches. `make` and CI call the same commands,
//! so there is one description of how the project is set up, built and tested.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod build;
mod debian;
mod linker;
mod process;
mod setup;
mod toolchain;
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
    /// Build the kernel programs, then the daemon.
    Build(build::Arguments),
}

fn main() -> Result<()> {
    let workspace = Workspace::locate()?;
    match Cli::parse().command {
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Setup(arguments) => setup::run(&workspace, &arguments),
    }
}
