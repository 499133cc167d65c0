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
mod refusals;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use forwarder_common::abi::Event;
use tracing::{debug, warn};

use self::entry::{Dropped, Entry, Further};
use self::limit::RateLimit;
use self::openings::{Opening, Openings};
use self::refusals::Refusals;
use self::writer::{Message, Writer};
use super::counters::Tally;
use super::geoip::Location;
use crate::config::model::FlowLog as Settings;
use crate::dataplane::clock::monotonic;
use crate::dataplane::flows::events::{Kind, Record};

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
    /// Refusals beyond their rate: these are summed up.
    further: Refusals,
}

impl FlowLog {
    /// A flow log as configured, for a flow table of `max_flows` entries.
    pub fn new(settings: &Settings, max_flows: u32, tally: Arc<Tally>) -> Self {
        Self {
            openings: Openings::new(max_flows),
            limit: limit(settings),
            writer: Writer::start(&settings.to, settings.max_size, tally.clone()),
            settings: settings.clone(),
            tally,
            untold: 0,
            further: Refusals::default(),
        }
    }

    /// Goes on as configured now. A file is opened again in any case.
    pub fn adopt(&mut self, settings: &Settings) {
        if (&settings.to, settings.max_size) != (&self.settings.to, self.settings.max_size) {
            self.tell(monotonic(), true);
            // The former thread ends when it has written what it has.
            self.writer = Writer::start(&settings.to, settings.max_size, self.tally.clone());
        } else if let Some(writer) = &self.writer
            && writer.send(Message::Reopen).is_err()
        {
            debug!("the flow log is too busy to be opened again");
        }
        let rates = |own: &Settings| (own.rate, own.burst, own.refused_per_minute);
        if rates(settings) != rates(&self.settings) {
            self.limit = limit(settings);
        }
        self.settings = settings.clone();
    }

    /// Logs an event, if that is wanted.
    pub fn event(
        &mut self,
        event: &Event,
        record: &Record<'_>,
        place: impl FnOnce() -> Option<Location>,
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
            match record.kind {
                Kind::Refused { reason } => self.further.count(reason, now),
                Kind::Opened | Kind::Closed { .. } => self.untold += 1,
            }
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
        self.tell(monotonic(), false);
    }

    /// The same at the monotonic time `now`; `at_once` also what would be summed up later.
    fn tell(&mut self, now: Duration, at_once: bool) {
        let Some(writer) = &self.writer else {
            return;
        };
        if let Some(sum) = self.further.due(now, at_once) {
            let refused = sum.refused;
            if writer.send(Message::Further(Further::now(sum))).is_err() {
                self.untold += refused;
            }
        }
        if self.untold == 0 {
            return;
        }
        let told = writer.send(Message::Dropped(Dropped::now(self.untold)));
        if told.is_ok() {
            self.untold = 0;
        }
    }

    /// Writes what is left, within a bounded time.
    pub fn finish(mut self) {
        self.tell(monotonic(), true);
        if let Some(writer) = self.writer.take()
            && !writer.finish(LAST_LINES)
        {
            warn!("the last lines of the flow log are lost: it cannot be written fast enough");
        }
    }
}

fn limit(settings: &Settings) -> RateLimit {
    RateLimit::new(settings.rate, settings.burst, settings.refused_per_minute)
}

#[cfg(test)]
mod tests;
