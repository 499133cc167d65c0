//! What checkers need, and what they find.

use std::collections::HashMap;
use std::net::IpAddr;

use super::check::Outcome;

/// Interfaces that lead to nodes.
pub type Egresses = HashMap<IpAddr, String>;

/// The end of a check.
#[derive(Debug)]
pub struct Finding {
    /// The number of the checker.
    pub checker: u64,
    /// What came of it.
    pub outcome: Outcome,
}
