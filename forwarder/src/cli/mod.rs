//! The command line: raw arguments here, one file per subcommand beside.

mod check;
mod completions;
mod confirm;
mod doctor;
mod explain;
pub mod failure;
mod flow;
mod guard;
mod init;
mod listener;
mod man;
mod node;
mod output;
mod pool;
mod reload;
mod remote;
mod route;
mod run;
mod status;
mod top;
mod unload;
mod watch;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use forwarder::config::{self, Config};
use forwarder::instance::paths::{DEFAULT_RUN_DIR, Place};
use forwarder::logging::{self, Format};

/// What `--config` calls standard input.
const STANDARD_INPUT: &str = "-";

/// What `forwarder --help` ends with.
const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  it did not work; the reason is on standard error
  2  the command line is wrong

Documentation: docs/config.md describes every key of the configuration file, docs/operate.md how to run
and change the forwarder, docs/control.md its control socket.";

/// Routes TLS connections to the nodes of a home cluster by server name, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "forwarder", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Args, Debug)]
pub struct Globals {
    /// The configuration file; `conf.d/*.toml` beside it belong to it. A directory means `forwarder.toml` in it;
    /// `check` takes `-` for standard input.
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH, env = "FORWARDER_CONFIG")]
    config: PathBuf,
    /// Where programs, maps and links are pinned; wins over `bpffs` in the configuration
    /// [default: /sys/fs/bpf/forwarder].
    #[arg(long, global = true, value_name = "DIR", env = "FORWARDER_BPFFS")]
    bpffs: Option<PathBuf>,
    /// Where locks and numbers are kept.
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN_DIR, env = "FORWARDER_RUN_DIR")]
    run_dir: PathBuf,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, also per module (`info,forwarder::link=debug`).
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info",
        env = "FORWARDER_LOG"
    )]
    log: String,
    /// Whether output has colors.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// The journal under systemd, lines for people on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
    /// The systemd journal.
    Journald,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Status(status::ShowStatus),
    Reload(reload::Reload),
    Route(route::Route),
    Node(node::Node),
    Pool(pool::Pool),
    Listener(listener::Listener),
    Flow(flow::Flow),
    Explain(explain::Explain),
    Watch(watch::Watch),
    Top(top::Top),
    Confirm(confirm::Confirm),
    Unload(unload::Unload),
    #[command(hide = true)]
    Guard(guard::Guard),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

impl Cli {
    /// Does what was asked for.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let reads = matches!(self.command, Command::Check(_));
        if self.globals.config == Path::new(STANDARD_INPUT) && !reads {
            let why = "`--config -`: only `forwarder check` reads the configuration from standard input; name a file";
            Self::command()
                .error(ErrorKind::ValueValidation, why)
                .exit();
        }
        match self.command {
            Command::Init(init) => init.execute(&self.globals),
            Command::Run(run) => run.execute(&self.globals),
            Command::Check(check) => check.execute(&self.globals),
            Command::Doctor(doctor) => doctor.execute(&self.globals),
            Command::Status(status) => status.execute(&self.globals),
            Command::Reload(reload) => reload.execute(&self.globals),
            Command::Route(route) => route.execute(&self.globals),
            Command::Node(node) => node.execute(&self.globals),
            Command::Pool(pool) => pool.execute(&self.globals),
            Command::Listener(listener) => listener.execute(&self.globals),
            Command::Flow(flow) => flow.execute(&self.globals),
            Command::Explain(explain) => explain.execute(&self.globals),
            Command::Watch(watch) => watch.execute(&self.globals),
            Command::Top(top) => top.execute(&self.globals),
            Command::Confirm(confirm) => confirm.execute(&self.globals),
            Command::Unload(unload) => unload.execute(&self.globals),
            Command::Guard(guard) => guard.execute(&self.globals),
            Command::Completions(completions) => completions.execute(),
            Command::Man(man) => man.execute(),
        }
    }
}

impl Globals {
    /// The configuration file.
    fn config(&self) -> &Path {
        &self.config
    }

    /// Where the instance keeps its things: `--bpffs`, or what the configuration says, or the default.
    /// Without a configuration at hand the file is read if it can be; a broken one is no obstacle to
    /// looking and cleaning up.
    fn place(&self, config: Option<&Config>) -> Place {
        let read = || config::load(&self.config).ok()?.config;
        let bpffs = self.bpffs.clone().unwrap_or_else(|| match config {
            Some(config) => config.entrance.bpffs.clone(),
            None => read().map_or_else(
                || PathBuf::from(config::DEFAULT_BPFFS),
                |config| config.entrance.bpffs,
            ),
        });
        Place::new(&bpffs, &self.run_dir)
    }

    fn init_logging(&self) -> Result<(), logging::LoggingError> {
        let format = match self.log_format {
            LogFormat::Auto => Format::detect(),
            LogFormat::Human => Format::Human {
                color: self.color(&std::io::stderr()),
            },
            LogFormat::Json => Format::Json,
            LogFormat::Journald => Format::Journald,
        };
        logging::init(format, &self.log)
    }

    /// Whether text on `stream` has colors.
    fn color(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}
