//! Why the daemon cannot start, or had to stop.

use thiserror::Error;

use super::stacked::Stacked;
use crate::dataplane::DataplaneError;
use crate::dataplane::bpf::maps::MapsError;
use crate::dataplane::bpf::pins::PinsError;
use crate::dataplane::flows::events::EventsError;
use crate::instance::lock::LockError;
use crate::link::survey::SurveyError;

/// Why the daemon cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Another one runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another instance has the same claims.
    #[error(transparent)]
    Stacked(#[from] Stacked),
    /// The kernel side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The network cannot be looked at.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// Changes of the network cannot be followed.
    #[error("cannot follow changes of the network")]
    Watch(#[source] std::io::Error),
    /// The event ring.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The tree of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Signals cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] std::io::Error),
    /// Nobody confirmed, and everything was removed.
    #[error("not confirmed in time: everything was detached, nothing is forwarded")]
    Unconfirmed,
    /// It was told to stop before somebody confirmed, and everything was removed.
    #[error("stopped before it was confirmed: everything was detached, nothing is forwarded")]
    Stopped,
    /// The time within which to confirm cannot be kept.
    #[error("cannot make sure that everything is removed unless it is confirmed")]
    Probation(#[source] std::io::Error),
    /// There is no runtime.
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
}

impl DaemonError {
    /// Whether the next start will fail for the same reason, unless somebody does something.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Stacked(_) => true,
            Self::Dataplane(error) => error.is_lasting(),
            _ => false,
        }
    }
}
