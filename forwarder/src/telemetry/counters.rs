//! What the daemon itself counts: events, lines of the flow log, countries, reloads.
//!
//! Everything else on the metrics page is counted by the kernel programs and outlives the daemon; this
//! begins at zero with each start. The daemon's loop, the flow log's writer and those who follow events
//! count; the metrics page reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::country::{CODES, Country};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events taken from the ring, and flows that were swept.
    pub events: Events,
    /// Events that followers of the control socket were too slow for.
    pub missed_by_followers: Count,
    /// The flow log.
    pub flow_log: FlowLog,
    /// Flows that nodes accepted, by the client's country.
    pub opened: Countries,
    /// Connections refused, by the client's country.
    pub refused: Countries,
    /// Times a program was found detached by somebody else, and attached again.
    pub hooks_lost: Count,
    /// Attempts to put another configuration to use.
    pub reloads: Reloads,
    /// When each GeoIP database that is in use was built, seconds since 1970.
    databases: Mutex<BTreeMap<&'static str, u64>>,
    configuration: Mutex<Configuration>,
    /// When flows were swept at last, ms since 1970.
    swept: AtomicU64,
    /// Nodes whose check is overdue.
    overdue: AtomicU64,
}

/// By kind.
#[derive(Debug, Default)]
pub struct Events {
    /// A node accepted a flow.
    pub opened: Count,
    /// A flow ended.
    pub closed: Count,
    /// A connection was refused.
    pub refused: Count,
}

/// Lines of the flow log.
#[derive(Debug, Default)]
pub struct FlowLog {
    /// Written.
    pub written: Count,
    /// Not written: there were more than `rate` allows.
    pub beyond_rate: Count,
    /// Not written: the destination is slower than they come.
    pub beyond_backlog: Count,
    /// Not written: the destination cannot be written to.
    pub failed: Count,
}

/// By result.
#[derive(Debug, Default)]
pub struct Reloads {
    /// The new configuration is in use.
    pub applied: Count,
    /// The former one stayed in use.
    pub refused: Count,
}

/// The configuration in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Configuration {
    /// The first 48 bits of the SHA-256 of the text it was read from.
    pub digest: u64,
    /// When it was read, seconds since 1970.
    pub since: f64,
    /// Whether the last attempt to replace it succeeded.
    pub succeeded: bool,
    /// Edits at run time that the text does not hold.
    pub edits: u64,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            digest: 0,
            since: 0.0,
            succeeded: true,
            edits: 0,
        }
    }
}

impl Tally {
    /// A configuration, read just now, is in use. The one at the start counts as no reload.
    pub fn configured(&self, digest: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0.0, |since| since.as_secs_f64());
        with(&self.configuration, |own| {
            *own = Configuration {
                digest,
                since,
                succeeded: true,
                ..*own
            };
        });
    }

    /// A reload ended, well or not.
    pub fn reloaded(&self, succeeded: bool) {
        match succeeded {
            true => self.reloads.applied.add(1),
            false => self.reloads.refused.add(1),
        }
        with(&self.configuration, |own| own.succeeded = succeeded);
    }

    /// There are so many edits at run time, and the text they are edits of has this digest.
    pub fn edited(&self, digest: u64, edits: usize) {
        with(&self.configuration, |own| {
            own.digest = digest;
            own.edits = edits as u64;
        });
    }

    /// The configuration in use.
    pub fn configuration(&self) -> Configuration {
        with(&self.configuration, |own| *own)
    }

    /// Flows were swept just now.
    pub fn swept(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis() as u64);
        self.swept.store(now, Ordering::Relaxed);
    }

    /// When flows were swept at last, seconds since 1970.
    pub fn last_sweep(&self) -> f64 {
        self.swept.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// So many nodes should have been checked long since.
    pub fn set_overdue(&self, nodes: usize) {
        self.overdue.store(nodes as u64, Ordering::Relaxed);
    }

    /// Nodes that should have been checked long since.
    pub fn overdue(&self) -> u64 {
        self.overdue.load(Ordering::Relaxed)
    }

    /// These GeoIP databases are in use, each with when it was built, seconds since 1970.
    pub fn databases_loaded(&self, built: BTreeMap<&'static str, u64>) {
        with(&self.databases, |own| *own = built);
    }

    /// The GeoIP databases in use.
    pub fn databases(&self) -> BTreeMap<&'static str, u64> {
        with(&self.databases, |own| own.clone())
    }
}

fn with<T, R>(inner: &Mutex<T>, use_it: impl FnOnce(&mut T) -> R) -> R {
    // Nothing can be left half done by a panic in here.
    use_it(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Counts by country.
#[derive(Debug)]
pub struct Countries {
    known: Vec<Count>,
    unknown: Count,
}

impl Default for Countries {
    fn default() -> Self {
        Self {
            known: (0..CODES).map(|_| Count::default()).collect(),
            unknown: Count::default(),
        }
    }
}

impl Countries {
    /// Counts one.
    pub fn count(&self, country: Option<Country>) {
        let own = country.and_then(|country| self.known.get(country.index()));
        own.unwrap_or(&self.unknown).add(1);
    }

    /// Countries that were counted, `unknown` last.
    pub fn all(&self) -> Vec<(String, u64)> {
        let known = self.known.iter().enumerate();
        let known = known.map(|(at, count)| (Country::at(at).to_string(), count.value()));
        let unknown = (String::from("unknown"), self.unknown.value());
        let all = known.chain([unknown]);
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_counted_apart() {
        let countries = Countries::default();
        assert!(countries.all().is_empty());
        for code in ["ZZ", "DE", "AA", "DE"] {
            countries.count(Country::from_code(code));
        }
        countries.count(None);
        let all = countries.all();
        let all: Vec<_> = all.iter().map(|(code, n)| (code.as_str(), *n)).collect();
        assert_eq!(all, [("AA", 1), ("DE", 2), ("ZZ", 1), ("unknown", 1)]);
    }

    #[test]
    fn a_refused_reload_leaves_the_configuration() {
        let tally = Tally::default();
        tally.configured(7);
        let before = tally.configuration();
        assert!(before.since > 1e9 && before.succeeded);
        tally.reloaded(false);
        let after = tally.configuration();
        assert_eq!((after.digest, after.since), (7, before.since));
        assert!(!after.succeeded);
        tally.edited(7, 2);
        tally.configured(8);
        tally.reloaded(true);
        assert!(tally.configuration().succeeded);
        assert_eq!(
            tally.configuration().edits,
            2,
            "until they are told to be gone"
        );
        assert_eq!(
            (tally.reloads.applied.value(), tally.reloads.refused.value()),
            (1, 1)
        );
    }
}
