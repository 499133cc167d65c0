//! `forwarder run`: the daemon.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use forwarder::config::{self, Config, Sources};
use forwarder::control::{server, socket};
use forwarder::dataplane::bpf::object::OBJECT;
use forwarder::instance::fatal;
use forwarder::instance::lock::Lock;
use forwarder::reconcile::{Daemon, DaemonError};

use super::failure;
use super::globals::Globals;

/// Nobody confirmed, and everything was removed. The unit does not start it again after that.
const UNCONFIRMED: u8 = 3;

const AFTER_HELP: &str = "\
Needs the right to load and attach programs (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON), and
CAP_NET_RAW to reset both ends of a flow that is ended by order.

Stopping it (SIGTERM, Ctrl-C) leaves programs attached: open flows go on, and new connections are still
served as configured last. Started again, it takes over. `forwarder unload` removes everything.

With --confirm everything is removed if nobody confirms in time, if it is stopped before, and at that time
if it was killed; a daemon that is started meanwhile without --confirm goes on waiting.

Examples:
  forwarder run --config /etc/forwarder/forwarder.toml
  forwarder run --config ./forwarder.toml --log debug
  forwarder run --confirm 60s &  # then, from a new connection: forwarder confirm

Exit codes:
  0  stopped by a signal
  1  the configuration has errors, or the kernel refuses
  2  the command line is wrong
  3  not confirmed: everything was removed
  78 what is loaded in the kernel does not go with this version or this configuration, and starting
     again will not mend it: the message says what does
  101  a defect: a part of the daemon panicked, and where is in the log; started again, it takes over";

/// `EX_CONFIG` of `sysexits.h`. The systemd unit knows it.
const LASTING: u8 = 78;

/// Load, attach and serve until stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Run {
    /// Detach and remove everything after this time, unless `forwarder confirm` arrives before: a guard
    /// against locking yourself out.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    confirm: Option<Duration>,
}

impl Run {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.init_logging()?;
        fatal::end_at_a_panic();
        let Some((config, sources)) = read_config(globals)? else {
            return Ok(ExitCode::FAILURE);
        };
        let place = globals.place(Some(&config));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let outcome = runtime.block_on(async {
            let lock = Lock::take(&place.lock())?;
            let started = Daemon::start(lock, OBJECT, config, sources, &place, self.confirm);
            let daemon = match started.await {
                Ok(daemon) => daemon,
                Err(error) => return Ok(Err(error)),
            };
            let (listener, _socket) = socket::listen(&place.control())?;
            tokio::spawn(server::serve(listener, daemon.handle_for_others()));
            anyhow::Ok(daemon.run().await)
        })?;
        let Err(error) = outcome else {
            return Ok(ExitCode::SUCCESS);
        };
        let code = match &error {
            DaemonError::Unconfirmed | DaemonError::Stopped => UNCONFIRMED,
            error if error.is_lasting() => LASTING,
            _ => return Err(error.into()),
        };
        failure::show(&error.into(), false);
        Ok(ExitCode::from(code))
    }
}

/// The configuration, if it has no errors. Findings go to a person as snippets, and to a log as lines.
fn read_config(globals: &Globals) -> anyhow::Result<Option<(Config, Sources)>> {
    let outcome = config::load(globals.config())?;
    let report = &outcome.report;
    if !report.diagnostics.is_empty() {
        if stderr().is_terminal() || outcome.config.is_none() {
            let text = report.render(globals.color(&stderr()));
            stderr()
                .write_all(text.as_bytes())
                .context("cannot write the report")?;
        } else {
            report.log();
        }
    }
    let sources = outcome.report.sources;
    Ok(outcome.config.map(|config| (config, sources)))
}
