//! Cargo subcommands from crates.io, built into the cache where the machine lacks that very version.
//!
//! Each is built once, at low optimisation: building it takes longer than all its runs together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian;
use crate::process;
use crate::workspace::Workspace;

/// A subcommand of Cargo.
pub struct CargoTool {
    /// Crate and program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it is for, shown when it is built.
    pub purpose: &'static str,
}

impl CargoTool {
    /// Builds it into the cache where it is absent.
    pub fn provide(&self, workspace: &Workspace) -> Result<()> {
        let Self {
            name,
            version,
            purpose,
        } = self;
        if let Some(program) = self.find(workspace) {
            eprintln!("  {name} is {}", workspace.shown(&program));
            return Ok(());
        }
        let folder = self.folder(workspace);
        eprintln!(
            "  {name} {version} goes into {}: {purpose}; takes a few minutes, once",
            workspace.shown(&folder)
        );
        let build = folder.join("build");
        process::step(
            workspace,
            name,
            &format!("building {name}"),
            Command::new("cargo")
                .args(["install", name, "--version", version, "--locked", "--root"])
                .arg(&folder)
                .current_dir(workspace.root())
                .env("CARGO_TARGET_DIR", &build)
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
        )?;
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
    }

    /// Its program, which [`Self::provide`] has made sure of.
    pub fn program(&self, workspace: &Workspace) -> Result<PathBuf> {
        self.find(workspace)
            .with_context(|| format!("{} is absent: run `cargo xtask setup`", self.name))
    }

    fn find(&self, workspace: &Workspace) -> Option<PathBuf> {
        let built = self.folder(workspace).join("bin").join(self.name);
        if debian::is_executable(&built) {
            return Some(built);
        }
        debian::machine_program(self.name, Path::new(""))
            .filter(|program| self.is_version_of(program))
    }

    fn is_version_of(&self, program: &Path) -> bool {
        process::output(Command::new(program).arg("--version"))
            .is_ok_and(|said| said.split_whitespace().any(|word| word == self.version))
    }

    fn folder(&self, workspace: &Workspace) -> PathBuf {
        workspace.cache().join(self.name)
    }
}
