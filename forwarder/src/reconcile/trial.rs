//! A reload that is to be confirmed, and what comes back otherwise.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::probation::Deadline;
use crate::config::lasting::Kept;
use crate::config::{Config, Sources};

/// What is to come back.
#[derive(Debug)]
pub struct Trial {
    /// When.
    pub deadline: Instant,
    /// What comes back.
    pub former: Former,
}

/// A configuration, and what belongs to it.
#[derive(Clone, Debug)]
pub struct Former {
    /// With edits.
    pub config: Arc<Config>,
    /// Without.
    pub filed: Arc<Config>,
    /// The files.
    pub sources: Sources,
    /// The edits.
    pub edits: Vec<Kept>,
}

/// The file.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// When the former one comes back.
    pub deadline: Deadline,
    /// The fingerprint of what was not confirmed.
    pub unconfirmed: String,
    /// The files to come back to.
    pub former: Sources,
    /// The edits to come back to.
    pub edits: Vec<Kept>,
}

/// What a reload would have to come back to.
#[derive(Debug)]
pub struct Before(pub Former);
