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
    #[arg(long, conflicts_with = "instructions")]
    script: Option<PathBuf>,
    /// Count what one packet costs on each way through the programs, in machine instructions, instead of the test.
    /// Emulated so that an instruction takes a nanosecond of the guest's clock, which makes the figures repeatable.
    #[arg(long)]
    instructions: bool,
}

/// The main job, checked in the guest.
const TEST: &str = include_str!("entrance.sh");

/// The same for `--instructions`.
const COUNT: &str = "FORWARDER_LAB_BIN=/bin FORWARDER_BPF_OBJECT=/bin/forwarder.o packet-costs\n";

const DEFAULT_KERNEL: &str = "6.1";

/// Emulated, a guest takes ten times as long as a real machine; and a test that fails waits in vain.
const LIMIT: Duration = Duration::from_secs(900);

impl Default for Arguments {
    fn default() -> Self {
        Self {
            kernel: DEFAULT_KERNEL.to_owned(),
            script: None,
            instructions: false,
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Vm)?;
    let kernel = kernel::provide(workspace, &arguments.kernel)?;
    let programs = if arguments.instructions {
        build::kernel_programs(workspace)?;
        vec![
            build::lab_program(workspace, "packet-costs")?,
            workspace.target().join("bpf/forwarder.o"),
        ]
    } else {
        vec![
            build::daemon(workspace)?,
            build::lab_program(workspace, "lab-flood")?,
        ]
    };
    let test = match &arguments.script {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None if arguments.instructions => COUNT.to_owned(),
        None => TEST.to_owned(),
    };
    let archive = initramfs::build(workspace, &kernel.modules, &programs, &test)?;

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
        counting: arguments.instructions,
    }
    .boot(workspace)
}
