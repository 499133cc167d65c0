//! Log lines: for people, as JSON, or to the systemd journal.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, on standard error.
    Human {
        /// With colors.
        color: bool,
    },
    /// One JSON object a line, on standard error.
    Json,
    /// To the systemd journal, each field its own.
    Journald,
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("`{filter}` does not say what to log; `info` or `warn,forwarder::link=debug` would")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// No journal.
    #[error("cannot reach the systemd journal")]
    Journald(#[source] std::io::Error),
    /// There is a log already.
    #[error("logging was set up twice")]
    Twice(#[from] TryInitError),
}

impl Format {
    /// What fits the place: the journal if standard error leads there, lines for people on a terminal, JSON
    /// for everything that collects logs.
    pub fn detect() -> Self {
        if is_journal() {
            Self::Journald
        } else if std::io::stderr().is_terminal() {
            let color = std::env::var_os("NO_COLOR").is_none();
            Self::Human { color }
        } else {
            Self::Json
        }
    }
}

/// Whether standard error leads to the journal: `JOURNAL_STREAM` names its device and inode, and is also
/// inherited by processes whose standard error leads elsewhere (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let own = std::fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

/// Libraries that would drown our own lines at `debug`; a filter that names them wins.
const QUIET: &str = "aya=info,aya_obj=info,netlink_proto=info,netlink_packet_route=info";

/// Sets logging up for the process.
pub fn init(format: Format, filter: &str) -> Result<(), LoggingError> {
    let whole = format!("{QUIET},{filter}");
    let filter = EnvFilter::try_new(whole).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    // Without words about words: whoever read standard error may have gone, and those would be written there too.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let layer = match format {
        Format::Human { color } => lines.with_target(false).with_ansi(color).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Journald => tracing_journald::layer()
            .map_err(LoggingError::Journald)?
            .with_syslog_identifier(String::from("forwarder"))
            .with_field_prefix(Some(String::from("F")))
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    Ok(())
}
