//! Health of nodes: who works, and what share of new connections each gets.
//!
//! ```text
//! check (a task for each node) ──▶ state ──▶ weights ──▶ Maglev tables
//! NODE_STATS (clients' connections) ──▶ ┘  └──▶ report (a file, for `status`)
//! ```
//!
//! Nothing here is needed to forward: without a daemon the tables stay as they are, a node that does not
//! answer is passed over by the programs, and a refusal ends by itself ([`REFUSAL`]).

pub(crate) mod check;
mod checker;
pub(crate) mod expiry;
pub mod finding;
mod method;
pub(crate) mod proxy_header;
pub mod report;
pub mod return_path;
pub mod state;
pub(crate) mod tls;
pub mod tunnel;
mod unix_time;
pub mod words;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forwarder_common::abi::NodeStats;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use self::check::Outcome;
use self::checker::{Checker, Running};
use self::finding::{Egresses, Finding};
pub use self::method::checked_names;
use self::method::{Trusts, method};
use self::report::{Counts, LastCheck, NodeReport, PoolReport, Report};
use self::return_path::ReturnPath;
use self::state::{Cause, Change, Limits, NodeState};
use self::tunnel::TunnelReport;
use crate::config::Config;
use crate::config::model::{
    Check, ClientAddress, Node, NodeState as Operator, OnDown, Pool, WhenEmpty,
};
use crate::dataplane::plan::weights::Weights;

/// How often counters are looked at and shares follow the clock.
pub const POLL: Duration = Duration::from_millis(500);
/// How long a pool is refused without being renewed.
pub const REFUSAL: Duration = Duration::from_secs(15);
/// The weight of the heaviest node of a pool in which shares differ.
const FINEST: u32 = 1_000;

/// Findings that wait while the daemon is busy.
const WAITING: usize = 64;

/// A node whose open connections are to be reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its pool.
    pub pool: String,
    /// Its address.
    pub node: SocketAddr,
}

struct Watched {
    pool: String,
    name: String,
    node: SocketAddr,
    limits: Limits,
    operator: Operator,
    passive: bool,
    on_down: OnDown,
    state: NodeState,
    /// Whether answers to clients come back; of `transparent` pools with checks alone.
    return_path: Option<ReturnPath>,
    /// When the state began.
    since: SystemTime,
    last: Option<LastCheck>,
    expires: Option<SystemTime>,
    /// SYNs that were not answered, reset and accepted at the last look.
    counted: Option<[u64; 3]>,
    counts: Counts,
    /// Asks for a check at once.
    now: Arc<Notify>,
    /// What checks it; dropped, it ends.
    checker: Option<Running>,
}

/// Everything known about the health of nodes.
pub struct Health {
    watched: Vec<Watched>,
    findings: mpsc::Receiver<Finding>,
    /// Given to each checker.
    found: mpsc::Sender<Finding>,
    /// Checkers that were ever started.
    checkers: u64,
    trusts: Trusts,
    /// Absent until the network has been looked at: checks wait for it.
    ways: watch::Sender<Option<Egresses>>,
    /// What is known about the tunnels.
    tunnels: Vec<TunnelReport>,
    file: PathBuf,
    /// What stands in the file.
    saved: Option<Report>,
}

