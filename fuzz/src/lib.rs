//! What must hold for any bytes, one function per fuzz target.
//!
//! The same functions run over the kept inputs in `cargo test`: see
//! `forwarder-common/tests/replay.rs`.

use forwarder_common::abi::{Flow, mark};
use forwarder_common::flow::{Outcome as FlowOutcome, Passing};
use forwarder_common::name::{PatternKind, lookup_key, most_specific};
use forwarder_common::tcp::{NO_SCALE, OptionBytes, SynOptions, flag};

type Pattern = forwarder_common::name::Pattern<String>;

#[path = "../../forwarder-common/tests/hello/oracle.rs"]
mod oracle;
#[path = "../../forwarder-common/tests/hello/reading.rs"]
mod reading;

use oracle::{Seen, names_by_tls_parser, seen_by_rustls};
use reading::{Outcome, read, read_arriving};

/// A byte stream from a client: one verdict however it arrives, and no name
/// that another reader would not find there.
pub fn hello(stream: &[u8]) {
    let outcome = read(stream);
    assert_eq!(
        read_arriving(stream, 0..=stream.len()),
        outcome,
        "byte by byte"
    );
    let Outcome::Named { end, .. } = outcome else {
        return;
    };
    let name = outcome.name().map(str::to_owned);
    let names = Some(Vec::from_iter(name.clone()));
    assert_eq!(names_by_tls_parser(stream), names, "tls-parser");
    if let Seen::Hello(seen) = seen_by_rustls(&stream[..end]) {
        assert_eq!(seen, name, "rustls");
    }
}

/// A pattern from a configuration: what is taken is a name, and the trie's key
/// for it finds it.
pub fn name(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(pattern.to_string(), text.to_ascii_lowercase());
    assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern.clone()));
    let (bits, key) = pattern.key(7);
    let sample = match pattern.kind() {
        PatternKind::Exact => pattern.name().to_owned(),
        PatternKind::Wildcard => format!("a.{}", pattern.name()),
        PatternKind::Any => "any.example".to_owned(),
    };
    assert!(sample.len() <= 253, "no name can match {pattern}");
    assert_eq!(most_specific([&pattern], &sample), Some(&pattern));
    let (sample_bits, sample_key) = lookup_key(7, &sample);
    let prefix = bits as usize / 8;
    assert!(bits <= sample_bits && bits % 8 == 0);
    assert_eq!(key[..prefix], sample_key[..prefix]);
}

/// The option block of a SYN: an end in bounded time, values in range, nothing
/// read outside of what may be asked for.
pub fn options(data: &[u8]) {
    struct Block<'a>(&'a [u8]);

    impl OptionBytes for Block<'_> {
        fn byte(&self, at: u32) -> u8 {
            assert!(at <= 43);
            self.0.get(at as usize).copied().unwrap_or(0xff)
        }
    }

    let block = &data[..data.len().min(40)];
    let mut read = SynOptions::START;
    let mut steps = 0;
    while read.step(&Block(block), block.len() as u32) {
        steps += 1;
        assert!(steps <= block.len());
    }
    assert!((1..=0xffff).contains(&read.mss));
    assert!(read.scale <= 14 || read.scale == NO_SCALE);
    assert!(read.sack <= 1);
}

/// Any segments on a flow: counts only grow, and by no more than is plausible;
/// it ends only at an exact reset, when what precedes a reset is acknowledged, or after a FIN from each side.
pub fn flow(data: &[u8]) {
    let (segments, _) = data.as_chunks::<12>();
    let Some(([a, b, c, d, e, f, g, h, ..], segments)) = segments.split_first() else {
        return;
    };
    let mut flow = Flow {
        client_isn: u32::from_be_bytes([*a, *b, *c, *d]),
        entrance_isn: u32::from_be_bytes([*e, *f, *g, *h]),
        delta: 0,
        name: 0,
        opened_ms: 0,
        seen_ms: 0,
        client_end: 0,
        node_end: 0,
        client_acked: 1,
        node_acked: 1,
        public_link: 0,
        node: 0,
        path: 0,
        source_port_be: 0,
        client_address: 0,
        pad: 0,
        state: 0,
        node_scale: 0,
        client_marks: 0,
        node_marks: 0,
    };
    let (mut client_fin, mut node_fin) = (false, false);
    for [s0, s1, s2, s3, a0, a1, a2, a3, flags, from, p0, p1] in segments {
        let from_client = from & 1 == 0;
        // Small numbers are near what is expected, so that they matter.
        let (own, other) = match from_client {
            true => (flow.client_expected(), flow.node_expected()),
            false => (flow.node_expected(), flow.client_expected()),
        };
        let near = |expected: u32, bytes: [u8; 4]| {
            if from & 2 == 0 {
                expected.wrapping_add(bytes[0].into())
            } else {
                u32::from_be_bytes(bytes)
            }
        };
        let segment = Passing {
            seq: near(own, [*s0, *s1, *s2, *s3]),
            ack: near(other, [*a0, *a1, *a2, *a3]),
            flags: *flags,
            payload_len: u16::from_be_bytes([*p0, *p1]).into(),
        };
        let fin = segment.flags & (flag::FIN | flag::RST) == flag::FIN;
        let before = flow;
        let outcome = if from_client {
            client_fin |= fin;
            flow.client_segment(&segment)
        } else {
            node_fin |= fin;
            flow.node_segment(&segment)
        };
        for (before, after) in [
            (before.client_acked, flow.client_acked),
            (before.node_acked, flow.node_acked),
        ] {
            assert!((before..before + (1 << 25)).contains(&after));
        }
        match outcome {
            FlowOutcome::Open => {}
            FlowOutcome::Finished => {
                assert!(
                    client_fin && node_fin
                        || (flow.client_marks | flow.node_marks) & mark::RESET_AT_END != 0,
                    "finished without a FIN of each side or a reset that was met"
                );
                return;
            }
            FlowOutcome::Reset => {
                let (fin, end) = if from_client {
                    (before.client_marks & mark::FIN != 0, before.client_end)
                } else {
                    (before.node_marks & mark::FIN != 0, before.node_end)
                };
                let behind_fin = fin && end == own && segment.seq == own.wrapping_sub(1);
                assert!(segment.flags & flag::RST != 0);
                assert!(segment.seq == own || behind_fin);
                return;
            }
        }
    }
}
