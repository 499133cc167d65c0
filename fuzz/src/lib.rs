//! What must hold for any bytes, one function per fuzz target.
//!
//! The same functions run over the kept inputs, and over a few thousand changed ones, in `cargo test`: see
//! `forwarder-common/tests/replay.rs` and `forwarder/tests/replay.rs`.

#[cfg(feature = "daemon")]
mod daemon;
mod pure;

#[cfg(feature = "daemon")]
pub use daemon::{config, control};
pub use pure::{flow, hello, name, options, proxy, talk};
