//! The configuration file: read, validated, each finding with its place and its fix.
//!
//! ```text
//! text ──shape──▶ raw ──resolve──▶ model ──surroundings──▶ warnings about this machine
//!        (TOML, keys, types)  (ranges, references)   (interfaces, routes)
//! ```
//!
//! Nothing here touches the machine; what is known about it comes in as a
//! [`Network`](crate::link::Network).

pub mod diagnostic;
pub mod difference;
pub mod edit;
pub mod model;
pub mod own_sockets;
pub mod persist;
pub mod raw;
mod resolve;
pub mod schema;
pub mod shape;
pub mod suggest;
pub mod surroundings;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use self::diagnostic::Diagnostic;
pub use self::diagnostic::Report;
pub use self::model::Config;
pub use self::resolve::DEFAULT_BPFFS;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/forwarder/forwarder.toml";

/// Why there is nothing to validate.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A configuration, if there were no errors, and all findings.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration; `None` if the report holds an error.
    pub config: Option<Config>,
    /// All findings.
    pub report: Report,
}

/// Reads and validates the file at `path`.
pub fn load(path: &Path) -> Result<Outcome, ReadError> {
    let bytes = std::fs::read(path).map_err(|source| ReadError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => parse(path, text),
        Err(error) => not_utf8(path, &error),
    })
}

/// Validates `text`, which stands in the file at `path`.
pub fn parse(path: &Path, text: impl Into<String>) -> Outcome {
    let mut report = Report::new(path, text);
    let shape = shape::read(&report.text);
    let config = if shape.is_toml {
        let (mut config, findings) = resolve::resolve(&shape);
        report.extend(findings);
        if let Some(config) = &mut config {
            config.digest = digest(&report.text);
        }
        config
    } else {
        None
    };
    report.extend(shape.diagnostics);
    Outcome { config, report }
}

/// The first 48 bits of the SHA-256 of `text`: `sha256sum FILE | cut -c 1-12`. A metric can hold so many
/// without rounding.
fn digest(text: &str) -> u64 {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter()
        .take(6)
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Outcome {
    let at = error.utf8_error().valid_up_to();
    let mut report = Report::new(path, String::from_utf8_lossy(error.as_bytes()));
    let finding = Diagnostic::error("not-utf8", at..at + 1, "the file is not UTF-8 text")
        .help("save it as UTF-8");
    report.extend([finding]);
    Outcome {
        config: None,
        report,
    }
}
