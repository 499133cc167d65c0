//! From a [`Snapshot`] to an OpenMetrics page.

mod own;

use std::fmt;
use std::sync::Arc;

use forwarder_common::verdict::DropReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::registry::Registry;

use super::catalog::{self, Metric};
use super::snapshot::Snapshot;
use super::targets::{self, Targets};
use crate::config::model::{Keyword, Xdp};
use crate::telemetry::counters::Tally;

/// Upper bound of the first bucket of connect times; each further one is twice as wide.
const FIRST_BUCKET: f64 = 0.000_25;

/// A snapshot and what the daemon knows beside it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) snapshot: Snapshot,
    targets: Targets,
    ready: bool,
    tally: Arc<Tally>,
}

/// Writes the page, with series of their own for at most so many targets.
pub fn page(
    mut snapshot: Snapshot,
    ready: bool,
    tally: Arc<Tally>,
    max_targets: u32,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let targets = targets::limit(std::mem::take(&mut snapshot.paths), max_targets);
    registry.register_collector(Box::new(Page {
        targets,
        snapshot,
        ready,
        tally,
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Whether a reason ends a connection, rather than a packet.
pub(crate) fn is_refusal(reason: DropReason) -> bool {
    use DropReason as R;
    match reason {
        R::NotTls | R::MalformedHello | R::HelloTooLong | R::NoServerName | R::BadServerName => {
            true
        }
        R::SeveralServerNames | R::UnlistedName | R::FlowTableFull | R::SourcePortsExhausted => {
            true
        }
        R::NoNode | R::NodesUnreachable | R::HelloBuffersFull => true,
        R::HelloBusy | R::BadChecksum | R::UnknownFlow | R::ResetRateLimited | R::OutOfOrder => {
            false
        }
        R::BeforeNode | R::Fragment | R::IpOptions | R::MalformedSegment | R::TtlExpired => false,
        R::NotItsFlow
        | R::LinkDown
        | R::Absorbed
        | R::KernelRefused
        | R::AlreadyRefused
        | R::SegmentTooBig => false,
        R::HelloDisplaced | R::HelloTimeout | R::SourceLimit => true,
        R::InvalidSource | R::NotUnderWay => false,
    }
}

/// One metric while its values are written.
pub(super) struct Family<'a> {
    metric: &'static Metric,
    encoder: MetricEncoder<'a>,
}

/// The values of a metric's labels.
pub(super) type Values<'a> = &'a [&'a str];

impl Family<'_> {
    fn labels<'v>(&self, values: Values<'v>) -> Vec<(&'static str, &'v str)> {
        debug_assert_eq!(values.len(), self.metric.labels().len());
        let labels = self.metric.labels().iter().copied();
        labels.zip(values.iter().copied()).collect()
    }

    pub(super) fn counter(&mut self, values: Values<'_>, value: u64) -> fmt::Result {
        self.count(values, &value)
    }

    fn seconds(&mut self, values: Values<'_>, value: f64) -> fmt::Result {
        self.count(values, &value)
    }

    fn count(&mut self, values: Values<'_>, value: &impl EncodeCounterValue) -> fmt::Result {
        let labels = self.labels(values);
        let encoder = &mut self.encoder;
        match values {
            // An empty set of labels would be written as `{}`.
            [] => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            _ => encoder
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(value, None),
        }
    }

    pub(super) fn gauge(&mut self, values: Values<'_>, value: u64) -> fmt::Result {
        self.level(values, &value)
    }

    pub(super) fn real(&mut self, values: Values<'_>, value: f64) -> fmt::Result {
        self.level(values, &value)
    }

    fn level(&mut self, values: Values<'_>, value: &impl EncodeGaugeValue) -> fmt::Result {
        let labels = self.labels(values);
        match values {
            [] => self.encoder.encode_gauge(value),
            _ => self.encoder.encode_family(&labels)?.encode_gauge(value),
        }
    }

    /// `buckets` in doubling steps, the last without bound.
    fn histogram(&mut self, values: Values<'_>, sum: f64, buckets: &[u64]) -> fmt::Result {
        let labels = self.labels(values);
        let last = buckets.len() - 1;
        let bounded = buckets.iter().enumerate().map(|(at, count)| match at {
            at if at == last => (f64::INFINITY, *count),
            at => (FIRST_BUCKET * f64::from(1_u32 << at), *count),
        });
        let bounded: Vec<_> = bounded.collect();
        let mut series = self.encoder.encode_family(&labels)?;
        // The count is of the same reading as the buckets, so that both always agree.
        series.encode_histogram::<NoLabelSet>(sum, buckets.iter().sum(), &bounded, None)
    }
}

pub(super) fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    metric: &'static Metric,
) -> Result<Family<'a>, fmt::Error> {
    Ok(Family {
        encoder: encoder.encode_descriptor(
            metric.base(),
            metric.help(),
            metric.unit(),
            metric.kind(),
        )?,
        metric,
    })
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.paths(&mut encoder)?;
        self.listeners(&mut encoder)?;
        self.drops(&mut encoder)?;
        self.nodes(&mut encoder)?;
        self.health(&mut encoder)?;
        self.tunnels(&mut encoder)?;
        self.kernel(&mut encoder)?;
        self.daemon(&mut encoder)
    }
}

