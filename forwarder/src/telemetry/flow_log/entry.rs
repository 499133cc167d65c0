//! One line of the flow log.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use forwarder_common::abi::Event;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::openings::Opening;
use super::refusals::Sum;
use crate::dataplane::flows::events::{Kind, Record};
use crate::telemetry::geoip::Location;

/// What is known about a flow that opened or closed, or about a refused connection. A key without a value is
/// written as `null`, so that every line has the same keys; those of GeoIP are left out without databases.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When it happened.
    #[serde(serialize_with = "rfc_3339")]
    pub time: SystemTime,
    /// `opened`, `closed` or `refused`.
    pub event: &'static str,
    /// The flow's unique id, which also stands in its PROXY header.
    pub id: Option<String>,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The address and port it connected to.
    pub local: Option<SocketAddr>,
    /// The listener.
    pub listener: Option<String>,
    /// The name that the client sent, lower case.
    pub name: Option<String>,
    /// The name or pattern of the configuration that it matched.
    pub listed: Option<String>,
    /// The route, by its first name.
    pub route: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// Why it was closed or refused.
    pub reason: Option<&'static str>,
    /// Bytes client → node that the node acknowledged.
    pub up_bytes: Option<u64>,
    /// Bytes node → client that the client acknowledged.
    pub down_bytes: Option<u64>,
    /// How long it lived.
    pub duration_ms: Option<u32>,
    /// From first to last segment of the hello.
    pub hello_ms: Option<u32>,
    /// Bytes of the hello, and what came with it.
    pub hello_bytes: Option<u64>,
    /// Segments of the hello.
    pub hello_segments: Option<u32>,
    /// From the SYN to the node until its answer.
    pub connect_us: Option<u32>,
    /// SYNs that it took.
    pub syns: Option<u32>,
    /// Where the client is.
    #[serde(flatten)]
    pub place: Option<Location>,
}

impl Entry {
    /// Puts an event into words. `opening` is what was told when the flow opened, `now` the clock of the
    /// events.
    pub fn new(
        event: &Event,
        record: &Record<'_>,
        opening: Option<Opening>,
        place: Option<Location>,
        now: Duration,
    ) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let owned = |name: Option<&str>| name.map(str::to_owned);
        let mut entry = Self {
            time: wall_clock(event.time_ns, now),
            event: "refused",
            id: (event.unique_id != 0).then(|| format!("{:016x}", event.unique_id)),
            client: record.client.ip(),
            port: record.client.port(),
            local: record.local.map(|(ip, port)| SocketAddr::new(ip, port)),
            listener: owned(record.listener),
            name: None,
            listed: owned(record.listed),
            route: owned(record.route),
            pool: owned(record.pool),
            node: owned(record.node),
            reason: None,
            up_bytes: None,
            down_bytes: None,
            duration_ms: None,
            hello_ms: None,
            hello_bytes: None,
            hello_segments: None,
            connect_us: None,
            syns: None,
            place,
        };
        match record.kind {
            Kind::Opened => {
                entry.event = "opened";
                entry.opened(Opening::new(event, &record.name));
            }
            Kind::Closed { reason } => {
                entry.event = "closed";
                entry.reason = Some(reason);
                entry.up_bytes = Some(event.up_bytes);
                entry.down_bytes = Some(event.down_bytes);
                entry.duration_ms = Some(event.duration);
                match opening {
                    Some(opening) => entry.opened(opening),
                    // What matches an exact name is that name.
                    None => entry.name = owned(record.listed.filter(|name| !name.starts_with('*'))),
                }
            }
            Kind::Refused { reason } => {
                entry.reason = Some(reason);
                entry.name = text(&record.name);
                entry.hello_ms = Some(event.hello_ms);
                entry.hello_bytes = Some(event.up_bytes);
                entry.hello_segments = Some(event.hello_segments);
            }
        }
        entry
    }

    fn opened(&mut self, opening: Opening) {
        self.name = Some(opening.name.into()).filter(|name: &String| !name.is_empty());
        self.hello_ms = Some(opening.hello_ms);
        self.hello_bytes = opening.hello_bytes;
        self.hello_segments = Some(opening.hello_segments);
        self.connect_us = Some(opening.connect_us);
        self.syns = Some(opening.syns);
    }

    /// The log line, for the daemon's own log.
    pub fn log(&self) {
        let client = SocketAddr::new(self.client, self.port);
        let local = self.local.map(|local| local.to_string());
        let place = self.place.clone().unwrap_or_default();
        let country = place.country.map(|country| country.to_string());
        macro_rules! line {
            ($message:literal) => {
                tracing::info!(
                    target: "forwarder::flow", event = self.event, %client, local,
                    listener = self.listener, name = self.name, listed = self.listed, route = self.route,
                    pool = self.pool, node = self.node, id = self.id, reason = self.reason,
                    up_bytes = self.up_bytes, down_bytes = self.down_bytes,
                    duration_ms = self.duration_ms, hello_ms = self.hello_ms,
                    hello_bytes = self.hello_bytes, hello_segments = self.hello_segments,
                    connect_us = self.connect_us, syns = self.syns,
                    country, asn = place.asn, as_org = place.as_org,
                    $message
                )
            };
        }
        match self.event {
            "opened" => line!("opened"),
            "closed" => line!("closed"),
            _ => line!("refused"),
        }
    }
}

