//! `cargo xtask demo`: builds what the demonstration needs and hands over to it, as root.
//!
//! The demonstration itself is a program of the lab's crate. It works in network namespaces that
//! it makes, and removes them.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, privilege};

/// Arguments of `demo`.
#[derive(Args)]
pub struct Arguments {
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the lab up afterwards, to look around.
    #[arg(long)]
    keep: bool,
}

/// Runs the command; returns only on failure.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Demo)?;
    build::kernel_programs(workspace)?;
    build::user_programs(workspace, true)?;
    privilege::ask("the demonstration (network namespaces, loading kernel programs)")?;

    let mut demo = privilege::as_root(&workspace.target().join("release/demo"));
    if arguments.json {
        demo.arg("--json");
    }
    if arguments.keep {
        demo.arg("--keep");
    }
    Err(demo.current_dir(workspace.root()).exec()).context("cannot start the demonstration")
}
