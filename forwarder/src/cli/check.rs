//! `forwarder check`: validates the configuration without touching anything.

use std::io::{Read, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use forwarder::config::firewall::{self, Firewall};
use forwarder::config::own_sockets::{self, OwnSockets};
use forwarder::config::surroundings::{self, Surroundings};
use forwarder::config::{self, Config, Sources};
use forwarder::link::survey::Surveyor;

use super::globals::{Globals, STANDARD_INPUT};
use super::output::show;

const AFTER_HELP: &str = "\
Each finding shows file, line and column, and what to do about it. Warnings about this machine
(an interface that is missing, a node that no tunnel leads to) are left out with --offline.

Examples:
  forwarder check
  forwarder check --config ./forwarder.toml --offline
  sed s/443/8443/ forwarder.toml | forwarder check --config -
  forwarder check --json | jq '.diagnostics[] | select(.severity == \"error\")'

Exit codes:
  0  usable, perhaps with warnings
  1  not usable, not readable, or with --deny-warnings a warning
  2  the command line is wrong";

/// Validate the configuration and show every finding.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Check {
    /// Write the findings as one JSON object.
    #[arg(long)]
    json: bool,
    /// Look at the file only, not at this machine's interfaces and routes.
    #[arg(long)]
    offline: bool,
    /// Fail on warnings too.
    #[arg(long)]
    deny_warnings: bool,
}

impl Check {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let mut outcome = if globals.config() == Path::new(STANDARD_INPUT) {
            let mut text = Vec::new();
            let read = stdin().lock().read_to_end(&mut text);
            read.context("cannot read standard input")?;
            config::validate(Sources::of_bytes(Path::new("<stdin>"), text))
        } else {
            config::load(globals.config())?
        };
        if let Some(config) = &outcome.config
            && !self.offline
        {
            let surroundings = look_around(config)?;
            outcome
                .report
                .extend(surroundings::check(config, &surroundings));
            let own = OwnSockets::here();
            outcome
                .report
                .extend(own_sockets::check(config, &surroundings.network, &own));
            let firewall = Firewall::here();
            outcome
                .report
                .extend(firewall::check(config, &surroundings.network, &firewall));
        }
        let report = &outcome.report;
        let text = if self.json {
            format!("{:#}\n", report.to_json())
        } else {
            report.render(globals.color(&stdout()))
        };
        show(&text)?;
        let failed = report.errors() > 0 || (self.deny_warnings && report.warnings() > 0);
        Ok(ExitCode::from(u8::from(failed)))
    }
}

/// Asks the kernel about interfaces and the ways to every node.
fn look_around(config: &Config) -> anyhow::Result<Surroundings> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let network = runtime.block_on(async {
        let surveyor = Surveyor::open()?;
        surveyor.survey(surroundings::destinations(config)).await
    });
    Ok(Surroundings {
        network: network.context("cannot look at this machine; --offline checks the file alone")?,
        local_ports: Surroundings::local_ports(),
    })
}