impl Health {
    /// Watches the nodes of a configuration. What a former daemon left in `file` holds until something newer
    /// is known. Needs a running tokio.
    pub fn new(config: &Config, file: PathBuf) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let left = Report::load(&file).unwrap_or_default();
        let (found, findings) = mpsc::channel(WAITING);
        let mut health = Self {
            watched: Vec::new(),
            findings,
            found,
            checkers: 0,
            trusts: Trusts::default(),
            ways: watch::Sender::default(),
            tunnels: left.tunnels.clone(),
            file,
            saved: None,
        };
        health.follow(config);
        for own in &mut health.watched {
            // What began in the future was written under another clock.
            let known = left.of(&own.pool, own.node);
            own.counts = known.map_or_else(Counts::default, |known| known.counts);
            let Some(known) = known.filter(|known| known.since <= wall) else {
                continue;
            };
            own.state = match known.state {
                report::State::Down => {
                    NodeState::left_down(known.cause.unwrap_or(Cause::Check), now)
                }
                report::State::Up => NodeState::left_up(),
                report::State::Unchecked | report::State::Unwatched => continue,
            };
            own.since = known.since;
            own.last.clone_from(&known.last);
            let shown = own.checker.as_ref().is_some_and(Running::sees_certificates);
            own.expires = known.certificate_expires.filter(|_| shown);
        }
        health
    }

    /// Watches the nodes of another configuration from now on. What is known about nodes that stay is kept; where
    /// they are checked as before, a check that is under way goes on.
    pub fn follow(&mut self, config: &Config) {
        let mut former: HashMap<(String, SocketAddr), Watched> = std::mem::take(&mut self.watched)
            .into_iter()
            .map(|own| ((own.pool.clone(), own.node), own))
            .collect();
        for (at, pool) in config.pools.iter().enumerate() {
            let checked = pool.health.check != Check::None;
            let method = checked.then(|| method(config, at, pool, &mut self.trusts));
            for node in &pool.nodes {
                let address = *node.address.get_ref();
                let former = former.remove(&(pool.name.get_ref().clone(), address));
                let mut own = watched(pool, node, former);
                // Dropped, the former checker ends.
                let running = own.checker.take();
                own.checker = method.as_ref().map(|method| match running {
                    Some(running) if running.is(method) => running,
                    _ => {
                        self.checkers += 1;
                        own.expires = None;
                        Running::start(Checker {
                            number: self.checkers,
                            node: address,
                            method: method.clone(),
                            ways: self.ways.subscribe(),
                            now: Arc::clone(&own.now),
                            to: self.found.clone(),
                        })
                    }
                });
                if own.checker.is_none() {
                    own.expires = None;
                }
                self.watched.push(own);
            }
        }
    }

    /// Says through which interfaces nodes are reached. Nodes without one fail their checks.
    pub fn set_ways(&self, ways: Egresses) {
        self.ways.send_replace(Some(ways));
    }

    /// The next check that ends. Does not end while there are none.
    pub async fn next(&mut self) -> Finding {
        match self.findings.recv().await {
            Some(finding) => finding,
            // Never: one sender is ours.
            None => std::future::pending().await,
        }
    }

    /// Takes a check in. Returns the node if its connections are to be reset.
    pub fn checked(&mut self, finding: Finding) -> Option<Dead> {
        let made = |own: &&mut Watched| {
            let checker = own.checker.as_ref();
            checker.is_some_and(|checker| checker.number() == finding.checker)
        };
        // One that ended meanwhile checked something else.
        let own = self.watched.iter_mut().find(made)?;
        if let Some(checker) = &mut own.checker {
            checker.found(Instant::now());
        }
        let Outcome {
            result,
            took,
            expires,
        } = finding.outcome;
        let error = result.as_ref().err().map(ToString::to_string);
        let change = own.state.check(result.is_ok(), Instant::now(), &own.limits);
        let returns = own.return_path.as_mut();
        if returns.is_some_and(|path| path.check(result.is_ok())) {
            own.return_changed();
        }
        own.expires = expires.or(own.expires);
        match result {
            Ok(()) => own.counts.passed += 1,
            Err(_) => own.counts.failed += 1,
        }
        own.last = Some(LastCheck {
            at: SystemTime::now(),
            took,
            error,
        });
        change.and_then(|change| own.changed(change))
    }

    /// Takes the counters of nodes and the time in.
    pub fn poll(&mut self, stats: &HashMap<SocketAddr, NodeStats>) {
        let now = Instant::now();
        for own in &mut self.watched {
            let seen = stats.get(&own.node);
            let seen = seen.map(|stats| [stats.syn_timeouts, stats.syn_resets, stats.accepted]);
            let before = std::mem::replace(&mut own.counted, seen);
            let mut change = None;
            if let (Some(seen), Some(before)) = (seen, before) {
                let [silent, reset, accepted] =
                    [0, 1, 2].map(|at: usize| seen[at].saturating_sub(before[at]));
                if own.passive {
                    change = own
                        .state
                        .clients(silent + reset, accepted, now, &own.limits);
                }
                let returns = own.return_path.as_mut();
                if returns.is_some_and(|path| path.clients(silent, accepted + reset)) {
                    own.return_changed();
                }
            }
            if let Some(change) = change.or_else(|| own.state.tick(now, &own.limits)) {
                // Clients alone never reset a node's connections.
                own.changed(change);
            }
        }
    }

    /// Nodes whose check should have ended long since.
    pub fn overdue(&self) -> usize {
        let now = Instant::now();
        let late = |own: &&Watched| {
            let checker = own.checker.as_ref();
            checker.is_some_and(|checker| checker.is_late(now))
        };
        self.watched.iter().filter(late).count()
    }

    /// The weights that follow. Where no node of a family works, all count as if they did.
    pub fn weights(&self, config: &Config) -> Weights {
        let now = Instant::now();
        let mut weights = Weights::default();
        let states: HashMap<(&str, SocketAddr), &Watched> = self
            .watched
            .iter()
            .map(|own| ((own.pool.as_str(), own.node), own))
            .collect();
        for pool in &config.pools {
            let name = pool.name.get_ref().as_str();
            for v4 in [true, false] {
                let nodes = pool
                    .nodes
                    .iter()
                    .map(|node| (*node.address.get_ref(), node.share()));
                let shares: Vec<(SocketAddr, u32, u32)> = nodes
                    .filter(|(address, weight)| address.is_ipv4() == v4 && *weight > 0)
                    .map(|(address, weight)| {
                        let state = states.get(&(name, address));
                        let share = state.map_or(100, |own| own.state.share(now, &own.limits));
                        (address, u32::from(weight), share)
                    })
                    .collect();
                for (address, weight) in relative(&shares) {
                    weights.set(name, address, weight);
                }
            }
        }
        weights
    }

    /// Pools in which checks left no node, and which want new connections refused then.
    pub fn refused<'a>(&self, config: &'a Config) -> BTreeSet<&'a str> {
        let pools = config.pools.iter();
        let refusing = pools.filter(|pool| pool.when_empty == WhenEmpty::Refuse);
        let empty = refusing.filter(|pool| {
            let takes = |own: &Watched| {
                let mut nodes = pool.nodes.iter();
                nodes.any(|node| *node.address.get_ref() == own.node && node.share() > 0)
            };
            let of_pool = |own: &&Watched| own.pool == *pool.name.get_ref() && takes(own);
            let mut nodes = self.watched.iter().filter(of_pool).peekable();
            nodes.peek().is_some() && nodes.all(|own| own.state.down() == Some(Cause::Check))
        });
        empty.map(|pool| pool.name.get_ref().as_str()).collect()
    }

    /// What has been found out about the tunnels.
    pub fn set_tunnels(&mut self, tunnels: Vec<TunnelReport>) {
        self.tunnels = tunnels;
    }

    /// What was found out about the tunnels at last.
    pub fn tunnels(&self) -> &[TunnelReport] {
        &self.tunnels
    }

    fn pools(&self, config: &Config) -> Vec<PoolReport> {
        let refused = self.refused(config);
        let down: BTreeSet<(&str, SocketAddr)> = self
            .watched
            .iter()
            .filter(|own| own.state.down().is_some())
            .map(|own| (own.pool.as_str(), own.node))
            .collect();
        let pools = config.pools.iter().map(|pool| {
            let name = pool.name.get_ref();
            let works = |node: &&Node| {
                node.share() > 0 && !down.contains(&(name.as_str(), *node.address.get_ref()))
            };
            PoolReport {
                name: name.clone(),
                nodes: pool.nodes.len(),
                available: pool.nodes.iter().filter(works).count(),
                refusing: refused.contains(name.as_str()),
            }
        });
        pools.collect()
    }

    /// What is known, for people and metrics.
    pub fn report(&self, config: &Config) -> Report {
        let now = Instant::now();
        let nodes = self.watched.iter().map(|own| NodeReport {
            pool: own.pool.clone(),
            name: own.name.clone(),
            address: own.node,
            operator: own.operator,
            state: report::State::of(
                &own.state,
                own.limits.interval.is_some(),
                own.last.is_some(),
            ),
            cause: own.state.down(),
            share: own.state.share(now, &own.limits),
            since: own.since,
            last: own.last.clone(),
            certificate_expires: own.expires,
            answers_lost: own.return_path.is_some_and(ReturnPath::is_lost),
            counts: own.counts,
        });
        Report {
            nodes: nodes.collect(),
            pools: self.pools(config),
            tunnels: self.tunnels.clone(),
        }
    }

    /// Writes the report where `status` finds it, if there is anything new.
    pub fn save(&mut self, config: &Config) {
        let report = self.report(config);
        if self.saved.as_ref() == Some(&report) {
            return;
        }
        if let Err(error) = report.save(&self.file) {
            warn!(path = %self.file.display(), %error, "health is not written");
        }
        // Not tried again and again where it cannot be written: only with the next news.
        self.saved = Some(report);
    }
}

