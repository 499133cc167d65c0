//! `cargo xtask bench`: builds what the benchmark needs and hands over to it, as root.
//!
//! The benchmark itself is a program of the lab's crate, and so are its options.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, privilege, process};

/// Arguments of `bench`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Options of the benchmark: `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Runs the command; returns only on failure.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Bench)?;
    build::kernel_programs(workspace)?;
    eprintln!("benchmark and daemon");
    process::run(
        Command::new("cargo")
            .args(["build", "--release", "--package", "forwarder"])
            .args(["--package", "forwarder-tests", "--bins"])
            .current_dir(workspace.root()),
    )?;
    privilege::ask("the benchmark (network namespaces, loading kernel programs)")?;
    let mut bench = privilege::as_root(&workspace.target().join("release/bench"));
    bench.args(&arguments.options).current_dir(workspace.root());
    Err(bench.exec()).context("cannot start the benchmark")
}
