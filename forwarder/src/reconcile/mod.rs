//! `forwarder run`: keeps the kernel side in step with configuration and network until told to stop.
//!
//! One task owns the data plane and answers one thing at a time: the network changed, an event came, a timer
//! went off, a signal came. Stopping leaves programs attached and flows alive.
//!
//! - [`daemon`]: the loop, and what it holds.
//! - [`command`]: what may be asked of it; [`refused`]: why it does not do it.
//! - `reload`, `files`, `confirm`, `health`, `xdp`: what the loop does at each occasion.

pub mod command;
mod confirm;
mod daemon;
pub mod edits;
pub mod error;
mod file_watch;
mod files;
mod health;
pub mod probation;
mod refusals;
pub mod refused;
mod reload;
mod stacked;
mod timers;
mod trial;
mod xdp;

pub use self::daemon::{Daemon, Handle};
pub use self::error::DaemonError;