impl Watched {
    /// Tells whether answers to clients come back, once.
    fn return_changed(&self) {
        let (pool, node, address) = (&self.pool, &self.name, self.node);
        if self.return_path.is_some_and(ReturnPath::is_lost) {
            warn!(pool, node, %address, "{}", words::ANSWERS_LOST);
        } else {
            info!(pool, node, %address, "the node answers clients again, or its checks fail too");
        }
    }

    /// Tells about a change, once. Returns the node if its connections are to be reset.
    fn changed(&mut self, change: Change) -> Option<Dead> {
        let (pool, node, address) = (&self.pool, &self.name, self.node);
        let last = self.last.as_ref();
        let error = last
            .and_then(|last| last.error.as_deref())
            .unwrap_or_default();
        match change {
            Change::Up => self.counts.ups += 1,
            Change::Down(_) => self.counts.downs += 1,
            Change::Confirmed => {}
        }
        match change {
            Change::Up => info!(pool, node, %address, "node is up"),
            Change::Down(Cause::Check) => warn!(pool, node, %address, error, "node is down"),
            Change::Down(Cause::Clients) => {
                warn!(pool, node, %address, "node is down: it does not accept connections");
                self.now.notify_one();
            }
            Change::Confirmed => info!(pool, node, %address, error, "node is down, says its check"),
        }
        if change != Change::Confirmed {
            self.since = SystemTime::now();
        }
        let proven = matches!(change, Change::Confirmed | Change::Down(Cause::Check));
        (proven && self.on_down == OnDown::Reset).then(|| Dead {
            pool: self.pool.clone(),
            node: self.node,
        })
    }
}

