//! The node's MSS: what is sent again keeps to it, clients are told of it, and a client's segment that is too big for
//! the node is answered as a router would.

use std::net::IpAddr;

use forwarder_common::verdict::DropReason::SegmentTooBig;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Content, Flags, Packet, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::kernel::Context;
use forwarder_tests::programs::shape::{Mode, Refusal};

use crate::answer::{assert_header_and_hello, each_shape_and_mode, joined, open_long};

/// A node's options with this MSS.
fn options(mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    vec![2, 4, high, low, 1, 1, 4, 2, 1, 3, 3, 9]
}

fn splice(bench: &mut Bench, mode: Mode, options: &[u8]) -> Opened {
    let opened = Client::open(bench, mode);
    assert!(!bench.from_node(&opened.syn_ack(options)).all().is_empty());
    let seen = bench.from_node(&opened.from_node(Flags::ACK, 0, 0, &[]));
    assert_eq!(seen.segment().destination, opened.client.address);
    opened
}

#[test]
fn what_is_replayed_fits_the_node() {
    each_shape_and_mode(|bench, mode| {
        for mss in [1_190, 1_191, 600, 256] {
            let hello = Hello::browser(mode.name(), 3).record();
            let opened = open_long(bench, mode, &hello);
            let segments = bench.from_node(&opened.syn_ack(&options(mss))).all();
            let longest = segments.iter().map(|s| s.payload.len()).max().unwrap();
            assert!(
                (usize::from(mss) - 3..=usize::from(mss)).contains(&longest),
                "{longest} of {mss}"
            );
            let stream = joined(&opened, &segments);
            assert_header_and_hello(bench, &opened, &stream, Some("h2"));
            // And so does what the client's repetition draws.
            bench.maps.set(|settings| settings.syn_interval_us = 0);
            let again = opened.client.send(bench, 0, &hello[..500]).all();
            bench
                .maps
                .set(|settings| settings.syn_interval_us = 60_000_000);
            assert!(again.iter().all(|s| s.payload.len() <= usize::from(mss)));
        }
        // One that says nothing takes what every host does (RFC 9293 3.7.1).
        let hello = Hello::browser(mode.name(), 3).record();
        let opened = open_long(bench, mode, &hello);
        let segments = bench.from_node(&opened.syn_ack(&[])).all();
        let longest = segments.iter().map(|s| s.payload.len()).max().unwrap();
        assert_eq!(longest, if bench.shape.v6 { 1_200 } else { 536 });
    });
}

/// What a client is told that connects now.
fn advertised(bench: &mut Bench) -> u16 {
    let client = Client::new(bench, Refusal::Alert);
    bench
        .from_client(&client.syn(&LINUX))
        .segment()
        .mss()
        .unwrap()
}

#[test]
fn the_next_client_is_told() {
    for v6 in [false, true] {
        let mut bench = Bench::new();
        bench.reshape(forwarder_tests::programs::shape::Shape {
            v6,
            ..forwarder_tests::programs::shape::Shape::COMMON
        });
        let usual = if v6 { 1_360 } else { 1_380 };
        assert_eq!(advertised(&mut bench), usual);
        // What is larger changes nothing.
        splice(&mut bench, Mode::Transparent, &options(1_460));
        assert_eq!(advertised(&mut bench), usual);
        splice(&mut bench, Mode::Transparent, &options(1_190));
        assert_eq!(advertised(&mut bench), 1_190);
        // The smallest counts, until it has not been seen for a while.
        splice(&mut bench, Mode::Transparent, &options(1_300));
        assert_eq!(advertised(&mut bench), 1_190);
        // Every host takes that much, whatever a node says.
        splice(&mut bench, Mode::Transparent, &options(20));
        assert_eq!(advertised(&mut bench), 536);
    }
}

struct Told {
    mtu: u32,
    packet: Packet,
    quote: Vec<u8>,
}

#[track_caller]
fn told(bytes: &[u8]) -> Told {
    let packet = Packet::parse(bytes, false).expect("an IP packet");
    let Content::Icmp {
        kind,
        code,
        rest,
        ref body,
    } = packet.content
    else {
        panic!("{packet:?}")
    };
    let kinds = match packet.source {
        IpAddr::V4(_) => (3, 4),
        IpAddr::V6(_) => (2, 0),
    };
    assert_eq!((kind, code), kinds);
    Told {
        mtu: rest,
        quote: body.clone(),
        packet,
    }
}

