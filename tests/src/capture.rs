//! Records what passes an interface, for the questions that only packets can answer: did anything of
//! a refused connection reach the tunnel, and is every checksum in it right?

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::link_socket::{LARGEST, Layer, LinkSocket};
use crate::netns::Namespace;
use crate::packet::{Checksums, Packet, Segment};

/// Packets are kept whole up to this many bytes; the rest is only counted.
const KEPT: usize = 256 << 20;
const POLL: Duration = Duration::from_millis(20);

/// A packet that passed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was read.
    pub at: Instant,
    /// Whether the namespace sent it; otherwise it received it.
    pub outgoing: bool,
    /// The packet.
    pub packet: Packet,
}

/// How many packets passed, and what their checksums said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets with right checksums.
    pub good: u64,
    /// Packets with a wrong checksum.
    pub bad: u64,
    /// Packets whose checksum was left to the hardware, and fragments.
    pub unknown: u64,
    /// Packets that the capture missed because it was too slow.
    pub missed: u64,
}

/// A running capture; it ends when dropped.
#[derive(Debug)]
pub struct Capture {
    place: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    kept: usize,
    tally: Tally,
}

impl Capture {
    /// Starts to record an interface of a namespace; packets that pass after this returns are seen.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = namespace.enter(|| LinkSocket::open(interface, Layer::Network))??;
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        namespace.spawn("capture", move || worker.record(&socket))?;
        let place = format!("{interface} of {}", namespace.name());
        Ok(Self { place, shared })
    }

    /// Everything seen so far, after a pause in which nothing passed.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.settle();
        self.shared.lock().seen.clone()
    }

    /// The TCP segments seen so far: whether the namespace sent it, and the segment.
    #[must_use]
    pub fn segments(&self) -> Vec<(bool, Segment)> {
        self.seen()
            .into_iter()
            .filter_map(|seen| Some((seen.outgoing, seen.packet.tcp()?.clone())))
            .collect()
    }

    /// Waits for a packet; packets that were seen before count too.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        let end = Instant::now() + limit;
        let mut looked_at = 0;
        loop {
            let record = self.shared.lock();
            if let Some(found) = record
                .seen
                .get(looked_at..)
                .unwrap_or_default()
                .iter()
                .find(|seen| wanted(seen))
            {
                return Ok(found.clone());
            }
            looked_at = record.seen.len();
            drop(record);
            if Instant::now() >= end {
                return Err(Error::Timeout {
                    what: format!("{what} on {}", self.place),
                    waited: limit,
                    detail: self.transcript(40),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        self.settle();
        *self.shared.lock() = Record::default();
    }

    /// Counts of what was seen.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.settle();
        self.shared.lock().tally
    }

    /// Fails if a packet was seen that should not be there.
    ///
    /// # Panics
    /// If there was one, or if the capture missed packets.
    #[track_caller]
    pub fn assert_none(&self, what: &str, unwanted: impl Fn(&Seen) -> bool) {
        let found: Vec<_> = self
            .seen()
            .into_iter()
            .filter(|seen| unwanted(seen))
            .collect();
        assert!(
            found.is_empty(),
            "{what} on {}:\n{}",
            self.place,
            write_out(&found, 20)
        );
        let missed = self.tally().missed;
        assert_eq!(
            missed, 0,
            "the capture on {} missed packets and proves nothing",
            self.place
        );
    }

    /// Fails if a checksum was wrong, or if none could be verified.
    ///
    /// # Panics
    /// See above.
    #[track_caller]
    pub fn assert_checksums(&self) {
        let bad: Vec<_> = self
            .seen()
            .into_iter()
            .filter(|seen| seen.packet.checksums == Checksums::Bad)
            .collect();
        assert!(
            bad.is_empty(),
            "wrong checksums on {}:\n{}",
            self.place,
            write_out(&bad, 20)
        );
        let tally = self.tally();
        assert_eq!(tally.bad, 0, "wrong checksums on {}: {tally:?}", self.place);
        assert!(
            tally.good > 0,
            "no checksum could be verified on {}: {tally:?}",
            self.place
        );
    }

    /// The last packets in words, for the message of a failed assertion.
    #[must_use]
    pub fn transcript(&self, last: usize) -> String {
        self.settle();
        let record = self.shared.lock();
        let from = record.seen.len().saturating_sub(last);
        write_out(&record.seen[from..], last)
    }

    /// Waits until nothing more is being read.
    fn settle(&self) {
        let mut before = u64::MAX;
        for _ in 0..50 {
            let tally = self.shared.lock().tally;
            let now = tally.good + tally.bad + tally.unknown;
            if now == before {
                return;
            }
            before = now;
            std::thread::sleep(POLL * 2);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn record(&self, socket: &LinkSocket) {
        let mut buffer = vec![0; LARGEST];
        while !self.stop.load(Ordering::Relaxed) {
            match socket.receive(&mut buffer) {
                Ok(Some(arrival)) => {
                    let bytes = &buffer[..arrival.length];
                    let Some(packet) = Packet::parse(bytes, arrival.unfinished) else {
                        continue;
                    };
                    self.lock().add(Seen {
                        at: Instant::now(),
                        outgoing: arrival.outgoing,
                        packet,
                    });
                }
                Ok(None) => {
                    if let Ok(lost) = socket.lost() {
                        self.lock().tally.missed += u64::from(lost);
                    }
                    if socket.wait(POLL).is_err() {
                        return;
                    }
                }
                // The interface went away or down; it may come back up.
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn add(&mut self, seen: Seen) {
        match seen.packet.checksums {
            Checksums::Good => self.tally.good += 1,
            Checksums::Bad => self.tally.bad += 1,
            Checksums::Unknown => self.tally.unknown += 1,
        }
        let bad = seen.packet.checksums == Checksums::Bad;
        if bad || self.kept < KEPT {
            self.kept += seen.packet.length;
            self.seen.push(seen);
        }
    }
}

fn write_out(seen: &[Seen], limit: usize) -> String {
    let mut text = String::new();
    for seen in seen.iter().take(limit) {
        let way = if seen.outgoing { "sent" } else { "received" };
        let _ = match &seen.packet.content {
            crate::packet::Content::Tcp(segment) => writeln!(text, "  {way} {segment:?}"),
            other => writeln!(
                text,
                "  {way} {} > {} {} bytes {}",
                seen.packet.source,
                seen.packet.destination,
                seen.packet.length,
                format!("{other:?}").chars().take(80).collect::<String>()
            ),
        };
    }
    if seen.len() > limit {
        let _ = writeln!(text, "  and {} more", seen.len() - limit);
    }
    text
}
