//! What a configuration needs, and why there is none.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::model::ClientAddress;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum InitError {
    /// Neither told nor visible, and nobody to ask.
    #[error("{flag} is missing: {what}{hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// What it tells.
        what: &'static str,
        /// What this machine shows.
        hint: String,
    },
    /// Told, and wrong.
    #[error("{flag} {value}: {why}")]
    Bad {
        /// The flag.
        flag: &'static str,
        /// What was told.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The terminal went away.
    #[error("there was no answer")]
    Unanswered(#[source] Option<io::Error>),
    /// What would be written has errors; this is what `check` says of it.
    #[error("what would be written has errors; nothing was written\n{0}")]
    Invalid(String),
    /// There is a file already.
    #[error("{} exists; --force replaces it, --output writes elsewhere", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything a configuration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Interfaces that face the internet.
    pub public: Vec<String>,
    /// Interfaces that lead to nodes.
    pub tunnels: Vec<String>,
    /// The listener's port.
    pub port: u16,
    /// The pool's name.
    pub pool: String,
    /// Its nodes.
    pub nodes: Vec<SocketAddr>,
    /// How they learn clients' addresses.
    pub client_address: ClientAddress,
    /// The listed names.
    pub names: Vec<String>,
}