impl Page {
    fn paths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // Each series of a metric stands below its description, so paths are gone through for each.
        let paths = || {
            let all = self.targets.shown.iter();
            all.map(|([listener, route, pool, node], sample)| {
                ([listener.as_str(), route, pool, node], sample)
            })
        };
        let with = |[a, b, c, d]: [&'_ str; 4], last| [a, b, c, d, last].map(str::to_owned);
        let mut opened = family(encoder, &catalog::CONNECTIONS_OPENED)?;
        for (labels, sample) in paths() {
            opened.counter(&labels, sample.stats.opened)?;
        }
        let mut ended = family(encoder, &catalog::CONNECTIONS_ENDED)?;
        for (labels, sample) in paths() {
            let (stats, swept) = (&sample.stats, &sample.swept);
            for (result, count) in [
                ("finished", stats.closed),
                ("reset", stats.reset),
                ("idle", swept.silent),
                ("failed", stats.failed + swept.unanswered),
            ] {
                let values = with(labels, result);
                ended.counter(&values.each_ref().map(String::as_str), count)?;
            }
        }
        let mut flows = family(encoder, &catalog::FLOWS)?;
        for (labels, sample) in paths() {
            for (state, count) in ["connecting", "replaying", "spliced"]
                .into_iter()
                .zip(sample.flows)
            {
                let values = with(labels, state);
                flows.gauge(&values.each_ref().map(String::as_str), count)?;
            }
        }
        let mut bytes = family(encoder, &catalog::TRAFFIC_BYTES)?;
        for (labels, sample) in paths() {
            for (direction, count) in [
                ("up", sample.stats.up_bytes),
                ("down", sample.stats.down_bytes),
            ] {
                let values = with(labels, direction);
                bytes.counter(&values.each_ref().map(String::as_str), count)?;
            }
        }
        let mut packets = family(encoder, &catalog::TRAFFIC_PACKETS)?;
        for (labels, sample) in paths() {
            for (direction, count) in [
                ("up", sample.stats.up_packets),
                ("down", sample.stats.down_packets),
            ] {
                let values = with(labels, direction);
                packets.counter(&values.each_ref().map(String::as_str), count)?;
            }
        }
        let mut replays = family(encoder, &catalog::REPLAYS)?;
        for (labels, sample) in paths() {
            replays.counter(&labels, sample.stats.replays)?;
        }
        let mut targets = family(encoder, &catalog::TARGETS)?;
        targets.gauge(&[], self.targets.count as u64)?;
        let mut labels = family(encoder, &catalog::TARGET_LABELS)?;
        labels.gauge(&[], self.targets.labels as u64)
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = &self.snapshot.listeners;
        let mut plain = |metric, field: fn(&forwarder_common::abi::ListenerStats) -> u64| {
            let mut own = family(encoder, metric)?;
            listeners
                .iter()
                .try_for_each(|(name, stats)| own.counter(&[name], field(stats)))
        };
        plain(&catalog::LISTENER_SYNS, |stats| stats.syns)?;
        plain(&catalog::COOKIES_SENT, |stats| stats.cookies)?;
        plain(&catalog::HELLOS, |stats| stats.hellos)?;
        plain(&catalog::HELLO_BYTES, |stats| stats.hello_bytes)?;
        plain(&catalog::HELLO_SEGMENTS, |stats| stats.hello_segments)?;
        plain(&catalog::LISTENER_ROUTED, |stats| stats.opened)?;
        plain(&catalog::LISTENER_REFUSED, |stats| stats.refused)?;
        plain(&catalog::LISTENER_PACKETS, |stats| stats.packets)?;
        plain(&catalog::LISTENER_BYTES, |stats| stats.bytes)?;
        let mut checked = family(encoder, &catalog::COOKIES_CHECKED)?;
        for (name, stats) in listeners {
            checked.counter(&[name, "accepted"], stats.cookies_valid)?;
            checked.counter(&[name, "failed"], stats.cookies_invalid)?;
        }
        let mut time = family(encoder, &catalog::HELLO_SECONDS)?;
        for (name, stats) in listeners {
            time.seconds(&[name], stats.hello_ms as f64 / 1e3)?;
        }
        Ok(())
    }

