//! `cargo deny`: licences, banned crates and sources of every dependency.
//!
//! The advisory database is left out: it is fetched from outside and changes daily, so a test
//! that reads it could fail without a change here.

use std::process::Command;

use anyhow::Result;

use crate::cargo_tool::CargoTool;
use crate::process;
use crate::workspace::Workspace;

/// The program that checks.
pub const TOOL: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
    purpose: "it checks the licences of all dependencies",
};

/// Checks the workspace and the crate of the kernel programs, which has a lock file of its own.
pub fn check(workspace: &Workspace) -> Result<()> {
    let program = TOOL.program(workspace)?;
    for manifest in ["Cargo.toml", "forwarder-ebpf/Cargo.toml"] {
        process::run(
            Command::new(&program)
                .arg("--manifest-path")
                .arg(workspace.root().join(manifest))
                .arg("--config")
                .arg(workspace.root().join("deny.toml"))
                .args(["check", "licenses", "bans", "sources"])
                .current_dir(workspace.root()),
        )?;
    }
    Ok(())
}
