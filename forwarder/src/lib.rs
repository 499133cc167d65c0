//! The daemon and command line of `forwarder`.
//!
//! - [`config`]: the file, validated, each finding with its place and its fix.
//! - [`link`]: this machine's interfaces, addresses and routes.
//! - [`dataplane`]: programs, maps, and what is attached where.
//! - [`daemon`]: keeps the last in step with the first two.
//! - [`control`]: what others may ask of the daemon while it runs, by a socket.
//! - [`doctor`]: what stands between a client and a node, looked at piece by piece.
//! - [`explain`]: which way a connection would take, and why.
//! - [`files`]: how files of the run directory are replaced.
//! - [`flow_log`]: a line for each flow.
//! - [`geoip`]: where clients are.
//! - [`health`]: which nodes work.
//! - [`init`]: a first configuration.
//! - [`status`]: what all of it amounts to, read from the maps.
//! - [`metrics`]: the same for Prometheus.
//! - [`logging`]: log lines.
//! - [`top`]: the live view of all of it on a terminal.
//! - [`units`]: quantities for people.
//! - [`object`]: the kernel programs.

pub mod armour;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod explain;
pub mod files;
pub mod flow_log;
pub mod geoip;
pub mod health;
pub mod init;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod object;
pub mod status;
pub mod top;
pub mod units;
