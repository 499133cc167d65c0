//! Refusals that are in force because of health.

use std::collections::BTreeSet;

use tokio::time::Instant;

/// Pools whose new connections are refused because no node works.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Pools.
    pub refused: BTreeSet<String>,
    /// When the refusals were last renewed; `None` before the first time.
    pub renewed: Option<Instant>,
}
