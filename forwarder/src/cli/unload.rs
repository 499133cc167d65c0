//! `forwarder unload`: removes programs, maps and numbers.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forwarder::daemon::lock::Lock;
use forwarder::dataplane::pins::Pins;
use forwarder::dataplane::unload;
use forwarder::link::survey::Surveyor;

use super::Globals;

const AFTER_HELP: &str = "\
Every open flow ends: its next packet meets this machine's own TCP, which answers with a reset. Asks
before it does so, unless --yes is given.

Examples:
  forwarder unload
  forwarder unload --yes --bpffs /sys/fs/bpf/forwarder

Exit codes:
  0  removed, or there was nothing
  1  not removed: a daemon runs, the answer was no, or the kernel refuses
  2  the command line is wrong";

/// Detach every program and remove every map.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Unload {
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Unload {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.init_logging()?;
        let place = globals.place(None);
        let pins = Pins::new(place.bpffs());
        if pins.versions()?.is_empty() {
            println!("nothing is loaded under {}", place.bpffs().display());
            return Ok(ExitCode::SUCCESS);
        }
        // Held until the end: no daemon starts meanwhile.
        let lock = Lock::take(&place.lock()).context("the daemon must be stopped first")?;
        if !self.yes && !confirmed(unload::open_flows(&pins))? {
            eprintln!("nothing was removed");
            return Ok(ExitCode::FAILURE);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let network =
            runtime.block_on(async { Surveyor::open()?.survey(std::iter::empty()).await })?;
        let removed = unload::unload(&pins, &place.registry(), &network)?;
        // Edits at run time were about what is gone now; there may be none.
        let _ = std::fs::remove_file(place.edits());
        lock.remove();
        println!(
            "removed {} links, filters of {} interfaces, and the maps under {}",
            removed.links,
            removed.filters.len(),
            place.bpffs().display()
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn confirmed(flows: Option<usize>) -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        bail!("not confirmed: there is no terminal to ask on; --yes unloads without asking");
    }
    match flows {
        Some(flows) => eprint!("{flows} open flows end, and nothing is forwarded any more. "),
        None => eprint!("Every open flow ends, and nothing is forwarded any more. "),
    }
    eprint!("Unload? [y/N] ");
    stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
