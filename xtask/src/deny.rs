//! `cargo deny`: licences, banned crates and sources of every dependency.
//!
//! The advisory database is left out: it is fetched from outside and changes daily, so a test
//! that reads it could fail without a change here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian;
use crate::process;
use crate::workspace::Workspace;

const VERSION: &str = "0.20.2";

/// Builds cargo-deny into the cache where the machine has none.
pub fn provide(workspace: &Workspace) -> Result<()> {
    if let Some(program) = find(workspace) {
        eprintln!("  cargo-deny is {}", workspace.shown(&program));
        return Ok(());
    }
    let folder = folder(workspace);
    eprintln!(
        "  cargo-deny {VERSION} goes into {}: it checks the licences of all dependencies; takes \
         a few minutes, once",
        workspace.shown(&folder)
    );
    let build = folder.join("build");
    process::step(
        workspace,
        "cargo-deny",
        "building cargo-deny",
        Command::new("cargo")
            .args([
                "install",
                "cargo-deny",
                "--version",
                VERSION,
                "--locked",
                "--root",
            ])
            .arg(&folder)
            .current_dir(workspace.root())
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    )?;
    std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

/// Checks the workspace and the crate of the kernel programs, which has a lock file of its own.
pub fn check(workspace: &Workspace) -> Result<()> {
    let program = find(workspace).context("cargo-deny is absent: run `cargo xtask setup`")?;
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

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.cache().join("cargo-deny")
}

fn find(workspace: &Workspace) -> Option<PathBuf> {
    let built = folder(workspace).join("bin/cargo-deny");
    if debian::is_executable(&built) {
        return Some(built);
    }
    debian::machine_program("cargo-deny", Path::new(""))
}
