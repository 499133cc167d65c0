//! `forwarder doctor`: examines the machine, the file, the nodes and the daemon.

use std::io::stdout;
use std::process::ExitCode;

use anyhow::Context;
use forwarder::dataplane::bpf::object::OBJECT;
use forwarder::doctor::{self, Examination};

use super::globals::Globals;
use super::output::show;

const AFTER_HELP: &str = "\
Looks at the kernel (also whether it takes the programs), the configuration, interfaces, MTUs, routes, ports,
the nodes (reachable, TLS, PROXY header, certificates, fronting) and the daemon. Each failure comes with what
mends it; docs/doctor.md lists every check. Nothing is changed. Nodes get a few connections each; --offline
leaves them alone.

Examples:
  forwarder doctor
  forwarder doctor --private-host grafana.home.example.org
  forwarder doctor --json | jq '.findings[] | select(.verdict == \"failure\")'

Exit codes:
  0  no failure, perhaps warnings
  1  a failure, or it could not look
  2  the command line is wrong";

/// Find out what is wrong, and what mends it.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Doctor {
    /// Write the findings as one JSON object.
    #[arg(long)]
    json: bool,
    /// Do not connect to the nodes.
    #[arg(long)]
    offline: bool,
    /// Do not load the programs to see whether the kernel takes them.
    #[arg(long)]
    no_trial: bool,
    /// A private host that no listed name may lead to; may be given several times.
    #[arg(long, value_name = "NAME")]
    private_host: Vec<String>,
}

impl Doctor {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let examination = Examination {
            file: globals.config(),
            offline: self.offline,
            no_trial: self.no_trial,
            private: &self.private_host,
            object: OBJECT,
        };
        let report = runtime
            .block_on(doctor::examine(&examination, |config| {
                globals.place(config)
            }))
            .context("cannot look at this machine")?;
        let text = if self.json {
            format!("{:#}\n", report.to_json())
        } else {
            report.render(globals.color(&stdout()))
        };
        show(&text)?;
        Ok(ExitCode::from(u8::from(report.has_failed())))
    }
}
