//! The flow log: a line for each flow that closes and each connection that is refused.
//!
//! ```text
//! event ──▶ openings (what the end does not tell) ──▶ rate limit ──▶ bounded channel ──▶ thread ──▶ file, …
//! ```
//!
//! The daemon's loop never waits for it: what is too much is left out, and counted.

pub mod entry;
mod file;
mod journal;
mod limit;
mod lines;
mod openings;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use forwarder_common::abi::Event;
use tracing::{debug, warn};

use self::entry::{Dropped, Entry};
use self::limit::RateLimit;
use self::openings::{Opening, Openings};
use self::writer::{Message, Writer};
use crate::config::model::FlowLog as Settings;
use crate::dataplane::clock::monotonic;
use crate::dataplane::events::{Kind, Record};
use crate::geoip::Place;
use crate::metrics::tally::Tally;

/// How long the last lines may take when the daemon stops.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The daemon's end of it.
#[derive(Debug)]
pub struct FlowLog {
    settings: Settings,
    openings: Openings,
    limit: RateLimit,
    writer: Option<Writer>,
    tally: Arc<Tally>,
    /// Lines that were left out since that was last told.
    untold: u64,
}

impl FlowLog {
    /// A flow log as configured, for a flow table of `max_flows` entries.
    pub fn new(settings: &Settings, max_flows: u32, tally: Arc<Tally>) -> Self {
        Self {
            openings: Openings::new(max_flows),
            limit: RateLimit::new(settings.rate, settings.burst),
            writer: Writer::start(&settings.to, tally.clone()),
            settings: settings.clone(),
            tally,
            untold: 0,
        }
    }

    /// Goes on as configured now. A file is opened again in any case.
    pub fn adopt(&mut self, settings: &Settings) {
        if settings.to != self.settings.to {
            self.tell_dropped();
            // The former thread ends when it has written what it has.
            self.writer = Writer::start(&settings.to, self.tally.clone());
        } else if let Some(writer) = &self.writer
            && writer.send(Message::Reopen).is_err()
        {
            debug!("the flow log is too busy to be opened again");
        }
        if (settings.rate, settings.burst) != (self.settings.rate, self.settings.burst) {
            self.limit = RateLimit::new(settings.rate, settings.burst);
        }
        self.settings = settings.clone();
    }

    /// Logs an event, if that is wanted.
    pub fn event(
        &mut self,
        event: &Event,
        record: &Record<'_>,
        place: impl FnOnce() -> Option<Place>,
    ) {
        let (wanted, refused) = match record.kind {
            Kind::Opened => (self.settings.opened, false),
            Kind::Closed { .. } => (self.settings.closed, false),
            Kind::Refused { .. } => (self.settings.refused, true),
        };
        let mut opening = None;
        if self.writer.is_some() && self.settings.closed {
            match record.kind {
                Kind::Opened => {
                    let opening = Opening::new(event, &record.name);
                    self.openings.insert(event.unique_id, opening);
                }
                Kind::Closed { .. } => opening = self.openings.take(event.unique_id),
                Kind::Refused { .. } => {}
            }
        }
        let Some(writer) = self.writer.as_ref().filter(|_| wanted) else {
            return;
        };
        let now = monotonic();
        if !self.limit.allows(refused, now) {
            self.tally.flow_log.beyond_rate.add(1);
            self.untold += 1;
            return;
        }
        let entry = Entry::new(event, record, opening, place(), now);
        if writer.send(Message::Entry(Box::new(entry))).is_err() {
            self.tally.flow_log.beyond_backlog.add(1);
            self.untold += 1;
        }
    }

    /// Tells how many lines were left out, if any were. To be called every second or so.
    pub fn tell_dropped(&mut self) {
        let Some(writer) = self.writer.as_ref().filter(|_| self.untold > 0) else {
            return;
        };
        let told = writer.send(Message::Dropped(Dropped::now(self.untold)));
        if told.is_ok() {
            self.untold = 0;
        }
    }

    /// Writes what is left, within a bounded time.
    pub fn finish(mut self) {
        self.tell_dropped();
        if let Some(writer) = self.writer.take()
            && !writer.finish(LAST_LINES)
        {
            warn!("the last lines of the flow log are lost: it cannot be written fast enough");
        }
    }
}

#[cfg(test)]
mod tests;
