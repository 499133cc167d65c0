//! From events to lines in a file, through the thread.

use std::path::Path;
use std::time::Instant;

use forwarder_common::abi::{FlowKey, close_reason, event_kind};
use forwarder_common::verdict::DropReason;
use serde_json::Value;

use super::*;
use crate::config::model::FlowLogTo;
use crate::dataplane::address::address;
use crate::dataplane::registry::Registry;
use crate::telemetry::country::Country;

fn event(kind: u32, reason: u32, name: &[u8]) -> Event {
    // SAFETY: integers only: zeros are an event.
    let mut event: Event = unsafe { std::mem::zeroed() };
    event.kind = kind;
    event.reason = reason;
    event.time_ns = monotonic().as_nanos() as u64;
    event.flow = FlowKey {
        client: address("198.51.100.4".parse().unwrap()),
        port_be: 50_000_u16.to_be(),
        vip: 0,
    };
    event.path = u32::MAX;
    event.unique_id = 0xabc;
    event.name_len = name.len() as u32;
    event.name[..name.len()].copy_from_slice(name);
    event
}

fn opened(id: u64, name: &[u8]) -> Event {
    let mut event = event(event_kind::OPENED, 0, name);
    event.unique_id = id;
    event.duration = 1_500;
    event.hello_ms = 12;
    event.hello_segments = 2;
    event.syns = 1;
    event
}

fn closed(id: u64) -> Event {
    let mut event = event(event_kind::CLOSED, close_reason::FINISHED, b"");
    event.unique_id = id;
    event.duration = 4_000;
    event.up_bytes = 700;
    event.down_bytes = 5_000;
    event
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.names.number("*.example.org");
    registry.vips.number(&("203.0.113.7".parse().unwrap(), 443));
    registry
}

fn settings(path: &Path) -> Settings {
    Settings {
        to: FlowLogTo::File(path.to_owned()),
        opened: false,
        closed: true,
        refused: true,
        rate: 1,
        burst: 1_000,
        refused_per_minute: 1_000,
        max_size: u64::MAX,
    }
}

struct Log {
    log: FlowLog,
    registry: Registry,
    tally: Arc<Tally>,
}

impl Log {
    fn new(settings: &Settings) -> Self {
        let tally = Arc::new(Tally::default());
        Self {
            log: FlowLog::new(settings, 64, tally.clone()),
            registry: registry(),
            tally,
        }
    }

    fn event(&mut self, event: &Event) {
        self.log
            .event(event, &Record::new(event, &self.registry), || {
                Some(Location {
                    country: Country::from_code("DE"),
                    asn: Some(64_500),
                    as_org: None,
                })
            });
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn the_end_of_a_flow_has_what_its_beginning_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut log = Log::new(&settings(&path));
    log.event(&opened(0xabc, b"a.example.org"));
    log.event(&closed(0xabc));
    // Opened before the daemon was there.
    log.event(&closed(0xdef));
    log.log.finish();
    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    let whole = &lines[0];
    for (key, value) in [
        ("event", Value::from("closed")),
        ("id", "0000000000000abc".into()),
        ("client", "198.51.100.4".into()),
        ("port", 50_000.into()),
        ("local", "203.0.113.7:443".into()),
        ("name", "a.example.org".into()),
        ("listed", "*.example.org".into()),
        ("reason", "finished".into()),
        ("up_bytes", 700.into()),
        ("down_bytes", 5_000.into()),
        ("duration_ms", 4_000.into()),
        ("hello_ms", 12.into()),
        ("hello_segments", 2.into()),
        ("connect_us", 1_500.into()),
        ("country", "DE".into()),
        ("asn", 64_500.into()),
    ] {
        assert_eq!(whole[key], value, "{key}");
    }
    assert_eq!(lines[1]["name"], Value::Null, "a wildcard tells no name");
    assert_eq!(lines[1]["connect_us"], Value::Null);
    let keys = |line: &Value| {
        line.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&lines[0]), keys(&lines[1]));
    assert_eq!(log.tally.flow_log.written.value(), 2);
}

