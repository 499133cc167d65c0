//! The daemon and command line of `forwarder`.
//!
//! - [`config`]: the file, validated, each finding with its place and its fix.
//! - [`link`]: this machine's interfaces, addresses and routes.

pub mod config;
pub mod dataplane;
pub mod link;
pub mod object;
