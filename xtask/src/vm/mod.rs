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
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `vm`.
#[derive(Args)]
pub struct Arguments {
    /// The kernel series.
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// Run this shell script in the guest instead of the test.
    #[arg(long)]
    script: Option<PathBuf>,
}

/// The main job, checked in the guest.
const TEST: &str = include_str!("entrance.sh");

const DEFAULT_KERNEL: &str = "6.1";

/// Emulated, a guest takes ten times as long as a real machine.
const LIMIT: Duration = Duration::from_secs(400);

impl Default for Arguments {
    fn default() -> Self {
        Self {
            kernel: DEFAULT_KERNEL.to_owned(),
            script: None,
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Vm)?;
    let kernel = kernel::provide(workspace, &arguments.kernel)?;
    let forwarder = build::daemon(workspace)?;
    let test = match &arguments.script {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => TEST.to_owned(),
    };
    let archive = initramfs::build(workspace, &kernel.modules, &[forwarder], &test)?;

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
