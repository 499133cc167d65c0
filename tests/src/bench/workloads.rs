//! One file for each kind of work.

pub mod bulk;
pub mod connections;
pub mod floods;
pub mod handshakes;
pub mod memory;
pub mod names;
pub mod refusals;
pub mod reload;
pub mod requests;
pub mod routes;
pub mod start;
pub mod wrk;

use crate::error::{Error, Result};

use super::load::client::Count;
use super::workload::Outcome;

/// Fails where nothing was done or too much went wrong: a figure would mean nothing.
fn sound(count: &Count) -> Result<()> {
    let all = count.done + count.failed;
    if count.done > 0 && count.failed * 100 <= all {
        return Ok(());
    }
    let reason = || "none was finished".to_owned();
    Err(Error::Unmeasured {
        what: format!("{} of {all} exchanges failed", count.failed),
        why: count.first_error.clone().unwrap_or_else(reason),
    })
}

/// The figures of exchanges that are counted one by one.
fn exchanges(count: &Count) -> Result<Outcome> {
    sound(count)?;
    Ok(Outcome::new(
        &count.usage,
        vec![
            ("cpu", count.cost()),
            ("rate", count.rate()),
            ("p50", count.quantile(0.5)),
            ("p99", count.quantile(0.99)),
            ("p999", count.quantile(0.999)),
            ("failed", count.failed as f64),
        ],
    )
    .noted(count.first_error.clone()))
}
