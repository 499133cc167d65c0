//! The node's answer: what was kept is sent to it, and again as long as it is missing.

use std::time::Duration;

use forwarder_common::abi::{event_kind, state};
use forwarder_common::node_options::NodeOptions;
use forwarder_common::tcp::NO_SCALE;
use forwarder_common::verdict::DropReason::{Absorbed, BadChecksum, BeforeNode};
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, NODE, NODE_ISN, Opened};
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// The longest payload of a replayed segment.
const PIECE: usize = 1_200;

pub(crate) fn each_shape_and_mode(mut test: impl FnMut(&mut Bench, Mode)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            println!("{shape:?} {mode:?}");
            test(&mut bench, mode);
        }
    }
}

/// The stream that replayed segments carry, after a look at everything else in them.
#[track_caller]
pub(crate) fn joined(opened: &Opened, segments: &[Segment]) -> Vec<u8> {
    let mut next = opened.syn.seq.wrapping_add(1);
    let mut stream = Vec::new();
    for segment in segments {
        let mut expected = Segment::new(opened.syn.source, opened.syn.destination, Flags::PSH_ACK);
        expected.seq = next;
        expected.ack = NODE_ISN.wrapping_add(1);
        expected.window = 502;
        expected.payload.clone_from(&segment.payload);
        assert_eq!(segment, &expected);
        assert!((1..=PIECE).contains(&segment.payload.len()));
        next = segment.end();
        stream.extend(&segment.payload);
    }
    stream
}

/// That a stream is a PROXY v2 header (if the mode has one) and the hello.
#[track_caller]
pub(crate) fn assert_header_and_hello(
    bench: &Bench,
    opened: &Opened,
    stream: &[u8],
    alpn: Option<&str>,
) {
    if opened.mode != Mode::ProxyV2 {
        assert_eq!(stream, opened.hello);
        return;
    }
    let header = ppp::v2::Header::try_from(stream).expect("a PROXY v2 header");
    assert_eq!(stream[header.len()..], opened.hello);
    assert_eq!(header.command, ppp::v2::Command::Proxy);
    assert_eq!(header.protocol, ppp::v2::Protocol::Stream);
    let (source, destination) = match header.addresses {
        ppp::v2::Addresses::IPv4(v4) => (
            (v4.source_address, v4.source_port).into(),
            (v4.destination_address, v4.destination_port).into(),
        ),
        ppp::v2::Addresses::IPv6(v6) => (
            (v6.source_address, v6.source_port).into(),
            (v6.destination_address, v6.destination_port).into(),
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (opened.client.address, opened.client.vip),
        (source, destination)
    );
    let tlv = |wanted| {
        let mut found = header
            .tlvs()
            .map(|tlv| tlv.expect("a whole TLV"))
            .filter(|tlv| tlv.kind == wanted);
        let value = found.next().map(|tlv| tlv.value.to_vec());
        assert!(found.next().is_none());
        value
    };
    assert_eq!(
        tlv(2).as_deref(),
        Some(opened.mode.name().as_bytes()),
        "authority"
    );
    assert_eq!(tlv(1).as_deref(), alpn.map(str::as_bytes), "ALPN");
    let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
    let id = format!("{:016x}", flow.unique_id());
    assert_eq!(tlv(5).as_deref(), Some(id.as_bytes()), "unique id");
    assert_eq!(header.tlvs().count(), 2 + usize::from(alpn.is_some()));
}

#[test]
fn header_and_hello_are_sent_to_the_node() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let segments = opened.accept(bench);
        assert_eq!(segments.len(), 1);
        let stream = joined(&opened, &segments);
        assert_header_and_hello(bench, &opened, &stream, None);
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!(flow.state, state::REPLAYING);
        assert_eq!(flow.delta, opened.client.cookie.wrapping_sub(NODE_ISN));
        let v6 = bench.shape.v6;
        assert_eq!(flow.node_options(), NodeOptions::new(9, 1_380, v6));
        assert_eq!(flow.node_acked, 1);
    });
}

/// Sends a hello in segments that a test run can take; the last must become the SYN.
pub(crate) fn open_long(bench: &mut Bench, mode: Mode, hello: &[u8]) -> Opened {
    let client = Client::connect(bench, Refusal::Alert);
    let mut syn = None;
    for (number, piece) in hello.chunks(1_300).enumerate() {
        let seen = client.send(bench, number as u32 * 1_300, piece);
        assert_eq!(seen.reasons, []);
        syn = Some(seen.segment());
    }
    let syn = syn.unwrap();
    assert_eq!(syn.flags, Flags::SYN);
    Opened {
        client,
        mode,
        hello: hello.to_vec(),
        syn,
    }
}

