//! `forwarder init`: writes a first configuration.

use std::io::{IsTerminal, stderr, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use forwarder::config::model::ClientAddress;
use forwarder::config::{self, claim};
use forwarder::init::{self, Draft, Terminal, detect};
use forwarder::link::survey::Surveyor;

use super::globals::Globals;
use super::output::{show, tell};

const AFTER_HELP: &str = "\
On a terminal what no flag tells is asked for, with what this machine shows as the default: the interface of the
default route, WireGuard and Tailscale interfaces, WireGuard's peers. Elsewhere --node and --name must be given.
What is written passes `forwarder check`; a file that is there stays unless --force is given.

Examples:
  forwarder init
  forwarder init --tunnel wg0 --node 10.0.0.2 --node 10.0.0.6 --name www.example.org --name '*.apps.example.org'
  forwarder init --tunnel tailscale0 --node 100.64.0.2:8443 --name www.example.org --output ./forwarder.toml

Exit codes:
  0  written
  1  not written: something is missing or wrong, or there is a file already
  2  the command line is wrong";

/// Write a first configuration, from flags or a few questions.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Init {
    /// An interface that faces the internet [default: that of the default route].
    #[arg(long, value_name = "INTERFACE")]
    public: Vec<String>,
    /// An interface that leads to nodes [default: WireGuard and Tailscale interfaces].
    #[arg(long, value_name = "INTERFACE")]
    tunnel: Vec<String>,
    /// The port that clients connect to [default: 443].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// What the pool of nodes is called [default: home].
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// A node's address in the tunnel, with its port if that is not 443.
    #[arg(long, value_name = "ADDRESS")]
    node: Vec<String>,
    /// How nodes learn clients' addresses: proxy-v2, transparent or masquerade [default: proxy-v2].
    #[arg(long, value_name = "MODE")]
    client_address: Option<String>,
    /// A public name, such as www.example.org or *.apps.example.org.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// The file to write [default: that of --config].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    /// Ask nothing, not even on a terminal.
    #[arg(long)]
    no_input: bool,
}

impl Init {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let path = self
            .output
            .unwrap_or_else(|| globals.config().to_path_buf());
        // Before anybody answers questions for nothing.
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(init::InitError::Exists { path }.into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let detected = runtime
            .block_on(detect::look())
            .context("cannot look at this machine")?;
        let draft = Draft {
            public: self.public,
            tunnels: self.tunnel,
            port: self.port,
            pool: self.pool,
            nodes: self.node,
            client_address: self.client_address,
            names: self.name,
        };
        let asks = stdin().is_terminal() && !self.no_input;
        let (mut input, mut output) = (stdin().lock(), stderr());
        let mut terminal = asks.then(|| Terminal::new(&mut input, &mut output));
        let answers = init::complete(&draft, &detected, terminal.as_mut())?;
        let (text, mut outcome) = init::compose(&answers, &path)?;
        let network =
            runtime.block_on(async { Surveyor::open()?.survey(std::iter::empty()).await });
        let network = network.context("cannot look at this machine")?;
        if let Some(config) = &outcome.config {
            // The rest is for `doctor`: the tunnel may not be up yet.
            outcome.report.extend(claim::check(config, &network));
        }
        init::write(&path, &text, self.force)?;
        if outcome.report.warnings() > 0 {
            tell(&outcome.report.render(globals.color(&stderr())))?;
        }
        let option = if path == Path::new(config::DEFAULT_PATH) {
            String::new()
        } else {
            format!(" --config {}", path.display())
        };
        show(&format!("wrote {}\n\nnext:\n", path.display()))?;
        let steps = [
            (
                "what is still wrong, and what mends it",
                format!("forwarder{option} doctor"),
            ),
            (
                "a try that detaches by itself, unless `forwarder confirm` arrives",
                format!("forwarder{option} run --confirm 2m"),
            ),
            (
                "for good, if the package is installed",
                String::from("systemctl enable --now forwarder"),
            ),
        ];
        for (what, command) in steps {
            show(&format!("  # {what}\n  {command}\n"))?;
        }
        let node = match answers.client_address {
            ClientAddress::ProxyV2 => {
                "on the nodes: let their server expect PROXY protocol; the file says how"
            }
            ClientAddress::Transparent => {
                "on the nodes: route answers back through the tunnel, see docs/node-transparent.md"
            }
            ClientAddress::Masquerade => "on the nodes: nothing has to be done",
        };
        show(&format!("{node}\nin DNS: let the names point here\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
