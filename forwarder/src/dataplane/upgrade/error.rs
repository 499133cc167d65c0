//! Why a change of layout does not go on.

use thiserror::Error;

use super::carry::CarryError;
use crate::dataplane::bpf::maps::MapsError;
use crate::dataplane::bpf::pins::PinsError;

/// Why a change of layout does not go on.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// Flows are not carried over.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] MapsError),
    /// The former tree cannot be changed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}
