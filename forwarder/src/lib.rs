//! The daemon and command line of `forwarder`.
//!
//! - [`instance`]: where one instance keeps its things, and its lock.
//! - [`config`]: the file, validated, each finding with its place and its fix.
//! - [`link`]: this machine's interfaces, addresses and routes.
//! - [`dataplane`]: programs, maps, and what is attached where.
//! - [`health`]: which nodes work.
//! - [`xdp`]: when the XDP filter is attached.
//! - [`telemetry`]: counters, events, flow log, metrics.
//! - [`reconcile`]: keeps the data plane in step with configuration, network and health.
//! - [`control`]: what others may ask of the daemon while it runs, by a socket.
//! - [`status`]: what all of it amounts to, read from the maps.
//! - [`explain`]: which way a connection would take, and why.
//! - [`doctor`]: what stands between a client and a node, looked at piece by piece.
//! - [`init`]: a first configuration.
//! - [`top`]: the live view of all of it on a terminal.
//! - [`logging`]: log lines.
//! - [`units`]: quantities for people.

pub mod config;
pub mod control;
pub mod dataplane;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod init;
pub mod instance;
pub mod link;
pub mod logging;
pub mod reconcile;
pub mod status;
pub mod telemetry;
pub mod top;
pub mod units;
pub mod xdp;
