//! Boots a kernel with an initial RAM file system under QEMU and waits for its result line.
//!
//! Emulated in software (TCG), so it works without `/dev/kvm` and gives the same CPU everywhere.
//! The guest has no network and no disk. It says how it went in a last line on its console;
//! a guest that ends without that line, or does not end, has failed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// What the guest prints before its exit code.
pub const RESULT: &str = "guest result: ";

/// What to boot.
pub struct Machine<'a> {
    /// The kernel image.
    pub kernel: &'a Path,
    /// The initial RAM file system.
    pub initramfs: &'a Path,
    /// Where the console is recorded.
    pub log: &'a Path,
    /// How long the guest may take.
    pub limit: Duration,
    /// Whether its clock counts instructions, a nanosecond each. It has one processor then.
    pub counting: bool,
}

impl Machine<'_> {
    /// Boots, shows the console, and succeeds when the guest says it did.
    pub fn boot(&self, workspace: &Workspace) -> Result<()> {
        let mut qemu = Command::new(workspace.cached_programs().join("qemu-system-x86_64"))
            .args(["-M", "q35", "-m", "1536"])
            .args(if self.counting {
                [
                    "-smp",
                    "1",
                    "-accel",
                    "tcg,thread=single",
                    "-icount",
                    "shift=0,sleep=off",
                ]
                .as_slice()
            } else {
                ["-smp", "2", "-accel", "tcg,thread=multi"].as_slice()
            })
            .args([
                "-nic", "none", "-display", "none", "-serial", "stdio", "-monitor", "none",
            ])
            .args(["-no-reboot", "-kernel"])
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 reboot=t"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu: run `cargo xtask setup --for vm`")?;
        let result = self.watch(&mut qemu);
        // Harmless when it has ended; otherwise it must not outlive us.
        let _ = qemu.kill();
        qemu.wait().context("cannot wait for qemu")?;
        match result? {
            Some(0) => Ok(()),
            Some(code) => bail!("the test in the guest ended with {code}"),
            None => bail!(
                "the guest ended without a result; see {}",
                self.log.display()
            ),
        }
    }

    /// Shows and records the console until the guest ends; returns what it said.
    fn watch(&self, qemu: &mut Child) -> Result<Option<i32>> {
        let console = qemu.stdout.take().context("qemu has no console")?;
        let mut log = File::create(self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let (lines, arrived) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if lines
                    .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                    .is_err()
                {
                    break;
                }
            }
        });

        let deadline = Instant::now() + self.limit;
        let mut result = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match arrived.recv_timeout(left) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    match line.strip_prefix(RESULT) {
                        Some(code) => result = code.parse().ok(),
                        None => println!("  | {line}"),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the guest did not end within {} s; see {}",
                        self.limit.as_secs(),
                        self.log.display()
                    );
                }
            }
        }
    }
}
