//! What can go wrong while a lab is built or used.

use std::path::PathBuf;
use std::time::Duration;

/// The result of everything in the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the lab itself, as opposed to a failed expectation of a test.
#[derive(thiserror::Error)]
pub enum Error {
    /// Network namespaces, raw sockets and BPF need root.
    #[error("the lab needs root (network namespaces, raw sockets, BPF): run it with sudo")]
    NotRoot,

    /// A program is neither in the project's cache folder nor on the path.
    #[error("{program} was not found in {} nor on PATH: run `cargo xtask setup`", cache.display())]
    ProgramMissing {
        /// The program's name.
        program: String,
        /// The cache folder that was looked into first.
        cache: PathBuf,
    },

    /// A program ran and failed.
    #[error("`{command}` failed with {status}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status, in words.
        status: String,
        /// The last part of what it wrote on standard output and standard error.
        output: String,
    },

    /// A system call or a file operation failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },

    /// Something did not come true in time.
    #[error("{what} did not happen within {waited:?}{}", if detail.is_empty() { String::new() } else { format!(":\n{detail}") })]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// What was seen instead (a log, for instance).
        detail: String,
    },

    /// A daemon ended although it should have kept running.
    #[error("{program} ended with {status}; its log:\n{log}")]
    Died {
        /// The program's name.
        program: String,
        /// Its exit status, in words.
        status: String,
        /// Its log.
        log: String,
    },

    /// A program's answer could not be understood.
    #[error("{what} could not be understood: {text}")]
    Unintelligible {
        /// What was read.
        what: String,
        /// The text that was read.
        text: String,
    },

    /// A measurement would mean nothing, or cannot be made here.
    #[error("{what}: {why}")]
    Unmeasured {
        /// What was to be measured, or with whom.
        what: String,
        /// Why not.
        why: String,
    },

    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),

    /// A TLS configuration could not be made.
    #[error("a TLS configuration could not be made")]
    Tls(#[from] rustls::Error),
}

impl Error {
    /// The error and all that caused it, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}

/// As [`Error::chain`], so that a test which fails with an error says why in words.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.chain())
    }
}

/// Names what was being done when an I/O error occurred.
pub trait Context<T> {
    /// Turns an I/O error into [`Error::Io`].
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}
