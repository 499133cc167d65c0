//! Root, for the few things that need it: said, then asked for with `sudo`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::debian;

/// Whether this process may do everything.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// `program` as root: itself, or through `sudo` with the environment kept.
pub fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("-E").arg(program);
    sudo
}

/// What Cargo must put before a test program so that it runs as root; `None` for root itself.
pub fn runner() -> Option<&'static str> {
    (!is_root()).then_some("sudo -E")
}

/// Says what root is needed for and asks for it once; `sudo` remembers.
pub fn ask(purpose: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    if debian::machine_program("sudo", Path::new("")).is_none() {
        bail!("{purpose} needs root and there is no sudo: run this command as root");
    }
    eprintln!("  {purpose} needs root; sudo may ask for your password");
    let status = Command::new("sudo").arg("-v").status()?;
    if !status.success() {
        bail!("{purpose} needs root, and sudo refused");
    }
    Ok(())
}