#[test]
fn long_hellos_take_several_segments() {
    each_shape_and_mode(|bench, mode| {
        for length in [1_190, 1_201, 2_399, 2_400, 2_401, 5_003, 9_600, 16_389] {
            let hello = Hello::small(mode.name()).alpn(&["h2", "http/1.1"]);
            // No zeros at its end: they would hide what a sum leaves out.
            let rest = length - 5 - hello.message().len() - 4;
            let hello = hello.extension(0xbeef, vec![0xe7; rest]).record();
            let opened = open_long(bench, mode, &hello);
            let segments = opened.accept(bench);
            let stream = joined(&opened, &segments);
            assert_header_and_hello(bench, &opened, &stream, Some("h2"));
            assert_eq!(segments.len(), stream.len().div_ceil(PIECE));
        }
    });
}

/// A tunnel narrower than the usual piece sets its size.
#[test]
fn pieces_fit_a_narrow_tunnel() {
    let mut bench = Bench::new();
    bench.node(0, |node| node.mss = 1_001);
    let hello = Hello::browser(Mode::ProxyV2.name(), 1).record();
    let opened = open_long(&mut bench, Mode::ProxyV2, &hello);
    let segments = opened.accept(&mut bench);
    assert!(
        segments
            .iter()
            .all(|segment| segment.payload.len() <= 1_000)
    );
    let stream = joined(&opened, &segments);
    assert_header_and_hello(&bench, &opened, &stream, Some("h2"));
}

/// Early data that came with the hello goes with it.
#[test]
fn early_data_follows_the_hello() {
    each_shape_and_mode(|bench, mode| {
        let mut bytes = Hello::small(mode.name()).record();
        bytes.extend([23, 3, 3, 1, 0]);
        bytes.extend([0x5a; 256]);
        let opened = Client::open_with(bench, mode, &bytes);
        let segments = opened.accept(bench);
        let stream = joined(&opened, &segments);
        assert_header_and_hello(bench, &opened, &stream, None);
    });
}

/// A repeated SYN-ACK, or a retransmission of the client's, sends all of it again; from the node's
/// acknowledgement on, only the rest.
#[test]
fn what_is_missing_is_sent_again() {
    each_shape_and_mode(|bench, mode| {
        let hello = Hello::browser(mode.name(), 2).record();
        let opened = open_long(bench, mode, &hello);
        let all = joined(&opened, &opened.accept(bench));
        bench.maps.set(|settings| settings.syn_interval_us = 0);
        let again = bench.from_node(&opened.syn_ack(&NODE));
        assert_eq!(again.reasons, []);
        assert_eq!(joined(&opened, &again.all()), all);

        // A client's packet has no neighbour for copies into an Ethernet-like tunnel: one segment a time.
        let whole = bench.shape.tunnel == Link::L3;
        let retransmission = opened.client.send(bench, 0, &hello[..900]);
        let stream = joined(&opened, &retransmission.all());
        let sent = if whole { all.len() } else { PIECE };
        assert_eq!(stream, all[..sent]);

        let mut ack = opened.from_node(Flags::ACK, 0, 0, &[]);
        ack.ack = opened.syn.seq.wrapping_add(1 + PIECE as u32);
        let seen = bench.from_node(&ack);
        assert_eq!(seen.segment().destination, opened.client.address);
        let retransmission = opened.client.send(bench, 900, &hello[900..1_000]).all();
        assert_eq!(retransmission[0].seq, ack.ack);
        let rest: Vec<u8> = retransmission
            .iter()
            .flat_map(|s| s.payload.clone())
            .collect();
        assert_eq!(rest, all[PIECE..]);
        let path = mode.path_base() + bench.node_number(0);
        assert!(bench.maps.path_stats(path)[8] >= 4, "replays");
    });
}

/// Other bytes in place of the kept ones are not what the node gets.
#[test]
fn a_retransmission_with_other_bytes() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let first = opened.accept(bench);
        let forged = vec![0xee; opened.hello.len() + 50];
        for at in [0, 10, 0_u32.wrapping_sub(30)] {
            // Soon after the first time none of it is sent, and nothing of the client's either.
            bench
                .maps
                .set(|settings| settings.syn_interval_us = 60_000_000);
            opened.client.send(bench, at, &forged).dropped(Absorbed);
            bench.maps.set(|settings| settings.syn_interval_us = 0);
            let seen = opened.client.send(bench, at, &forged);
            assert_eq!(seen.all(), first, "our bytes in place of the client's");
        }
    });
}

/// One byte of the client's, sent all the time, does not make the entrance send 16 KB each time.
#[test]
fn a_client_that_asks_for_it_all_the_time() {
    let mut bench = Bench::new();
    bench
        .maps
        .set(|settings| settings.syn_interval_us = 200_000);
    for mode in Mode::ALL {
        let bench = &mut bench;
        let hello = Hello::small(mode.name());
        let rest = 16_000 - 5 - hello.message().len() - 4;
        let hello = hello.extension(0xbeef, vec![0xe7; rest]).record();
        let opened = open_long(bench, mode, &hello);
        let first: usize = opened.accept(bench).iter().map(|s| s.payload.len()).sum();
        let begin = std::time::Instant::now();
        let mut sent = 0;
        while begin.elapsed() < Duration::from_millis(700) {
            let seen = opened.client.send(bench, 0, &hello[..1]);
            sent += seen.all().iter().map(|s| s.payload.len()).sum::<usize>();
            let seen = bench.from_node(&opened.syn_ack(&NODE));
            sent += seen.all().iter().map(|s| s.payload.len()).sum::<usize>();
        }
        // At 200 and at 600 ms.
        assert!((1..=2 * first).contains(&sent), "{sent} of {first}");
    }
}

