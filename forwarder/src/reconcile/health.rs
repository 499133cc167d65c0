//! Health, followed: tables, refusals, resets; and what tunnels say about their peers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use forwarder_common::abi::NodeStats;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::daemon::Daemon;
use crate::dataplane::clock::monotonic;
use crate::dataplane::flows::open as flows;
use crate::dataplane::{DataplaneError, plan};
use crate::health::finding::{Egresses, Finding};
use crate::health::tunnel::{self, Reading};
use crate::health::{Dead, REFUSAL};
use crate::link::{Network, wireguard};
use crate::units;

impl Daemon {
    /// A check has ended.
    pub(super) fn health_checked(&mut self, finding: Finding) {
        if let Some(dead) = self.health.checked(finding) {
            self.reset_flows(dead);
        }
        self.follow_health();
    }

    /// Time has passed: counters, shares and refusals.
    pub(super) fn health_polled(&mut self) {
        match self.node_stats() {
            Ok(stats) => self.health.poll(&stats),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "the counters of nodes cannot be read; the next poll tries again"
            ),
        }
        self.tally.set_overdue(self.health.overdue());
        self.follow_health();
        self.health.save(&self.config);
    }

    /// Interfaces that lead to nodes, for their checks.
    pub(super) fn ways(&self, network: &Network) -> Egresses {
        let nodes = self.config.pools.iter().flat_map(|pool| &pool.nodes);
        let ways = nodes.filter_map(|node| {
            let ip = node.address.get_ref().ip();
            let (_, link) = plan::way(ip, &self.config, network)?;
            Some((ip, link.name.clone()))
        });
        ways.collect()
    }

    /// Another configuration is in use.
    pub(super) fn health_adopts(&mut self) {
        self.health.follow(&self.config);
        self.health.set_ways(self.ways(&self.network));
        self.follow_health();
        self.health.save(&self.config);
    }

    fn node_stats(&self) -> Result<HashMap<SocketAddr, NodeStats>, DataplaneError> {
        let nodes = self.dataplane.registry().nodes.iter();
        let stats = nodes.map(|(number, address)| {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            Ok((*address, self.counters.node(number)?))
        });
        stats.collect()
    }

    /// Brings tables and refusals in step with health. What fails is tried again at the next poll.
    pub(super) fn follow_health(&mut self) {
        let weights = self.health.weights(&self.config);
        match self.dataplane.rebalance(&self.config, weights) {
            Ok(0) => {}
            Ok(pools) => info!(pools, "shares of nodes changed"),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "the shares of nodes were not written; the next poll tries again"
            ),
        }
        if let Err(error) = self.refuse() {
            error!(
                error = &error as &dyn std::error::Error,
                "which pools refuse was not written; the next poll tries again"
            );
        }
    }

    fn refuse(&mut self) -> Result<(), DataplaneError> {
        let refused = self.health.refused(&self.config);
        let same = refused.iter().copied().eq(self.refusals.refused.iter());
        let due = match self.refusals.renewed {
            Some(renewed) => !refused.is_empty() && renewed.elapsed() > REFUSAL / 3,
            None => true,
        };
        if same && !due {
            return Ok(());
        }
        let until = monotonic() + REFUSAL;
        self.dataplane.refuse(&self.config, &refused, until)?;
        self.refusals.refused = refused.into_iter().map(str::to_owned).collect();
        self.refusals.renewed = Some(Instant::now());
        Ok(())
    }

    /// Asks the tunnels about their peers, on another thread: one in user space may take its time.
    pub(super) fn ask_tunnels(&self, to: &Sender<Vec<Reading>>) {
        let tunnels = self.config.entrance.tunnels.iter();
        let there = tunnels.filter_map(|name| self.network.link(name.get_ref()));
        let there: Vec<_> = there
            .map(|link| (link.name.clone(), link.wireguard))
            .collect();
        let to = to.clone();
        tokio::task::spawn_blocking(move || {
            let readings = there.into_iter().map(|(interface, in_kernel)| Reading {
                answer: wireguard::ask(&interface, in_kernel),
                interface,
            });
            // The daemon stopped meanwhile: nobody wants them any more.
            let _ = to.blocking_send(readings.collect());
        });
    }

    /// The tunnels have answered.
    pub(super) fn tunnels_answered(&mut self, readings: &[Reading]) {
        let (ways, former) = (self.ways(&self.network), self.health.tunnels());
        let now = SystemTime::now();
        let (tunnels, changes) = tunnel::report(&self.config, &ways, readings, former, now);
        self.health.set_tunnels(tunnels);
        for change in changes {
            let (tunnel, node) = (change.interface, change.node);
            let handshake = change.age.map_or_else(|| String::from("never"), units::age);
            if change.silent {
                warn!(
                    tunnel,
                    node,
                    handshake,
                    "the WireGuard peer of a node does not answer: packets are sent to it, but its last handshake is more than {} s ago",
                    tunnel::SESSION.as_secs()
                );
            } else {
                info!(
                    tunnel,
                    node, handshake, "the WireGuard peer of a node answers again"
                );
            }
        }
    }

    /// Ends the flows of a node on another thread: there may be many. One whose SYN it has not answered is
    /// left alone: it goes on to another node, or ends as unanswered.
    fn reset_flows(&self, Dead { pool, node }: Dead) {
        let pins = self.dataplane.pins().clone();
        let registry = self.dataplane.registry().clone();
        tokio::task::spawn_blocking(move || {
            let ended = flows::end(&pins, &registry, |flow| {
                flow.pool.as_ref() == Some(&pool)
                    && flow.node_address == Some(node)
                    && !flow.is_connecting()
            });
            match ended {
                Ok(ended) => {
                    info!(pool, %node, flows = ended, "connections of a dead node are reset")
                }
                Err(error) => error!(
                    error = &error as &dyn std::error::Error,
                    "connections of a dead node were not ended; `forwarder flow kill` ends them"
                ),
            }
        });
    }
}
