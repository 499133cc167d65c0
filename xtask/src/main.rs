//! `cargo xtask`: everything a developer runs, in one program without shell scripts.
//!
//! Each command is one module; this file only dispatches. `make` and CI call the same commands,
//! so there is one description of how the project is set up, built and tested.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod calls;
mod cargo_tool;
mod debian;
mod debian_root;
mod demo;
mod deny;
mod dist;
mod fuzz;
mod lab;
mod linker;
mod previews;
mod privilege;
mod process;
mod setup;
mod system;
mod test;
mod toolchain;
mod tools;
mod upgrade_from;
mod vm;
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
    /// Run every check and every test.
    Test(test::Arguments),
    /// Show the entrance at work with real clients and servers.
    Demo(demo::Arguments),
    /// Measure the entrance beside routing, nftables, nginx, HAProxy and others.
    Bench(bench::Arguments),
    /// Search with libFuzzer for inputs that break a promise.
    Fuzz(fuzz::Arguments),
    /// Make the Debian package.
    Dist(dist::Arguments),
    /// Draw the dashboards with data of a busy lab into docs/images/ (needs npm).
    Previews(previews::Arguments),
    /// Show that open flows survive the change from another revision.
    UpgradeFrom(upgrade_from::Arguments),
    /// Run the main job on a distribution kernel in a virtual machine.
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", process::causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::Test(arguments) => test::run(&workspace, &arguments),
        Command::Demo(arguments) => demo::run(&workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Command::Dist(arguments) => dist::run(&workspace, &arguments),
        Command::Previews(arguments) => previews::run(&workspace, &arguments),
        Command::UpgradeFrom(arguments) => upgrade_from::run(&workspace, &arguments),
        Command::Vm(arguments) => vm::run(&workspace, &arguments),
        Command::Setup(arguments) => setup::run(&workspace, &arguments),
    }
}
