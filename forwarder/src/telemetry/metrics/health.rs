//! Health on the page: nodes by pool, pools, tunnels.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use prometheus_client::encoding::DescriptorEncoder;

use super::catalog::{self, Metric};
use super::collect::{Page, family};
use crate::config::difference::word;
use crate::config::model::{Keyword, NodeState as Operator};
use crate::health::report::{NodeReport, PoolReport, State};
use crate::health::tunnel::PeerReport;

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs() as f64)
}

fn flag(holds: bool) -> u64 {
    u64::from(holds)
}

impl Page {
    pub(super) fn health(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = &self.snapshot.health.nodes;
        self.node_states(encoder)?;
        let mut plain = |metric: &'static Metric, value: fn(&NodeReport) -> Option<f64>| {
            let mut own = family(encoder, metric)?;
            for node in nodes {
                if let Some(value) = value(node) {
                    own.real(&[&node.pool, &node.name], value)?;
                }
            }
            Ok(())
        };
        plain(&catalog::NODE_HEALTH_SINCE, |own| Some(unix(own.since)))?;
        plain(&catalog::NODE_SHARE, |own| {
            Some(f64::from(own.share) / 100.0)
        })?;
        plain(&catalog::NODE_CHECK_SECONDS, |own| {
            Some(own.last.as_ref()?.took.as_secs_f64())
        })?;
        plain(&catalog::NODE_CHECK_TIME, |own| {
            Some(unix(own.last.as_ref()?.at))
        })?;
        plain(&catalog::NODE_CERTIFICATE, |own| {
            own.certificate_expires.map(unix)
        })?;
        self.pools(encoder)
    }

    fn node_states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = &self.snapshot.health.nodes;
        let mut up = family(encoder, &catalog::NODE_UP)?;
        for own in nodes {
            up.gauge(&[&own.pool, &own.name], flag(!own.is_down()))?;
        }
        let mut lost = family(encoder, &catalog::NODE_ANSWERS_LOST)?;
        for own in nodes {
            lost.gauge(&[&own.pool, &own.name], flag(own.answers_lost))?;
        }
        let mut health = family(encoder, &catalog::NODE_HEALTH)?;
        for own in nodes {
            for state in State::ALL {
                let labels = [own.pool.as_str(), &own.name, state.label()];
                health.gauge(&labels, flag(own.state == state))?;
            }
        }
        let mut operator = family(encoder, &catalog::NODE_OPERATOR)?;
        for own in nodes {
            for (_, state) in Operator::WORDS {
                let labels = [own.pool.as_str(), &own.name, word(*state)];
                operator.gauge(&labels, flag(own.operator == *state))?;
            }
        }
        let mut checks = family(encoder, &catalog::NODE_CHECKS)?;
        for own in nodes {
            checks.counter(&[&own.pool, &own.name, "success"], own.counts.passed)?;
            checks.counter(&[&own.pool, &own.name, "failure"], own.counts.failed)?;
        }
        let mut changes = family(encoder, &catalog::NODE_HEALTH_CHANGES)?;
        for own in nodes {
            changes.counter(&[&own.pool, &own.name, "up"], own.counts.ups)?;
            changes.counter(&[&own.pool, &own.name, "down"], own.counts.downs)?;
        }
        Ok(())
    }

    fn pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pools = &self.snapshot.health.pools;
        let mut plain = |metric: &'static Metric, value: fn(&PoolReport) -> u64| {
            let mut own = family(encoder, metric)?;
            pools
                .iter()
                .try_for_each(|pool| own.gauge(&[&pool.name], value(pool)))
        };
        plain(&catalog::POOL_NODES, |own| own.nodes as u64)?;
        plain(&catalog::POOL_AVAILABLE, |own| own.available as u64)?;
        plain(&catalog::POOL_REFUSING, |own| flag(own.refusing))
    }

    pub(super) fn tunnels(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tunnels = &self.snapshot.health.tunnels;
        let mut known = family(encoder, &catalog::TUNNEL_KNOWN)?;
        for own in tunnels {
            known.gauge(&[&own.interface], flag(own.source.is_some()))?;
        }
        // A name may stand for several addresses: then the peer that has been quiet longest counts.
        let mut peers: BTreeMap<[&str; 2], &PeerReport> = BTreeMap::new();
        for (tunnel, node) in tunnels
            .iter()
            .flat_map(|own| own.nodes.iter().map(move |node| (own, node)))
        {
            let Some(peer) = &node.peer else {
                continue;
            };
            let own = peers.entry([&tunnel.interface, &node.node]).or_insert(peer);
            if peer.last_handshake < own.last_handshake {
                *own = peer;
            }
        }
        let mut handshakes = family(encoder, &catalog::TUNNEL_HANDSHAKE)?;
        for (labels, peer) in &peers {
            handshakes.real(labels, peer.last_handshake.map_or(0.0, unix))?;
        }
        let mut silent = family(encoder, &catalog::TUNNEL_SILENT)?;
        for (labels, peer) in &peers {
            silent.gauge(labels, flag(peer.silent))?;
        }
        Ok(())
    }
}