fn watched(pool: &Pool, node: &Node, former: Option<Watched>) -> Watched {
    let checks = &pool.health;
    let fresh = Watched {
        pool: pool.name.get_ref().clone(),
        name: node.name.clone(),
        node: *node.address.get_ref(),
        limits: Limits {
            rise: checks.rise,
            fall: checks.fall,
            interval: (checks.check != Check::None).then_some(checks.interval),
            slow_start: pool.slow_start,
        },
        operator: node.state,
        passive: checks.passive,
        on_down: pool.on_down,
        state: NodeState::default(),
        return_path: (pool.client_address == ClientAddress::Transparent
            && checks.check != Check::None)
            .then(ReturnPath::default),
        since: SystemTime::now(),
        last: None,
        expires: None,
        counted: None,
        counts: Counts::default(),
        now: Arc::new(Notify::new()),
        checker: None,
    };
    match former {
        Some(former) => Watched {
            state: former.state,
            return_path: fresh
                .return_path
                .and(former.return_path.or(fresh.return_path)),
            since: former.since,
            last: former.last,
            expires: former.expires,
            counted: former.counted,
            counts: former.counts,
            now: former.now,
            checker: former.checker,
            ..fresh
        },
        None => fresh,
    }
}

/// Weights where shares differ; nothing where all have their full share or none has any.
fn relative(nodes: &[(SocketAddr, u32, u32)]) -> Vec<(SocketAddr, u16)> {
    let full = nodes.iter().all(|(_, _, share)| *share == 100);
    let none = nodes.iter().all(|(_, _, share)| *share == 0);
    if full || none {
        return Vec::new();
    }
    let heaviest = nodes
        .iter()
        .map(|(_, weight, _)| *weight)
        .max()
        .unwrap_or(1);
    let factor = (FINEST / heaviest.max(1)).max(1);
    let nodes = nodes.iter().map(|(address, weight, share)| {
        let part = (weight * factor * share / 100).min(FINEST);
        let least = u32::from(*share > 0);
        (*address, part.max(least) as u16)
    });
    nodes.collect()
}

#[cfg(test)]
mod tests;
