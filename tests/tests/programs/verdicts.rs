//! Hellos that are refused and hellos that are not, case by case, as each kind of listener answers them.

use forwarder_common::abi::{HELLO_CAP, NONE, event_kind, events};
use forwarder_common::verdict::DropReason;
use forwarder_tests::hello::cases::{self, Verdict};
use forwarder_tests::hello::{Hello, server_name};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::Client;
use forwarder_tests::programs::seen::{self, Seen};
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// TLS alert, fatal, unrecognized_name (RFC 8446 6, RFC 6066 3).
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// A segment of a client whose path takes Ethernet frames of 1,500 bytes and has IPv6 below it.
const SEGMENT: usize = 1_360;

/// Sends a hello in segments, each once; returns what became of the last that was answered other than by
/// an acknowledgement of its bytes, and how many bytes were sent until then.
#[track_caller]
fn deliver(bench: &mut Bench, client: &Client, hello: &[u8]) -> (Seen, usize) {
    let mut sent = 0;
    for piece in hello.chunks(SEGMENT) {
        let seen = client.send(bench, sent as u32, piece);
        sent += piece.len();
        let more = seen.verdict == seen::Verdict::Redirect && {
            let answer = seen.segment();
            answer.flags == Flags::ACK && answer.destination == client.address
        };
        if !more {
            return (seen, sent);
        }
        let room = (HELLO_CAP - sent).div_ceil(128);
        seen.expect(&client.answer(Flags::ACK, 0, sent as u32, room as u16), &[]);
    }
    panic!("{} bytes were not enough for a verdict", hello.len())
}

/// That a refusal is answered as its listener does.
#[track_caller]
fn assert_refused(client: &Client, seen: &Seen, acked: usize, reason: DropReason) {
    let acked = acked as u32;
    match client.refusal {
        // A listed name is not called unrecognized.
        Refusal::Alert if reason == DropReason::NoNode => {
            seen.expect(&client.answer(Flags::RST_ACK, 0, acked, 0), &[reason]);
        }
        Refusal::Alert => {
            let flags = Flags::FIN_ACK.with(Flags::PSH);
            // Room for the client's FIN there always is.
            let room = (HELLO_CAP as u32 - acked).div_ceil(128).max(1);
            let mut answer = client.answer(flags, 0, acked, room as u16);
            answer.payload = ALERT.to_vec();
            seen.expect(&answer, &[reason]);
        }
        Refusal::Reset => seen.expect(&client.answer(Flags::RST_ACK, 0, acked, 0), &[reason]),
        Refusal::Drop => seen.dropped(reason),
    }
}

/// That the last segment became a SYN to the first node.
#[track_caller]
fn assert_routed(bench: &Bench, client: &Client, seen: &Seen) {
    let mut syn = Segment::new(client.address, bench.node_address(0), Flags::SYN);
    syn.seq = client.isn;
    let mss: u16 = if bench.shape.v6 { 1_360 } else { 1_380 };
    let [high, low] = mss.to_be_bytes();
    syn.options = vec![2, 4, high, low, 1, 1, 4, 2, 1, 3, 3, 7];
    seen.expect(&syn, &[]);
}

fn shapes() -> [Shape; 4] {
    let shape = |v6, public, tunnel| Shape {
        v6,
        public,
        tunnel,
        home: v6,
    };
    [
        shape(false, Link::L2, Link::L3),
        shape(true, Link::L3, Link::L2),
        shape(true, Link::L2, Link::L3),
        shape(false, Link::L3, Link::L2),
    ]
}

