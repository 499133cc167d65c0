//! Options of every subcommand.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use forwarder::config::{self, Config};
use forwarder::instance::paths::{DEFAULT_BPFFS, DEFAULT_RUN_DIR, Paths};
use forwarder::logging::{self, Format};

/// What `--config` calls standard input.
pub const STANDARD_INPUT: &str = "-";

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

impl Globals {
    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where the instance keeps its things: `--bpffs`, or what the configuration says, or the default.
    /// Without a configuration at hand the file is read if it can be; a broken one is no obstacle to
    /// looking and cleaning up.
    pub fn place(&self, config: Option<&Config>) -> Paths {
        let read = || config::load(&self.config).ok()?.config;
        let bpffs = self.bpffs.clone().unwrap_or_else(|| match config {
            Some(config) => config.entrance.bpffs.clone(),
            None => read().map_or_else(
                || PathBuf::from(DEFAULT_BPFFS),
                |config| config.entrance.bpffs,
            ),
        });
        Paths::new(&bpffs, &self.run_dir)
    }

    /// Begins to write log lines.
    pub fn init_logging(&self) -> Result<(), logging::LoggingError> {
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
    pub fn color(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}
