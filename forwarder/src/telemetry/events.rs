//! Hands each event to those who follow, to the counters and to the flow log.

use std::sync::Arc;

use forwarder_common::abi::Event;
use tokio::sync::broadcast;

use super::counters::Tally;
use super::flow_event::FlowEvent;
use super::flow_log::FlowLog;
use super::geoip::GeoIp;
use crate::config::Config;
use crate::dataplane::flows::events::{Kind, Record};

/// All of them.
#[derive(Debug)]
pub struct FanOut {
    followers: broadcast::Sender<FlowEvent>,
    tally: Arc<Tally>,
    geoip: GeoIp,
    flow_log: FlowLog,
}

impl FanOut {
    /// As configured.
    pub fn new(
        config: &Config,
        followers: broadcast::Sender<FlowEvent>,
        tally: Arc<Tally>,
    ) -> Self {
        let max_flows = config.entrance.max_flows;
        Self {
            followers,
            geoip: GeoIp::new(&config.geoip, tally.clone()),
            flow_log: FlowLog::new(&config.flow_log, max_flows, tally.clone()),
            tally,
        }
    }

    /// Goes on as configured now; opens files again.
    pub fn adopt(&mut self, config: &Config) {
        self.geoip.adopt(&config.geoip);
        self.flow_log.adopt(&config.flow_log);
    }

    /// Hands an event on.
    pub fn event(&mut self, record: &Record<'_>, event: &Event) {
        if self.followers.receiver_count() > 0 {
            // The last one may have gone meanwhile.
            let _ = self.followers.send(FlowEvent::new(record, event));
        }
        let (address, tally) = (record.client.ip(), &self.tally);
        let databases = self.geoip.databases();
        let country = || databases.country(address);
        let counts_countries = databases.knows_countries();
        match record.kind {
            Kind::Opened => {
                tally.events.opened.add(1);
                if counts_countries {
                    tally.opened.count(country());
                }
            }
            Kind::Closed { .. } => tally.events.closed.add(1),
            Kind::Refused { .. } => {
                tally.events.refused.add(1);
                if counts_countries {
                    tally.refused.count(country());
                }
            }
        }
        let place = || databases.place(address);
        self.flow_log.event(event, record, place);
    }

    /// Looks for other GeoIP databases under the names of those in use.
    pub fn refresh(&self) {
        self.geoip.refresh();
    }

    /// Says how many lines were left out.
    pub fn tell_dropped(&mut self) {
        self.flow_log.tell_dropped();
    }

    /// Writes what is left, within a bounded time.
    pub fn finish(self) {
        self.flow_log.finish();
    }
}