/// The shared table of hellos: what any reader of this project must make of them.
#[test]
fn every_case_of_the_table() {
    let mut bench = Bench::new();
    let mut seen_verdicts = [0; 2];
    for shape in shapes() {
        bench.reshape(shape);
        for (number, case) in cases::all(Mode::Transparent.name()).iter().enumerate() {
            println!("{shape:?} {}", case.title);
            let refusal = Refusal::ALL[number % 3];
            let client = Client::connect(&mut bench, refusal);
            let (seen, sent) = deliver(&mut bench, &client, &case.bytes);
            match case.verdict {
                Verdict::Route => {
                    assert_routed(&bench, &client, &seen);
                    let key = bench.flow_key(client.address, refusal);
                    assert!(bench.maps.flows.get(&key, 0).is_ok());
                    seen_verdicts[0] += 1;
                }
                Verdict::Refuse => {
                    let reason = seen.reasons[0];
                    let stored = sent.min(HELLO_CAP);
                    assert_refused(&client, &seen, stored, reason);
                    let events = bench.maps.events();
                    let event = events.last().expect("a refusal is told");
                    assert_eq!(
                        (event.kind, event.reason, event.up_bytes),
                        (event_kind::REFUSED, reason as u32, stored as u64)
                    );
                    seen_verdicts[1] += 1;
                }
            }
        }
    }
    assert!(
        seen_verdicts[0] >= 40 && seen_verdicts[1] >= 100,
        "{seen_verdicts:?}"
    );
}

/// Each reason by name, with each kind of answer.
#[test]
fn reasons() {
    let name = Mode::Transparent.name();
    let text = name.as_bytes();
    let with = |content| Hello::small(name).server_name(content).record();
    let table: Vec<(&str, Vec<u8>, DropReason)> = vec![
        (
            "unlisted",
            Hello::small("other.example.org").record(),
            DropReason::UnlistedName,
        ),
        (
            "below a listed name",
            Hello::small("a.transparent.example.org").record(),
            DropReason::UnlistedName,
        ),
        (
            "above a listed name",
            Hello::small("example.org").record(),
            DropReason::UnlistedName,
        ),
        (
            "a wildcard's own base",
            Hello::small("wild.example.org").record(),
            DropReason::UnlistedName,
        ),
        (
            "half a label of a wildcard",
            Hello::small("x-wild.example.org").record(),
            DropReason::UnlistedName,
        ),
        (
            "no server name",
            Hello::small(name).without_name().record(),
            DropReason::NoServerName,
        ),
        (
            "several",
            with(server_name(&[(0, text), (0, b"b.example.org")])),
            DropReason::SeveralServerNames,
        ),
        (
            "twice",
            Hello::small(name)
                .extension(0, server_name(&[(0, text)]))
                .record(),
            DropReason::SeveralServerNames,
        ),
        (
            "an address",
            with(server_name(&[(0, b"192.0.2.1")])),
            DropReason::BadServerName,
        ),
        (
            "a trailing dot",
            with(server_name(&[(0, b"transparent.example.org.")])),
            DropReason::BadServerName,
        ),
        (
            "an unknown name type",
            with(server_name(&[(1, text)])),
            DropReason::BadServerName,
        ),
        (
            "a list that lies",
            with(vec![0, 9, 0, 0, 1, b'a']),
            DropReason::MalformedHello,
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            DropReason::NotTls,
        ),
        (
            "SSLv2",
            vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10],
            DropReason::NotTls,
        ),
        ("one wrong byte", vec![0], DropReason::NotTls),
        (
            "a pool without nodes",
            Hello::small("empty.example.org").record(),
            DropReason::NoNode,
        ),
    ];
    let mut bench = Bench::new();
    for shape in shapes() {
        bench.reshape(shape);
        for (title, hello, reason) in &table {
            for refusal in Refusal::ALL {
                println!("{shape:?} {title} {refusal:?}");
                let client = Client::connect(&mut bench, refusal);
                bench.maps.events();
                let (seen, sent) = deliver(&mut bench, &client, hello);
                assert_refused(&client, &seen, sent, *reason);
                let [event] = bench.maps.events()[..] else {
                    panic!("one event")
                };
                assert_eq!(
                    (event.kind, event.reason),
                    (event_kind::REFUSED, *reason as u32)
                );
                assert_eq!(
                    (event.name_id, event.path, event.unique_id),
                    (NONE, NONE, 0)
                );
                assert_eq!((event.up_bytes, event.hello_segments), (sent as u64, 1));
                assert_eq!(event.flow, bench.flow_key(client.address, refusal));
                if *reason == DropReason::UnlistedName {
                    let length = event.name_len as usize;
                    let hello = hello.windows(length).any(|w| *w == event.name[..length]);
                    assert!(hello && length > 10, "the event has the name");
                }
            }
        }
    }
    assert_eq!(bench.maps.flows.keys().count(), 0, "nothing reached a node");
    assert_eq!(
        bench.maps.hello_index.keys().count(),
        0,
        "hellos of one segment are not kept"
    );
    let (_, buffers) = bench.maps.free();
    assert_eq!(buffers.len(), 256);
}

