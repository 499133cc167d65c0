//! `cargo xtask vm`: the main job on a distribution kernel with the real WireGuard module.
//!
//! Boots a Debian cloud kernel in an emulated machine without network or disk and runs the test
//! there. It shows correctness on kernels other than the developer's; emulation says nothing
//! about speed.

mod archive;
mod initramfs;
mod kernel;
mod modules;
mod qemu;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `vm`.
#[derive(Args)]
pub struct Arguments {
    /// The kernel series.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
}

const DEFAULT_KERNEL: &str = "6.1";

/// Emulated, a guest takes ten times as long as a real machine.
const LIMIT: Duration = Duration::from_secs(180);

impl Default for Arguments {
    fn default() -> Self {
        Self {
            kernel: DEFAULT_KERNEL.to_owned(),
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Vm)?;
    let kernel = kernel::provide(workspace, &arguments.kernel)?;
    let archive = initramfs::build(
        workspace,
        &kernel.modules,
        &[],
        include_str!("wireguard.sh"),
    )?;

    let folder = workspace.target().join("vm");
    fs::create_dir_all(&folder)?;
    let initramfs = folder.join(format!("initramfs-{}", arguments.kernel));
    fs::write(&initramfs, archive)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    println!("booting kernel {}", arguments.kernel);
    qemu::Machine {
        kernel: &kernel.image,
        initramfs: &initramfs,
        log: &folder.join(format!("console-{}.log", arguments.kernel)),
        limit: LIMIT,
    }
    .boot(workspace)
}
