//! Why a command was not carried out.

use thiserror::Error;
use tokio::task::JoinError;

use super::error::DaemonError;
use crate::config::edit::EditError;
use crate::config::persist::PersistError;
use crate::config::{ReadError, Report};
use crate::dataplane::flows::sweep::SweepError;
use crate::instance::error::chain;

/// Why.
#[derive(Debug, Error)]
pub enum Refused {
    /// The daemon ends.
    #[error("the daemon is stopping")]
    Stopping,
    /// The configuration files cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
    /// They have errors.
    #[error("not reloaded: {}", .0.summary())]
    Invalid(Box<Report>),
    /// The configuration in use cannot be changed like that.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The files cannot.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The change is in use, and not in the files.
    #[error("in use, but not written")]
    NotWritten(#[source] PersistError),
    /// The kernel side did not take it.
    #[error("{source}")]
    NotApplied {
        /// Why.
        source: DaemonError,
        /// Whether the maps hold the former configuration again.
        restored: bool,
    },
    /// Flows cannot be ended.
    #[error(transparent)]
    Flows(#[from] SweepError),
    /// Work on another thread was lost.
    #[error(transparent)]
    Lost(#[from] JoinError),
}

impl Refused {
    /// Why, with all causes, in one line.
    pub fn message(&self) -> String {
        chain(self)
    }

    /// What to do about it.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Stopping => Some("`forwarder run` starts it again"),
            Self::Unreadable(_) | Self::NotApplied { restored: true, .. } => {
                Some("the running configuration stays in use")
            }
            Self::Invalid(_) => {
                Some("the running configuration stays in use; mend the file and reload again")
            }
            Self::NotApplied {
                restored: false, ..
            } => Some(
                "the running configuration could not be written back whole either; that is tried again within a minute",
            ),
            Self::Edit(_)
            | Self::Persist(_)
            | Self::NotWritten(_)
            | Self::Flows(_)
            | Self::Lost(_) => None,
        }
    }
}
