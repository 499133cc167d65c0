//! The metrics page: what the maps hold, read when somebody asks.
//!
//! ```text
//! maps, registry ──snapshot──▶ Snapshot ──collect──▶ OpenMetrics text ──server──▶ Prometheus
//!                       tally ─────────────┘ catalog (names, help) ──reference──▶ docs/metrics.md
//! ```
//!
//! Counters live in the kernel, so they go on over restarts of the daemon, and no packet is slower for being
//! counted. Only what the kernel cannot know is counted by the daemon ([`super::counters`]). What health knows stands in its
//! report, a file, and goes on too.

pub mod catalog;
pub mod collect;
mod health;
pub mod process;
pub mod reference;
pub mod server;
pub mod snapshot;
mod targets;
pub mod text_format;
