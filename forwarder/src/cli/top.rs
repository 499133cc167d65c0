//! `forwarder top`: what the entrance does, live.

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use forwarder::top::terminal;

use super::globals::Globals;
use super::remote::{client, show};

const AFTER_HELP: &str = "\
Keys:
  1-5, tab, ←, →   overview, nodes, routes, flows, refusals
  ↑, ↓, page, home, end   rows
  s, r             sort by the next column; turn the order round
  /                show only rows with a text; esc drops it
  p, space         pause
  q, ctrl-c        quit

The flows are the 300 that have carried most bytes.

Examples:
  forwarder top
  forwarder top --interval 5s
  forwarder top --once

Exit codes:
  0  ended by a key or a signal
  1  no daemon, no permission, or no terminal
  2  the command line is wrong";

/// Show rates, nodes, routes, flows and refusals, live.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Top {
    /// Time from one look to the next.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Write one picture as text, after one interval, and end.
    #[arg(long)]
    once: bool,
}

/// Between a tenth of a second and an hour: each look costs the daemon some work.
fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if allowed.contains(&time) {
        return Ok(time);
    }
    Err(String::from("give a time from 100ms to 1h"))
}

impl Top {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let client = client(globals);
        if self.once {
            let picture = terminal::once(&client, self.interval, (100, 40))?;
            show(&picture)?;
        } else if stdin().is_terminal() && stdout().is_terminal() {
            terminal::run(client, self.interval)?;
        } else {
            bail!("top needs a terminal for keys and pictures; `forwarder top --once` writes text");
        }
        Ok(ExitCode::SUCCESS)
    }
}