/// Refused connections without a line of their own.
#[derive(Clone, Debug, Serialize)]
pub struct Further {
    /// When that was told.
    #[serde(serialize_with = "rfc_3339")]
    pub time: SystemTime,
    /// `refused_further`.
    pub event: &'static str,
    /// How many there were.
    pub refused: u64,
    /// In how many seconds.
    pub seconds: u64,
    /// The most frequent reasons.
    #[serde(serialize_with = "as_map")]
    pub reasons: Vec<(&'static str, u64)>,
    /// The same in words.
    pub summary: String,
}

impl Further {
    /// What was summed up just now.
    pub fn now(sum: Sum) -> Self {
        Self {
            time: SystemTime::now(),
            event: "refused_further",
            refused: sum.refused,
            seconds: sum.period.as_secs(),
            summary: sum.words(),
            reasons: sum.reasons,
        }
    }
}

fn as_map<S: Serializer>(pairs: &[(&'static str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().copied())
}

/// Lines that were left out because there were too many, or because they came too fast.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Dropped {
    /// When that was told.
    #[serde(serialize_with = "rfc_3339")]
    pub time: SystemTime,
    /// `dropped`.
    pub event: &'static str,
    /// How many since it was last told.
    pub dropped: u64,
}

impl Dropped {
    /// So many, until now.
    pub fn now(dropped: u64) -> Self {
        Self {
            time: SystemTime::now(),
            event: "dropped",
            dropped,
        }
    }
}

/// The time of day of an event of the programs, whose clock shows `now`; of one without a time, the present.
fn wall_clock(time_ns: u64, now: Duration) -> SystemTime {
    let present = SystemTime::now();
    let age = now.saturating_sub(Duration::from_nanos(time_ns));
    match time_ns {
        0 => present,
        _ => present.checked_sub(age).unwrap_or(present),
    }
}

fn rfc_3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_micros(*time))
}

/// `value` as one line of JSON in ASCII, with its line end.
pub fn write_line(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), serde_json::Error> {
    let begin = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Ascii);
    let written = value.serialize(&mut serializer);
    match written {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(begin),
    }
    written
}

/// Escapes whatever is not a printable ASCII character: some programs end a line at others than `\n`, and
/// terminals obey some.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let plain = |c: char| c.is_ascii() && c != '\x7f';
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| !plain(c)) {
            let (before, odd) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut letters = odd.chars();
            if let Some(letter) = letters.next() {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_line(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whatever_stands_in_a_text_stays_in_its_line() {
        let hostile = "a\"b\\c\nd\r\u{1b}[2J\u{85}\u{2028}\u{9b}31m\u{7f}é😀{}";
        let line = line(&serde_json::json!({ "name": hostile }));
        assert_eq!(line.trim_end().lines().count(), 1);
        assert!(
            line.trim_end()
                .bytes()
                .all(|byte| (b' '..0x7f).contains(&byte)),
            "{line}"
        );
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["name"], hostile);
    }

    #[test]
    fn times_of_the_programs_become_times_of_day() {
        let now = Duration::from_secs(1_000);
        let then = wall_clock(990_000_000_000, now);
        let age = SystemTime::now().duration_since(then).unwrap();
        assert!((10.0..12.0).contains(&age.as_secs_f64()), "{age:?}");
        let ahead = wall_clock(1_001_000_000_000, now);
        assert!(ahead <= SystemTime::now());
        assert!(wall_clock(0, now).elapsed().unwrap() < Duration::from_secs(2));
    }

    #[test]
    fn a_line_says_how_many_there_are_not() {
        let line = line(&Dropped::now(7));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&read["event"], &read["dropped"]),
            (&"dropped".into(), &7.into())
        );
        let time = read["time"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }
}
