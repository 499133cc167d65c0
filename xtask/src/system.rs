//! The few programs that are installed on the machine itself because they do not work unpacked.
//!
//! None of them starts a service or replaces something. A C compiler is not among them: without
//! one this program could not have been built.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian;
use crate::privilege;
use crate::process;
use crate::workspace::Workspace;

/// Command, Debian package and what it is for.
const PROGRAMS: &[(&str, &str, &str)] = &[("python3", "python3", "a TLS client of the lab")];

/// Installs the programs that the machine lacks.
pub fn provide(workspace: &Workspace) -> Result<()> {
    let lacking: Vec<_> = PROGRAMS
        .iter()
        .filter(|(command, _, _)| debian::machine_program(command, Path::new("")).is_none())
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    eprintln!("  to be installed on this machine with apt-get; none starts a service:");
    for (command, _, purpose) in &lacking {
        eprintln!("    {command:<20} {purpose}");
    }
    let packages: Vec<_> = lacking.iter().map(|(_, package, _)| *package).collect();
    let by_hand = || {
        format!(
            "install them by hand: apt-get install {}",
            packages.join(" ")
        )
    };
    privilege::ask("installing them").with_context(by_hand)?;
    let apt = || {
        let mut apt = privilege::as_root(Path::new("apt-get"));
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let install = |command: &mut Command| {
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&packages);
        process::step(workspace, "apt-install", "installing", command)
    };
    // The machine's package lists may be absent or old: only then are they fetched.
    if install(&mut apt()).is_err() {
        process::step(
            workspace,
            "apt-update-system",
            "apt-get update",
            apt().arg("update"),
        )
        .and_then(|()| install(&mut apt()))
        .with_context(by_hand)?;
    }
    Ok(())
}