#[test]
fn what_is_too_big_for_the_node_is_told_to_the_client() {
    each_shape_and_mode(|bench, mode| {
        bench.maps.set(|settings| settings.reset_fill_ns = u64::MAX);
        for mss in [1_300_u16, 1_220] {
            let opened = splice(bench, mode, &options(mss));
            let fits = opened.from_client(Flags::PSH_ACK, 0, 0, &vec![7; usize::from(mss)]);
            let passed = bench.from_client(&fits).segment();
            assert_eq!(passed.destination, opened.syn.destination);
            let sent = opened.from_client(Flags::PSH_ACK, 0, 0, &vec![7; usize::from(mss) + 1]);
            let seen = bench.from_client(&sent);
            assert_eq!(seen.reasons, [SegmentTooBig]);
            let told = told(seen.bytes.as_ref().unwrap());
            assert_eq!(told.packet.source, opened.client.vip.ip());
            assert_eq!(told.packet.destination, opened.client.address.ip());
            let headers = if bench.shape.v6 { 60 } else { 40 };
            assert_eq!(told.mtu, u32::from(mss) + headers);
            // As the client sent it, addresses and numbers of its own view.
            let headers = headers as usize;
            assert_eq!(told.quote[..headers], sent.to_bytes()[..headers]);
            assert!(told.quote[headers..].iter().all(|byte| *byte == 0));
        }
    });
}

/// A packet of several segments counts by its segments, and the quotation is of one of them.
#[test]
fn super_packets_count_by_their_segments() {
    each_shape_and_mode(|bench, mode| {
        bench.maps.set(|settings| settings.reset_fill_ns = u64::MAX);
        let opened = splice(bench, mode, &options(1_300));
        let sent = opened.from_client(Flags::ACK, 0, 0, &[7; 3_000]);
        for (size, fits) in [(1_300, true), (1_200, true), (1_301, false), (1_360, false)] {
            let context = Context {
                ifindex: bench.public,
                gso_segments: 3,
                gso_size: size,
            };
            let seen = bench.run(true, &sent.to_bytes(), context);
            if fits {
                assert_eq!(seen.segment().destination, opened.syn.destination);
                continue;
            }
            assert_eq!(seen.reasons, [SegmentTooBig]);
            let told = told(seen.bytes.as_ref().unwrap());
            let mut one = sent.clone();
            one.payload.truncate(size as usize);
            let headers = if bench.shape.v6 { 60 } else { 40 };
            let ports = headers - 20;
            assert_eq!(told.quote[..ports + 16], one.to_bytes()[..ports + 16]);
        }
    });
}

/// A sender that lets routers cut its packets is not told to send smaller ones; hosts that forbid it are. A host need
/// not heed less than every link carries.
#[test]
fn what_goes_on_although_it_is_big() {
    each_shape_and_mode(|bench, mode| {
        bench.maps.set(|settings| settings.reset_fill_ns = u64::MAX);
        let opened = splice(
            bench,
            mode,
            &options(if bench.shape.v6 { 900 } else { 300 }),
        );
        let least = if bench.shape.v6 { 1_220 } else { 536 };
        let sent = opened.from_client(Flags::PSH_ACK, 0, 0, &vec![7; least]);
        let on = |segment: &Segment| segment.destination == opened.syn.destination;
        assert!(on(&bench.from_client(&sent).segment()));
        let sent = opened.from_client(Flags::PSH_ACK, 0, 0, &vec![7; least + 1]);
        let seen = bench.from_client(&sent);
        let headers = if bench.shape.v6 { 60 } else { 40 };
        assert_eq!(
            told(seen.bytes.as_ref().unwrap()).mtu,
            least as u32 + headers
        );
        if !bench.shape.v6 {
            let mut bytes = sent.to_bytes();
            bytes[6] = 0;
            bytes[10..12].fill(0);
            let sum = forwarder_common::checksum::Sum::of_bytes(&bytes[..20]).checksum();
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
            assert!(on(&bench.public_packet(&bytes).segment()));
        }
    });
}

/// Nobody is told more often than resets are sent.
#[test]
fn errors_are_rate_limited() {
    let mut bench = Bench::new();
    let limit = forwarder_common::token_bucket::Limit::per_second(1, 3);
    bench.maps.set(|settings| {
        settings.reset_interval_ns = limit.interval_ns;
        settings.reset_fill_ns = limit.fill_ns;
    });
    let opened = splice(&mut bench, Mode::Transparent, &options(1_300));
    let sent = opened.from_client(Flags::PSH_ACK, 0, 0, &[7; 1_360]);
    let seen: Vec<_> = (0..20).map(|_| bench.from_client(&sent)).collect();
    assert!(seen.iter().all(|own| own.reasons == [SegmentTooBig]));
    let told = seen.iter().filter(|own| own.bytes.is_some()).count();
    assert!((3..=8).contains(&told), "{told}");
    seen.last().unwrap().dropped(SegmentTooBig);
}