#[test]
fn data_behind_the_hello_waits_for_the_node_only() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let data = opened.from_client(Flags::PSH_ACK, 9, 0, b"finished");
        bench.from_client(&data).dropped(BeforeNode);
        opened.accept(bench);
        let seen = bench.from_client(&data);
        assert_eq!(seen.reasons, []);
        let segment = seen.segment();
        assert_eq!(
            (&segment.payload[..], segment.seq),
            (&b"finished"[..], data.seq)
        );
        assert_eq!(segment.destination, opened.syn.destination);
    });
}

#[test]
fn answers_that_are_none() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        let good = opened.syn_ack(&NODE);
        let mut wrong = good.clone();
        wrong.ack = wrong.ack.wrapping_add(1);
        let mut bare = good.clone();
        bare.flags = Flags::SYN;
        bench.from_node(&bare).dropped(Absorbed);
        let mut early = opened.from_node(Flags::PSH_ACK, 0, 0, b"early");
        early.ack = good.ack;
        bench.from_node(&early).dropped(Absorbed);
        let mut broken = good.to_bytes();
        broken[if bench.shape.v6 { 45 } else { 25 }] ^= 1;
        bench.tunnel_packet(&broken).dropped(BadChecksum);
        let mut reset = wrong.clone();
        reset.flags = Flags::RST_ACK;
        bench.from_node(&reset).dropped(Absorbed);
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!((flow.state, flow.delta), (state::CONNECTING, 0));
        assert_eq!(joined(&opened, &opened.accept(bench)).len(), {
            opened.client.isn.wrapping_sub(opened.syn.seq) as usize + opened.hello.len()
        });
    });
}

/// The node's options, and what the flow knows of them.
#[test]
fn options_of_the_node() {
    let mut bench = Bench::new();
    for (options, scale, mss) in [
        (&[][..], NO_SCALE, 536),
        (&[3, 3, 14, 0], 14, 536),
        (&NODE, 9, 1_380),
        (&[2, 4, 5, 180], NO_SCALE, 1_460),
        (&[2, 4, 35, 0, 3, 3, 0, 0], 0, 8_960),
    ] {
        let opened = Client::open(&mut bench, Mode::Transparent);
        let seen = bench.from_node(&opened.syn_ack(options));
        let stream: Vec<u8> = seen.all().iter().flat_map(|s| s.payload.clone()).collect();
        assert_eq!(stream, opened.hello);
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!(flow.node_options(), NodeOptions::new(scale, mss, false));
    }
}

/// The event of an accepted flow, and what is counted of it.
#[test]
fn an_accepted_flow_is_told() {
    each_shape_and_mode(|bench, mode| {
        let node = bench.node_number(0);
        let path = mode.path_base() + node;
        let (node_before, path_before) = (bench.maps.node_stats(node), bench.maps.path_stats(path));
        bench.maps.events();
        let hello = Hello::browser(mode.name(), 4).record();
        let opened = open_long(bench, mode, &hello);
        opened.accept(bench);
        let [event] = bench.maps.events()[..] else {
            panic!("one event")
        };
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!((event.kind, event.reason), (event_kind::OPENED, 0));
        assert_eq!(
            event.flow,
            bench.flow_key(opened.client.address, Refusal::Alert)
        );
        assert_eq!((event.path, event.unique_id), (path, flow.unique_id()));
        assert_eq!((event.hello_segments, event.syns), (2, 1));
        assert_eq!(
            event.name[..event.name_len as usize],
            *mode.name().as_bytes()
        );
        assert_eq!(event.name_id, flow.name);
        let (node_after, path_after) = (bench.maps.node_stats(node), bench.maps.path_stats(path));
        assert_eq!(node_after[3], node_before[3] + 1, "accepted");
        assert_eq!(
            node_after[4] - node_before[4],
            u64::from(event.duration),
            "connect time"
        );
        let bucket = |stats: &[u64]| stats[5..21].iter().sum::<u64>();
        assert_eq!(bucket(&node_after), bucket(&node_before) + 1);
        let expected = (0..15).find(|i| event.duration <= 250 << i).unwrap_or(15);
        assert_eq!(node_after[5 + expected], node_before[5 + expected] + 1);
        assert_eq!(path_after[4], path_before[4] + 1, "opened");
        assert_eq!(path_after[8], path_before[8] + 1, "replays");
    });
}
