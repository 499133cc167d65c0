//! `cargo xtask setup`: installs what is missing, says what and why, and changes nothing else.
//!
//! What it makes lies in the cache folder of the checkout. Only a missing C compiler or Python is
//! installed on the machine itself, with `apt-get` and after asking for `sudo` once; neither
//! starts a service. A second run finds everything in place and is done at once.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::toolchain::Toolchain;
use crate::workspace::Workspace;
use crate::{deny, dist, linker, system, tools};

/// Arguments of `setup`.
#[derive(Args)]
pub struct Arguments {
    /// What to prepare for.
    #[arg(long = "for", value_enum, default_value = "all")]
    purpose: Purpose,
}

/// What the machine is to be prepared for; each includes `build`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Compile everything: toolchain component, BPF linker.
    Build,
    /// `make test`.
    Test,
    /// `make demo`.
    Demo,
    /// `cargo xtask vm`.
    Vm,
    /// `make bench`.
    Bench,
    /// `cargo xtask dist`.
    Dist,
    /// All of the above.
    All,
}

impl Purpose {
    fn needs_checks(self) -> bool {
        matches!(self, Self::Test | Self::All)
    }

    fn needs_lab(self) -> bool {
        !matches!(self, Self::Build | Self::Dist)
    }

    fn needs_packaging(self) -> bool {
        matches!(self, Self::Test | Self::Dist | Self::All)
    }

    fn needs_debian_machines(self) -> bool {
        matches!(self, Self::Test | Self::All)
    }

    fn needs_contenders(self) -> bool {
        matches!(self, Self::Bench | Self::All)
    }

    fn needs_virtual_machine(self) -> bool {
        matches!(self, Self::Test | Self::Vm | Self::All)
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    prepare(workspace, arguments.purpose)
}

/// Prepares the machine for `purpose`.
pub fn prepare(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    eprintln!("toolchain");
    let toolchain = Toolchain::query(workspace)?;
    toolchain.provide_source(workspace)?;
    linker::provide(workspace, &toolchain)?;
    if purpose.needs_checks() {
        deny::TOOL.provide(workspace)?;
    }
    if purpose.needs_packaging() {
        eprintln!("packaging tools");
        dist::TOOL.provide(workspace)?;
        tools::provide(workspace, tools::PACKAGING)?;
    }
    if purpose.needs_lab() {
        eprintln!("lab tools");
        system::provide(workspace)?;
        tools::provide(workspace, tools::LAB)?;
    }
    if purpose.needs_contenders() {
        eprintln!("contenders of the benchmark");
        tools::provide(workspace, tools::BENCH)?;
    }
    if purpose.needs_debian_machines() {
        eprintln!("tools for Debian machines");
        tools::provide(workspace, tools::DEBIAN_MACHINES)?;
    }
    if purpose.needs_virtual_machine() {
        eprintln!("virtual machine tools");
        tools::provide(workspace, tools::VIRTUAL_MACHINE)?;
    }
    Ok(())
}