    fn drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, refusals) in [
            (&catalog::REFUSALS, true),
            (&catalog::PACKETS_DROPPED, false),
        ] {
            let mut own = family(encoder, metric)?;
            for (reason, count) in &self.snapshot.drops {
                if is_refusal(*reason) == refusals {
                    own.counter(&[reason.label()], *count)?;
                }
            }
        }
        Ok(())
    }

    fn nodes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = &self.snapshot.nodes;
        let mut reachable = family(encoder, &catalog::NODE_REACHABLE)?;
        for (name, node) in nodes {
            reachable.gauge(&[name], u64::from(node.reachable))?;
        }
        let mut mtu = family(encoder, &catalog::NODE_MTU)?;
        for (name, node) in nodes {
            mtu.gauge(&[name], u64::from(node.mtu))?;
        }
        let mut plain = |metric, field: fn(&forwarder_common::abi::NodeStats) -> u64| {
            let mut own = family(encoder, metric)?;
            nodes
                .iter()
                .try_for_each(|(name, node)| own.counter(&[name], field(&node.stats)))
        };
        plain(&catalog::NODE_SYNS, |stats| stats.syns)?;
        plain(&catalog::NODE_SYN_TIMEOUTS, |stats| stats.syn_timeouts)?;
        plain(&catalog::NODE_SYN_RESETS, |stats| stats.syn_resets)?;
        plain(&catalog::NODE_STRAYS, |stats| stats.strays)?;
        let mut connect = family(encoder, &catalog::NODE_CONNECT)?;
        for (name, node) in nodes {
            let sum = node.stats.connect_us as f64 / 1e6;
            connect.histogram(&[name], sum, &node.stats.connect_buckets)?;
        }
        Ok(())
    }

    fn kernel(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut attached = family(encoder, &catalog::ATTACHED)?;
        for place in &self.snapshot.attachments {
            attached.gauge(&[&place.interface, place.side.word()], 1)?;
        }
        family(encoder, &catalog::REATTACHED)?.counter(&[], self.tally.hooks_lost.value())?;
        self.xdp(encoder)?;
        let maps = &self.snapshot.maps;
        let mut entries = family(encoder, &catalog::MAP_ENTRIES)?;
        for map in maps {
            if let Some(used) = map.entries {
                entries.gauge(&[map.name], used)?;
            }
        }
        let mut capacity = family(encoder, &catalog::MAP_CAPACITY)?;
        for map in maps {
            capacity.gauge(&[map.name], map.capacity)?;
        }
        let mut memory = family(encoder, &catalog::MAP_MEMORY)?;
        for map in maps {
            if let Some(bytes) = map.memory {
                memory.gauge(&[map.name], bytes)?;
            }
        }
        Ok(())
    }

    fn xdp(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let interfaces = &self.snapshot.xdp.interfaces;
        let mut mode = family(encoder, &catalog::XDP_MODE)?;
        for (own, _) in Xdp::WORDS {
            let holds = self.snapshot.xdp.mode == *own;
            mode.gauge(&[own], u64::from(holds))?;
        }
        let mut attached = family(encoder, &catalog::XDP_ATTACHED)?;
        for own in interfaces {
            attached.gauge(&[&own.interface], u64::from(own.attached_now))?;
        }
        let mut changes = family(encoder, &catalog::XDP_CHANGES)?;
        for own in interfaces {
            for (to, count) in [
                ("attached", own.attached),
                ("detached", own.detached),
                ("refused", own.refused),
            ] {
                changes.counter(&[&own.interface, to], count)?;
            }
        }
        let mut frames = family(encoder, &catalog::XDP_PACKETS)?;
        for (verdict, count) in &self.snapshot.frames {
            frames.counter(&[verdict], *count)?;
        }
        Ok(())
    }
}
