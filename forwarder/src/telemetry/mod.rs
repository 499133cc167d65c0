//! What is told of the work: to Prometheus, to the flow log, to whoever follows events.
//!
//! - [`counters`]: what the daemon counts itself.
//! - [`events`]: hands each event to counters, flow log and followers.
//! - [`flow_event`]: an event, in words.
//! - [`flow_log`]: a line for each flow and refused connection.
//! - [`country`], [`geoip`]: where clients are.
//! - [`metrics`]: the metrics page.
//! - [`readiness`]: what `/healthz` and `/readyz` answer.

pub mod counters;
pub mod country;
pub mod events;
pub mod flow_event;
pub mod flow_log;
pub mod geoip;
pub mod metrics;
pub mod readiness;
