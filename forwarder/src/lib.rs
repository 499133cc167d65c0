//! The daemon and command line of `forwarder`.
//!
//! - [`config`]: the file, validated, each finding with its place and its fix.
//! - [`link`]: this machine's interfaces, addresses and routes.
//! - [`dataplane`]: programs, maps, and what is attached where.
//! - [`daemon`]: keeps the last in step with the first two.
//! - [`status`]: what all of it amounts to, read from the maps.
//! - [`metrics`]: the same for Prometheus.
//! - [`logging`]: log lines.
//! - [`object`]: the kernel programs.

pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod object;
pub mod status;
