//! `forwarder unload`: removes programs, maps and numbers.

use std::io::{BufRead, IsTerminal, stdin};
use std::process::ExitCode;

use anyhow::{Context, bail};
use forwarder::dataplane::bpf::pins::Pins;
use forwarder::dataplane::unload;
use forwarder::instance::lock::Lock;
use forwarder::instance::paths::Paths;
use forwarder::link::survey::Surveyor;
use forwarder::status;

use super::globals::Globals;
use super::output::{show, tell};

const AFTER_HELP: &str = "\
Every open flow ends: its next packet meets this machine's own TCP, which answers with a reset. Says what
will break, and asks before it does so, unless --yes is given.

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
            show(&format!(
                "nothing is loaded under {}\n",
                place.bpffs().display()
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        // Held until the end: no daemon starts meanwhile.
        let lock = Lock::take(&place.lock()).context("the daemon must be stopped first")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let network =
            runtime.block_on(async { Surveyor::open()?.survey(std::iter::empty()).await })?;
        tell(&consequences(&place, &pins))?;
        if !self.yes && !confirmed()? {
            tell("nothing was removed\n")?;
            return Ok(ExitCode::FAILURE);
        }
        let removed = unload::unload(&pins, &place.registry(), &network)?;
        place.remove_files()?;
        lock.remove();
        place.remove_run_dir();
        show(&format!(
            "removed {} links, filters of {} interfaces, and the maps under {}\n",
            removed.links,
            removed.filters.len(),
            place.bpffs().display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What will no longer work, a line each. What cannot be read is left out: cleaning up must always be possible.
fn consequences(place: &Paths, pins: &Pins) -> String {
    let mut lines = vec![format!("unloading {}:", place.bpffs().display())];
    lines.push(match unload::open_flows(pins) {
        Some(0) => String::from("  no flow is open"),
        Some(1) => String::from("  1 open flow ends: its next packet draws a reset"),
        Some(flows) => format!("  {flows} open flows end: the next packet of each draws a reset"),
        None => String::from("  every open flow ends: its next packet draws a reset"),
    });
    if let Ok(status) = status::read(place) {
        let routes: Vec<&str> = status
            .routes
            .iter()
            .map(|route| route.first_name.as_str())
            .collect();
        if !routes.is_empty() {
            lines.push(format!("  not forwarded any more: {}", some_of(&routes)));
        }
        let listeners = status.listeners.iter();
        let claimed: Vec<&str> = listeners
            .flat_map(|listener| listener.addresses.iter().map(String::as_str))
            .collect();
        if !claimed.is_empty() {
            lines.push(format!(
                "  for this machine's own sockets and firewall again: {}",
                some_of(&claimed)
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The first few, and how many there are more.
fn some_of(all: &[&str]) -> String {
    const SHOWN: usize = 6;
    let shown = all[..all.len().min(SHOWN)].join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn confirmed() -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        bail!("not confirmed: there is no terminal to ask on; --yes unloads without asking");
    }
    tell("Unload? [y/N] ")?;
    let mut answer = String::new();
    stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
