//! One look at the daemon, through its control socket.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::control::client::{Client, ClientError, target};
use crate::dataplane::flows::open::OpenFlow;
use crate::status::Status;

/// Open flows that are asked for: those that have carried most. A full table would take seconds to tell.
const FLOWS: &str = "300";

/// What the daemon said, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: f64,
    /// Counters and health.
    pub status: Status,
    /// The flows that have carried most bytes.
    pub flows: Vec<OpenFlow>,
}

#[derive(Deserialize)]
struct Flows {
    flows: Vec<OpenFlow>,
}

impl Sample {
    /// Asks the daemon.
    pub fn take(client: &Client) -> Result<Self, ClientError> {
        let status = client.ask("GET", "/v1/status", None)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let flows = target("/v1/flows", &[("busiest", Some(FLOWS))]);
        let Flows { flows } = client.ask("GET", &flows, None)?;
        Ok(Self {
            time: now.unwrap_or_default().as_secs_f64(),
            status,
            flows,
        })
    }

    /// When it was taken.
    pub fn moment(&self) -> SystemTime {
        let since = Duration::try_from_secs_f64(self.time).unwrap_or_default();
        UNIX_EPOCH + since
    }
}