#[test]
fn only_what_is_wanted_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut log = Log::new(&Settings {
        opened: true,
        closed: false,
        ..settings(&path)
    });
    log.event(&opened(1, b"a.example.org"));
    log.event(&closed(1));
    let mut refused = event(
        event_kind::REFUSED,
        DropReason::UnlistedName as u32,
        b"b\"\n",
    );
    refused.unique_id = 0;
    refused.name_id = u32::MAX;
    refused.up_bytes = 517;
    log.event(&refused);
    log.log.finish();
    let lines = lines(&path);
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["opened", "refused"]);
    assert_eq!(lines[1]["name"], "b\"\n");
    assert_eq!(lines[1]["reason"], "unlisted_name");
    assert_eq!(lines[1]["hello_bytes"], 517);
    assert_eq!(lines[1]["up_bytes"], Value::Null);
}

#[test]
fn what_is_too_much_is_left_out_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut log = Log::new(&Settings {
        burst: 10,
        ..settings(&path)
    });
    for id in 0..500 {
        log.event(&closed(id));
    }
    log.event(&event(event_kind::REFUSED, DropReason::NotTls as u32, b""));
    log.log.tell_dropped();
    log.log.tell_dropped();
    log.log.finish();
    let lines = lines(&path);
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "dropped")
        .collect();
    assert_eq!(told.len(), 1, "told once");
    // A second may have passed on a busy machine.
    let dropped = told[0]["dropped"].as_u64().unwrap();
    assert!((480..=490).contains(&dropped), "{dropped}");
    assert_eq!(log.tally.flow_log.beyond_rate.value(), dropped);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["event"] == "refused")
            .count(),
        1
    );
    assert_eq!(log.tally.flow_log.written.value() + dropped, 501);
}

/// A flood of refusals writes few lines, and one a minute that sums the rest up.
#[test]
fn refusals_beyond_their_rate_are_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.jsonl");
    let mut log = Log::new(&Settings {
        refused_per_minute: 5,
        ..settings(&path)
    });
    for at in 0..500 {
        let reason = match at % 5 {
            0 => DropReason::UnlistedName,
            _ => DropReason::NotTls,
        };
        log.event(&event(event_kind::REFUSED, reason as u32, b""));
    }
    log.event(&closed(1));
    let second = |seconds| monotonic() + Duration::from_secs(seconds);
    for seconds in 0..100 {
        log.log.tell(second(seconds), false);
    }
    log.log.finish();
    let lines = lines(&path);
    let of = |event: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["event"] == event).collect()
    };
    assert_eq!((of("refused").len(), of("closed").len()), (5, 1));
    assert_eq!(of("dropped").len(), 0);
    let [further] = of("refused_further")[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(further["refused"], 495);
    assert_eq!(further["reasons"]["not_tls"], 396);
    assert_eq!(further["reasons"]["unlisted_name"], 99);
    let words = further["summary"].as_str().unwrap();
    assert!(
        words.starts_with("495 further refusals in the last minute: 396 not_tls"),
        "{words}"
    );
    assert_eq!(log.tally.flow_log.beyond_rate.value(), 495);
}

/// A pipe that nobody reads: the thread hangs, and nobody else.
#[test]
fn a_destination_that_hangs_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a path that ends in zero and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut log = Log::new(&Settings {
        rate: 1_000_000,
        burst: 1_000_000,
        ..settings(&path)
    });
    let begin = Instant::now();
    for id in 0..20_000 {
        log.event(&closed(id));
    }
    log.log.finish();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let log = &log.tally.flow_log;
    assert!(log.beyond_backlog.value() > 10_000, "{log:?}");
    assert_eq!(log.written.value(), 0);
    // Lets the thread go.
    drop(std::fs::File::open(&path));
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("absent/flows.jsonl");
    let mut log = Log::new(&settings(&path));
    log.event(&closed(1));
    log.event(&closed(2));
    log.log.finish();
    let log = &log.tally.flow_log;
    assert_eq!((log.failed.value(), log.written.value()), (2, 0));
}

#[test]
fn another_configuration_moves_it_to_another_place() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("a"), directory.path().join("b"));
    let mut log = Log::new(&settings(&first));
    log.event(&closed(1));
    log.log.adopt(&settings(&second));
    log.event(&closed(2));
    log.log.finish();
    assert_eq!(lines(&second).len(), 1);
    // The former thread may still be at it.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !first.exists() || lines(&first).len() != 1 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}
