//! `cargo xtask upgrade-from REVISION`: open flows survive the change from that revision to this one.
//!
//! The revision is built in a work tree of its own below the cache; the lab then starts its daemon, opens a thousand
//! flows, and starts this one in its place.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::setup::{self, Purpose};
use crate::test::runner_variable;
use crate::workspace::Workspace;
use crate::{build, privilege, process};

/// Arguments of `upgrade-from`.
#[derive(Args)]
pub struct Arguments {
    /// Any name that git has for a revision with another layout of the maps.
    revision: String,
    /// A program that is built already, instead of one that is built from the revision.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Demo)?;
    let before = match &arguments.program {
        Some(program) => program.canonicalize()?,
        None => built(workspace, &arguments.revision)?,
    };
    build::kernel_programs(workspace)?;
    build::user_programs(workspace, false)?;
    privilege::ask("the lab (network namespaces, loading kernel programs)")?;
    let mut test = Command::new("cargo");
    test.current_dir(workspace.root())
        .args(["test", "-p", "forwarder-tests", "--test", "survival"])
        .args(["--", "--ignored", "--nocapture", "change_of_the_layout"])
        .env("FORWARDER_BEFORE", before);
    if let Some(runner) = privilege::runner() {
        test.env(runner_variable(), runner);
    }
    process::run(&mut test)
}

/// The program of a revision.
fn built(workspace: &Workspace, revision: &str) -> Result<PathBuf> {
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(workspace.root());
        git
    };
    let commit = process::output(
        git()
            .args(["rev-parse", "--verify"])
            .arg(format!("{revision}^{{commit}}")),
    )?;
    let tree = workspace.cache().join("upgrade-from").join(commit.trim());
    let program = tree.join("target/debug/forwarder");
    if program.exists() {
        return Ok(program);
    }
    if !tree.exists() {
        let mut add = git();
        add.args(["worktree", "add", "--detach"])
            .arg(&tree)
            .arg(commit.trim());
        process::step(
            workspace,
            "upgrade-from-tree",
            "checking the revision out",
            &mut add,
        )?;
    }
    // Its own build, with the tools that are here already.
    let mut build = Command::new("cargo");
    build
        .current_dir(&tree)
        .args(["xtask", "build"])
        .env("FORWARDER_CACHE", workspace.cache())
        .env("CARGO_TARGET_DIR", tree.join("target"));
    process::step(
        workspace,
        "upgrade-from-build",
        "building the revision",
        &mut build,
    )?;
    Ok(program)
}
