//! `cargo xtask vm`: the main job on a distribution kernel with the real WireGuard module.
//!
//! Boots a Debian cloud kernel in an emulated machine without network or disk and runs the test
//! there. It shows correctness on kernels other than the developer's; emulation says nothing
//! about speed. `FORWARDER_BIN` names a daemon that is built already.

mod archive;
mod initramfs;
mod kernel;
mod modules;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, process};

/// Arguments of `vm`.
#[derive(Args)]
pub struct Arguments {
    /// The kernel series, several with commas between them: 5.10, 6.1, 6.12, 6.16 to 6.19, 7.0 to 7.3, newest.
    #[arg(long = "kernel", value_delimiter = ',', default_value = DEFAULT_KERNEL)]
    kernels: Vec<String>,
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

/// What `make test` boots.
const TESTED_KERNELS: &[&str] = &["6.1"];

/// Emulated, a guest takes ten times as long as a real machine; and a test that fails waits in vain.
const LIMIT: Duration = Duration::from_secs(1_500);

/// How often a guest is booted that the emulator fails.
const TRIES: u32 = 3;

impl Arguments {
    /// Those of `make test`.
    pub fn tested() -> Self {
        Self {
            kernels: TESTED_KERNELS.iter().map(|&name| name.to_owned()).collect(),
            script: None,
            instructions: false,
        }
    }
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Vm)?;
    let programs = if arguments.instructions {
        build::kernel_programs(workspace)?;
        vec![
            build::lab_program(workspace, "packet-costs")?,
            workspace.target().join("bpf/forwarder.o"),
        ]
    } else {
        let daemon = match std::env::var_os("FORWARDER_BIN") {
            Some(daemon) => daemon.into(),
            None => build::daemon(workspace)?,
        };
        vec![daemon, build::lab_program(workspace, "lab-flood")?]
    };
    let test = match &arguments.script {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None if arguments.instructions => COUNT.to_owned(),
        None => TEST.to_owned(),
    };
    let mut failed = Vec::new();
    for name in &arguments.kernels {
        if let Err(error) = boot(workspace, name, &programs, &test, arguments.instructions) {
            eprintln!("kernel {name}: {}", process::causes(&error));
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Boots one kernel and runs the test there.
fn boot(
    workspace: &Workspace,
    name: &str,
    programs: &[PathBuf],
    test: &str,
    counting: bool,
) -> Result<()> {
    let kernel = kernel::provide(workspace, name)?;
    let archive = initramfs::build(workspace, &kernel.modules, programs, test)?;
    let folder = workspace.target().join("vm");
    fs::create_dir_all(&folder)?;
    let initramfs = folder.join(format!("initramfs-{name}"));
    fs::write(&initramfs, archive)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    let log = folder.join(format!("console-{name}.log"));
    let started = Instant::now();
    for tries_left in (0..TRIES).rev() {
        println!("booting kernel {name}");
        let machine = qemu::Machine {
            kernel: &kernel.image,
            initramfs: &initramfs,
            log: &log,
            limit: LIMIT,
            counting,
        };
        match machine.boot(workspace) {
            Ok(()) => break,
            Err(_) if tries_left > 0 && is_of_the_emulator(&log)? => {
                eprintln!("the emulator ran code that the kernel had just changed: once more");
            }
            Err(error) => return Err(error),
        }
    }
    println!("kernel {name}: passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Whether the guest ended because QEMU, emulating several processors in as many threads, executed the breakpoint with
/// which a kernel guards an instruction that it changes (`text_poke_bp`), after the change. A real processor cannot.
fn is_of_the_emulator(log: &Path) -> Result<bool> {
    let console = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let words = b"int3: 0000";
    Ok(console.windows(words.len()).any(|own| own == words))
}
