//! Programs of an earlier layout of the maps, attached behind these while open flows are carried over.
//!
//! What these programs do not know is theirs: they have the flows that are not here yet, and the hellos that were
//! begun with them. New connections are never theirs.

use crate::maps::SETTINGS;

/// Whether there are any.
#[inline(always)]
pub fn is_behind() -> bool {
    SETTINGS
        .get(0)
        .is_some_and(|settings| settings.predecessor != 0)
}
