//! What is known about the health of nodes, as a file beside the registry: `status` reads it, and a daemon that
//! starts goes on from it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::{Cause, NodeState};
use super::tunnel::TunnelReport;
use super::unix_time::{from_unix, some_from_unix, some_to_unix, to_unix};
use crate::config::model::NodeState as Operator;
use crate::instance::files::replace;

/// Every node of every pool, the pools, and what leads to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// In the order of the configuration.
    pub nodes: Vec<NodeReport>,
    /// In the order of the configuration.
    pub pools: Vec<PoolReport>,
    /// In the order of the configuration.
    pub tunnels: Vec<TunnelReport>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: usize,
    /// Those that work and that their operator lets take new connections.
    pub available: usize,
    /// Whether new connections are refused because no node works (`when_empty = "refuse"`).
    pub refusing: bool,
}

/// A node of a pool. Times are whole seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Whether its operator lets it take new connections.
    #[serde(default)]
    pub operator: Operator,
    /// Whether it works.
    pub state: State,
    /// Who says that it does not.
    pub cause: Option<Cause>,
    /// Its share in percent of what the configuration says: below 100 while it comes back.
    pub share: u32,
    /// Since when it is in that state.
    #[serde(serialize_with = "to_unix", deserialize_with = "from_unix")]
    pub since: SystemTime,
    /// The last check.
    pub last: Option<LastCheck>,
    /// When its certificate expires.
    #[serde(serialize_with = "some_to_unix", deserialize_with = "some_from_unix")]
    pub certificate_expires: Option<SystemTime>,
    /// Whether its checks succeed while its answers to clients do not come back (`transparent` alone).
    #[serde(default)]
    pub answers_lost: bool,
    /// What was counted, by former daemons too.
    #[serde(default)]
    pub counts: Counts,
}

/// What is counted about a node of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Checks that succeeded.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Times it came back.
    pub ups: u64,
    /// Times it was taken out.
    pub downs: u64,
}

/// Whether a node works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its checks succeed.
    Up,
    /// It does not work.
    Down,
    /// Its first check has not ended.
    Unchecked,
    /// Nothing checks it, and clients' connections say nothing against it.
    Unwatched,
}

/// A check that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When.
    #[serde(serialize_with = "to_unix", deserialize_with = "from_unix")]
    pub at: SystemTime,
    /// How long it took, ms.
    #[serde(rename = "ms", serialize_with = "to_ms", deserialize_with = "from_ms")]
    pub took: Duration,
    /// Why it failed; `null` if it succeeded.
    pub error: Option<String>,
}

impl State {
    /// Of a node with or without checks, of which one may have ended.
    pub fn of(node: &NodeState, checks: bool, checked: bool) -> Self {
        match (node.down(), checks, checked) {
            (Some(_), _, _) => Self::Down,
            (None, true, true) => Self::Up,
            (None, true, false) => Self::Unchecked,
            (None, false, _) => Self::Unwatched,
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Unchecked, Self::Unwatched];

    /// The word in JSON and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Unwatched => "unwatched",
        }
    }
}

impl NodeReport {
    /// Whether it does not work.
    pub fn is_down(&self) -> bool {
        self.state == State::Down
    }

    /// Since when it is in its state, seen at `now`.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.since).unwrap_or_default()
    }
}

impl Report {
    /// Reads the file; `None` if there is none that can be read: what it says is found out again.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Replaces the file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec(self)?).map(drop)
    }

    /// A node of a pool.
    pub fn of(&self, pool: &str, address: SocketAddr) -> Option<&NodeReport> {
        let mut nodes = self.nodes.iter();
        nodes.find(|own| own.pool == pool && own.address == address)
    }
}

fn to_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

fn from_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let ms = f64::deserialize(deserializer)?;
    Ok(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_is_written() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let node = NodeReport {
            pool: String::from("k3s"),
            name: String::from("a"),
            address: "10.0.0.2:443".parse().unwrap(),
            operator: Operator::Drain,
            state: State::Down,
            cause: Some(Cause::Clients),
            share: 0,
            since: at(1_700_000_000),
            last: Some(LastCheck {
                at: at(1_700_000_009),
                took: Duration::from_micros(1_234),
                error: Some(String::from("HTTP status 503")),
            }),
            certificate_expires: Some(at(1_800_000_000)),
            answers_lost: true,
            counts: Counts {
                passed: 1,
                failed: 2,
                ups: 3,
                downs: 4,
            },
        };
        let pool = PoolReport {
            name: String::from("k3s"),
            nodes: 1,
            available: 0,
            refusing: true,
        };
        let report = Report {
            nodes: vec![node],
            pools: vec![pool],
            tunnels: vec![crate::health::tunnel::tests::report()],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.json");
        assert_eq!(Report::load(&path), None);
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path), Some(report));
        // As a daemon of an older version left it.
        fs::write(&path, r#"{"nodes":[]}"#).unwrap();
        assert_eq!(Report::load(&path), Some(Report::default()));
        fs::write(&path, "{").unwrap();
        assert_eq!(Report::load(&path), None, "damaged");
    }
}
