//! Targets of the daemon; `forwarder/tests/replay.rs` takes them in as well.

mod config;
mod control;

pub use config::config;
pub use control::control;
