//! The metrics page: what the maps hold, read when somebody asks.
//!
//! ```text
//! maps, registry ──snapshot──▶ Snapshot ──collect──▶ OpenMetrics text ──server──▶ Prometheus
//!                                  catalog (names, help) ──reference──▶ docs/metrics.md
//! ```
//!
//! Nothing is kept here: counters live in the kernel, so they go on over restarts of the daemon, and no
//! packet is slower for being counted.

pub mod catalog;
pub mod collect;
mod process;
pub mod pulse;
pub mod reference;
pub mod server;
pub mod snapshot;
