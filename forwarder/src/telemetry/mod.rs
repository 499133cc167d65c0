//! What is told of the work: to Prometheus, to the flow log, to whoever follows events.
//!
//! - [`counters`]: what the daemon counts itself.
//! - [`events`]: hands each event to counters, flow log and followers.
//! - [`flow_log`]: a line for each flow and refused connection.
//! - [`geoip`]: where clients are.
//! - [`metrics`]: the metrics page.
//! - [`readiness`]: what `/healthz` and `/readyz` answer.

pub mod counters;
pub mod events;
pub mod flow_log;
pub mod geoip;
pub mod metrics;
pub mod readiness;
