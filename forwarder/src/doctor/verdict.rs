//! How bad a finding is.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be looked at, or it was not asked for.
    Skipped,
    /// It works, though likely not as meant.
    Warning,
    /// Connections fail, or something private is open.
    Failure,
}

impl Verdict {
    /// The word in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }

    /// `ESC[…m` of its color.
    pub const fn color(self) -> &'static str {
        match self {
            Self::Ok => "\u{1b}[32m",
            Self::Skipped => "\u{1b}[2m",
            Self::Warning => "\u{1b}[33m",
            Self::Failure => "\u{1b}[1;31m",
        }
    }
}
