//! The part of the page that tells of the daemon itself.

use std::fmt;

use forwarder_common::abi::ABI_VERSION;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Page, catalog, family};

impl Page {
    pub(super) fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.told(encoder)?;
        self.configuration(encoder)?;
        self.work(encoder)?;
        self.process(encoder)
    }

    /// Events, and what became of them.
    fn told(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tally = &self.tally;
        for (metric, countries) in [
            (&catalog::OPENED_BY_COUNTRY, &tally.opened),
            (&catalog::REFUSED_BY_COUNTRY, &tally.refused),
        ] {
            let mut own = family(encoder, metric)?;
            for (country, count) in countries.all() {
                own.counter(&[&country], count)?;
            }
        }
        let mut built = family(encoder, &catalog::GEOIP_BUILT)?;
        for (database, time) in tally.databases() {
            built.gauge(&[database], time)?;
        }
        let mut events = family(encoder, &catalog::EVENTS)?;
        for (kind, count) in [
            ("opened", &tally.events.opened),
            ("closed", &tally.events.closed),
            ("refused", &tally.events.refused),
        ] {
            events.counter(&[kind], count.value())?;
        }
        let mut lost = family(encoder, &catalog::EVENTS_LOST)?;
        lost.counter(&["ring"], self.snapshot.events_lost)?;
        lost.counter(&["follower"], tally.missed_by_followers.value())?;
        let log = &tally.flow_log;
        family(encoder, &catalog::FLOW_LOG_LINES)?.counter(&[], log.written.value())?;
        let mut dropped = family(encoder, &catalog::FLOW_LOG_DROPPED)?;
        for (why, count) in [
            ("rate", &log.beyond_rate),
            ("backlog", &log.beyond_backlog),
            ("error", &log.failed),
        ] {
            dropped.counter(&[why], count.value())?;
        }
        Ok(())
    }

    fn configuration(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let own = self.tally.configuration();
        let mut reloads = family(encoder, &catalog::RELOADS)?;
        reloads.counter(&["applied"], self.tally.reloads.applied.value())?;
        reloads.counter(&["refused"], self.tally.reloads.refused.value())?;
        family(encoder, &catalog::RELOAD_SUCCESSFUL)?.gauge(&[], u64::from(own.succeeded))?;
        family(encoder, &catalog::RELOAD_TIME)?
            .encoder
            .encode_gauge(&own.since)?;
        family(encoder, &catalog::CONFIG_HASH)?.gauge(&[], own.digest)?;
        family(encoder, &catalog::CONFIG_EDITS)?.gauge(&[], own.edits)
    }

    /// What the daemon does again and again.
    fn work(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let swept = self.tally.last_sweep();
        family(encoder, &catalog::LAST_SWEEP)?
            .encoder
            .encode_gauge(&swept)?;
        family(encoder, &catalog::CHECKS_OVERDUE)?.gauge(&[], self.tally.overdue())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut build = family(encoder, &catalog::BUILD)?;
        let abi = format!("v{ABI_VERSION}");
        let values = [env!("CARGO_PKG_VERSION"), &abi];
        let labels = build.labels(&values);
        build.encoder.encode_info(&labels)?;
        family(encoder, &catalog::READY)?.gauge(&[], u64::from(self.ready))?;
        let took = self.snapshot.took.as_secs_f64();
        let mut real = |metric, value: f64| family(encoder, metric)?.encoder.encode_gauge(&value);
        real(&catalog::SCRAPE_SECONDS, took)?;
        let Some(process) = &self.snapshot.process else {
            return Ok(());
        };
        real(&catalog::PROCESS_START, process.start)?;
        family(encoder, &catalog::PROCESS_CPU)?.seconds(&[], process.cpu)?;
        family(encoder, &catalog::PROCESS_RSS)?.gauge(&[], process.resident)?;
        family(encoder, &catalog::PROCESS_FDS)?.gauge(&[], process.open_fds)?;
        family(encoder, &catalog::PROCESS_MAX_FDS)?.gauge(&[], process.max_fds)
    }
}
