//! `forwarder reload`: the configuration file again, while flows are open.

use std::process::ExitCode;
use std::time::Duration;

use forwarder::control::client::target;
use forwarder::reconcile::command::Reloaded;
use serde_json::Value;

use super::globals::Globals;
use super::remote::{client, explained, show, show_json};

const AFTER_HELP: &str = "\
The daemon reads its configuration file, shows what differs, and puts it to use whole. A file with
errors is refused, with line and column of each, and the running configuration stays. Open flows go
on, also those whose route is gone, unless --reset is given. Edits made with `route` end; states and
weights of nodes go on, unless the file now says something else of them. SIGHUP does the same.

Examples:
  forwarder reload
  forwarder reload --confirm 2m   # then, from a new connection: forwarder confirm
  forwarder reload --json | jq .difference

Exit codes:
  0  the file is in use
  1  it is not: errors in the file, no daemon, no permission
  2  the command line is wrong";

/// Put the configuration file to use, without dropping a flow.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Reload {
    /// End the flows whose route is gone.
    #[arg(long)]
    reset: bool,
    /// Go back to the former configuration after this time, unless `forwarder confirm` arrives before.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    confirm: Option<Duration>,
    /// Write the answer as JSON.
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let time = self
            .confirm
            .map(|time| humantime::format_duration(time).to_string());
        let parameters = [
            ("reset", self.reset.then_some("true")),
            ("confirm", time.as_deref()),
        ];
        let target = target("/v1/reload", &parameters);
        let answer: Value = explained(client(globals).ask("POST", &target, None))?;
        if self.json {
            show_json(&answer)?;
        } else {
            show(&render(&serde_json::from_value(answer)?))?;
            if let Some(time) = time {
                show(&format!(
                    "the former configuration comes back in {time}, unless `forwarder confirm` arrives before\n"
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(reloaded: &Reloaded) -> String {
    let mut text = reloaded.difference.render();
    for own in &reloaded.fixed {
        text.push_str(&format!(
            "! {} stays {} (the file says {}): it cannot change while maps are pinned; \
             `forwarder unload` and a new start apply it, and end open flows\n",
            own.key, own.running, own.file
        ));
    }
    for own in &reloaded.tight {
        text.push_str(&format!("! little room is left for {own}\n"));
    }
    if !reloaded.edits.is_empty() {
        let count = reloaded.edits.len();
        text.push_str(&format!("{count} edits made at run time have ended\n"));
    }
    for own in &reloaded.kept {
        text.push_str(&format!("goes on as set at run time: {own}\n"));
    }
    if reloaded.reset > 0 {
        let noun = if reloaded.reset == 1 { "flow" } else { "flows" };
        text.push_str(&format!("{} {noun} ended\n", reloaded.reset));
    }
    let warnings = reloaded.report["warnings"].as_u64().unwrap_or_default();
    if warnings > 0 {
        text.push_str(&format!(
            "{warnings} warnings; `forwarder check` shows them\n"
        ));
    }
    text.push_str(if reloaded.difference.is_empty() {
        "reloaded; nothing differs\n"
    } else {
        "reloaded; open flows go on\n"
    });
    text
}
