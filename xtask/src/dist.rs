//! `cargo xtask dist`: the Debian package, made with cargo-deb.
//!
//! What is in it says `[package.metadata.deb]` of the daemon's manifest; maintainer scripts, changelog and
//! copyright are in `packaging/debian/`. The daemon holds the kernel programs, and generates its completions
//! and manual pages itself: they are laid beside it in a build folder of the package's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo_tool::CargoTool;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, process};

/// The program that makes the package.
pub const TOOL: CargoTool = CargoTool {
    name: "cargo-deb",
    version: "3.8.0",
    purpose: "it makes the Debian package",
};

/// Arguments of `dist`.
#[derive(Args)]
pub struct Arguments {
    /// Package this program instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The package's revision of this version; packages of the same version differ by it.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    revision: u32,
}

/// Shell and what its completions are called.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "forwarder.bash"),
    ("zsh", "_forwarder"),
    ("fish", "forwarder.fish"),
];

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Dist)?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build::daemon(workspace)?,
    };
    package(workspace, &binary, arguments.revision, Effort::Small).map(drop)
}

/// How hard the package is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// As small as can be.
    Small,
    /// As quickly as can be.
    Quick,
}

/// Makes the package of a daemon that is built already, and returns its file.
pub fn package(
    workspace: &Workspace,
    binary: &Path,
    revision: u32,
    effort: Effort,
) -> Result<PathBuf> {
    eprintln!("package");
    let folder = workspace.target().join("dist");
    let build = folder.join("build");
    lay_out(binary, &build.join("release"))?;
    check_changelog(workspace)?;

    let mut deb = Command::new(TOOL.program(workspace)?);
    deb.args(["--package", "forwarder", "--no-build", "--offline"])
        .args(["--deb-revision", &revision.to_string()])
        .arg("--output")
        .arg(&folder)
        .current_dir(workspace.root())
        .env("CARGO_TARGET_DIR", &build)
        .env("PATH", path_with_tools(workspace)?);
    if effort == Effort::Quick {
        deb.arg("--fast");
    }
    let said = process::output(&mut deb)?;
    let package = said
        .lines()
        .map(|line| PathBuf::from(line.trim()))
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .with_context(|| format!("cargo-deb does not say what it made:\n{said}"))?;
    check_dependencies(&package)?;
    eprintln!("  {}", workspace.shown(&package));
    Ok(package)
}

/// The daemon and what it generates, where the manifest says they are.
fn lay_out(binary: &Path, release: &Path) -> Result<()> {
    if release.exists() {
        fs::remove_dir_all(release)
            .with_context(|| format!("cannot remove {}", release.display()))?;
    }
    let generated = release.join("generated");
    fs::create_dir_all(&generated)
        .with_context(|| format!("cannot create {}", generated.display()))?;
    fs::copy(binary, release.join("forwarder"))
        .with_context(|| format!("cannot copy {}", binary.display()))?;
    for (shell, file) in COMPLETIONS {
        let script = process::output(Command::new(binary).args(["completions", shell]))?;
        let path = generated.join(file);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    manual_pages(binary, &generated.join("man"))
}

/// The daemon's manual pages, compressed as Debian wants them: cargo-deb does that to sources only.
fn manual_pages(binary: &Path, folder: &Path) -> Result<()> {
    process::output(Command::new(binary).args(["man", "--output"]).arg(folder))?;
    let pages =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let pages = pages
        .map(|page| page.map(|page| page.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    process::output(
        Command::new("gzip")
            .args(["--best", "--no-name"])
            .args(pages),
    )?;
    Ok(())
}

/// The newest entry of Debian's changelog must be about this version.
fn check_changelog(workspace: &Workspace) -> Result<()> {
    let path = workspace.root().join("packaging/debian/changelog");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    if !text.starts_with(&format!("forwarder ({version}-")) {
        bail!(
            "the first entry of {} is not about version {version}: write one",
            workspace.shown(&path)
        );
    }
    Ok(())
}

/// cargo-deb only warns when it cannot find out what the daemon depends on.
fn check_dependencies(package: &Path) -> Result<()> {
    let depends = process::output(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg("Depends"),
    )?;
    if !depends.contains("libc6 (>=") {
        bail!(
            "{} does not depend on libc6: dpkg-shlibdeps did not work; \
             run `dpkg-shlibdeps -O target/dist/build/release/forwarder` in a folder with an empty \
             debian/control to see why",
            package.display()
        );
    }
    Ok(())
}

fn path_with_tools(workspace: &Workspace) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(workspace.cached_programs()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("PATH cannot be made")
}