/// A wildcard matches below its base, however deep, in any case.
#[test]
fn names_below_a_wildcard() {
    let mut bench = Bench::new();
    for name in [
        "a.wild.example.org",
        "a.b.c.WILD.example.ORG",
        "Transparent.Example.Org",
    ] {
        let client = Client::connect(&mut bench, Refusal::Drop);
        let (seen, _) = deliver(&mut bench, &client, &Hello::small(name).record());
        assert_routed(&bench, &client, &seen);
    }
}

/// The same hello again gets the same answer, whether it was kept or not, until the client is gone.
#[test]
fn a_refusal_is_repeated() {
    let unlisted = Hello::browser("other.example.org", 3).name_last().record();
    let mut bench = Bench::new();
    for shape in shapes() {
        bench.reshape(shape);
        // In one segment: forgotten, judged again.
        let client = Client::connect(&mut bench, Refusal::Alert);
        let small = Hello::small("other.example.org").record();
        for _ in 0..2 {
            let seen = client.send(&mut bench, 0, &small);
            assert_refused(&client, &seen, small.len(), DropReason::UnlistedName);
        }
        // In two: kept, so that the second alone is recognised.
        let client = Client::connect(&mut bench, Refusal::Alert);
        let (seen, sent) = deliver(&mut bench, &client, &unlisted);
        assert_eq!(sent, unlisted.len());
        assert_refused(&client, &seen, sent, DropReason::UnlistedName);
        bench.maps.events();
        let seen = client.send(&mut bench, SEGMENT as u32, &unlisted[SEGMENT..]);
        assert_refused(&client, &seen, sent, DropReason::AlreadyRefused);
        assert!(bench.maps.events().is_empty(), "told once");
        // More data finds nobody; the client's own FIN is acknowledged and ends it.
        client
            .send(&mut bench, sent as u32, b"more")
            .dropped(DropReason::AlreadyRefused);
        let mut fin = client.segment(Flags::FIN_ACK, sent as u32, &[]);
        fin.ack = fin.ack.wrapping_add(8);
        let mut last = client.answer(Flags::ACK, 8, sent as u32 + 1, 0);
        bench
            .from_client(&fin)
            .expect(&last, &[DropReason::Absorbed]);
        // And again, when nothing of it is left.
        let seen = bench.from_client(&fin);
        last.window = 0;
        seen.expect(&last, &[DropReason::Absorbed]);
        let key = bench.flow_key(client.address, Refusal::Alert);
        assert!(bench.maps.hello_index.get(&key, 0).is_err());
    }
}

/// Only what is asked for is told.
#[test]
fn events_can_be_switched_off() {
    let mut bench = Bench::new();
    let unlisted = Hello::small("other.example.org").record();
    for (wanted, kinds) in [
        (0, &[][..]),
        (events::FLOWS, &[event_kind::OPENED, event_kind::CLOSED]),
        (events::REFUSALS, &[event_kind::REFUSED]),
        (
            events::FLOWS | events::REFUSALS,
            &[event_kind::REFUSED, event_kind::OPENED, event_kind::CLOSED],
        ),
    ] {
        bench.maps.set(|settings| settings.events = wanted);
        let client = Client::connect(&mut bench, Refusal::Alert);
        client.send(&mut bench, 0, &unlisted);
        let opened = Client::open(&mut bench, Mode::Transparent);
        opened.splice(&mut bench);
        bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
        let told: Vec<u32> = bench.maps.events().iter().map(|event| event.kind).collect();
        assert_eq!(told, kinds);
    }
}
