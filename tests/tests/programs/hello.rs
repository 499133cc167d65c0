//! A hello in pieces: what is kept, what is acknowledged, and which bytes win.

use forwarder_common::abi::{HELLO_CAP, HELLO_PREFIX, hello_state};
use forwarder_common::cookie;
use forwarder_common::verdict::DropReason::{self, Absorbed, BadChecksum, OutOfOrder};
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, now_ns};
use forwarder_tests::programs::seen::Seen;
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

fn each_shape(mut test: impl FnMut(&mut Bench)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        test(&mut bench);
    }
}

fn hello() -> Vec<u8> {
    Hello::browser(Mode::Transparent.name(), 5)
        .name_last()
        .record()
}

/// What is kept of a client's stream.
fn kept(bench: &Bench, client: &Client) -> Vec<u8> {
    let (_, hello) = bench
        .hello(client.address, client.refusal)
        .expect("a buffer");
    assert_eq!(hello.users, 0, "nobody holds it between two packets");
    hello.bytes[HELLO_PREFIX..][..hello.stored as usize].to_vec()
}

/// The acknowledgement of `stored` bytes of a hello.
fn acknowledgement(client: &Client, stored: usize) -> Segment {
    let room = (HELLO_CAP - stored).div_ceil(128);
    client.answer(Flags::ACK, 0, stored as u32, room as u16)
}

#[track_caller]
fn assert_opened(bench: &Bench, client: &Client, syn: &Segment, bytes: &[u8]) {
    assert_eq!((syn.flags, syn.seq), (Flags::SYN, client.isn));
    assert_eq!(kept(bench, client), bytes);
    let (_, hello) = bench.hello(client.address, client.refusal).unwrap();
    assert_eq!(hello.state, hello_state::ROUTED);
    assert!(bench.flow(client.address, client.refusal).is_some());
}

#[test]
fn in_two_segments() {
    each_shape(|bench| {
        let bytes = hello();
        for at in [1, 5, 44, 700, 1_360, bytes.len() - 1] {
            let client = Client::connect(bench, Refusal::Alert);
            let seen = client.send(bench, 0, &bytes[..at]);
            seen.expect(&acknowledgement(&client, at), &[]);
            assert_eq!(kept(bench, &client), bytes[..at]);
            let seen = client.send(bench, at as u32, &bytes[at..]);
            assert_opened(bench, &client, &seen.segment(), &bytes);
        }
    });
}

#[test]
fn byte_by_byte() {
    for v6 in [false, true] {
        let mut bench = Bench::new();
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        let bytes = Hello::small(Mode::Transparent.name()).record();
        let client = Client::connect(&mut bench, Refusal::Reset);
        for (at, byte) in bytes.iter().enumerate() {
            let seen = client.send(&mut bench, at as u32, &[*byte]);
            if at + 1 < bytes.len() {
                seen.expect(&acknowledgement(&client, at + 1), &[]);
            } else {
                assert_opened(&bench, &client, &seen.segment(), &bytes);
            }
        }
        let stats = bench.maps.listener_stats(1);
        let count = bytes.len() as u64;
        assert_eq!(stats[..3], [1, 1, 1], "SYNs, cookies sent, cookies checked");
        assert_eq!(
            stats[4..7],
            [1, count, count],
            "hellos, their bytes, their segments"
        );
        assert_eq!(stats[8..11], [1, 0, count + 1], "opened, refused, packets");
    }
}

/// The acknowledged window is what the client's own scale makes of the room that is left.
#[test]
fn windows_of_clients_without_a_scale() {
    each_shape(|bench| {
        let client = Client::connect_with(bench, Refusal::Alert, &[2, 4, 5, 180]);
        let bytes = hello();
        let seen = client.send(bench, 0, &bytes[..100]);
        let room = (HELLO_CAP - 100) as u16;
        seen.expect(&client.answer(Flags::ACK, 0, 100, room), &[]);
    });
}

#[test]
fn out_of_order() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        // Before the first byte there is nothing to answer from.
        client.send(bench, 600, &bytes[600..]).dropped(OutOfOrder);
        let first = client.send(bench, 0, &bytes[..300]);
        first.expect(&acknowledgement(&client, 300), &[]);
        // From then on a gap is answered at once, so that the client resends early.
        let ahead = client.send(bench, 600, &bytes[600..]);
        ahead.expect(&acknowledgement(&client, 300), &[OutOfOrder]);
        assert_eq!(kept(bench, &client), bytes[..300]);
        let middle = client.send(bench, 300, &bytes[300..600]);
        middle.expect(&acknowledgement(&client, 600), &[]);
        let seen = client.send(bench, 600, &bytes[600..]);
        assert_opened(bench, &client, &seen.segment(), &bytes);
    });
}

#[test]
fn twice() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        for (at, end) in [(0, 500), (0, 100), (400, 500)] {
            let again = client.send(bench, at as u32, &bytes[at..end]);
            again.expect(&acknowledgement(&client, 500), &[Absorbed]);
        }
        assert_eq!(kept(bench, &client), bytes[..500]);
    });
}

/// First bytes win: what was read once cannot be replaced by what is sent later.
#[test]
fn overlapping_with_other_bytes() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        client.send(bench, 100, &[0xaa; 400]);
        let mut piece = vec![0xbb; 250];
        piece.extend(&bytes[500..900]);
        let seen = client.send(bench, 250, &piece);
        seen.expect(&acknowledgement(&client, 900), &[]);
        assert_eq!(kept(bench, &client), bytes[..900]);
        let mut whole = vec![0xcc; 900];
        whole.extend(&bytes[900..]);
        let seen = client.send(bench, 0, &whole);
        assert_opened(bench, &client, &seen.segment(), &bytes);
    });
}

/// A segment from before the first byte, as a keep-alive probe is, changes nothing.
#[test]
fn before_the_first_byte() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        let probe = client.segment(Flags::ACK, u32::MAX, b"x");
        let seen = bench.from_client(&probe);
        seen.expect(&acknowledgement(&client, 500), &[Absorbed]);
        // Straddling the first byte: the part behind it counts.
        let mut piece = vec![0xdd];
        piece.extend(&bytes[..600]);
        let seen = bench.from_client(&client.segment(Flags::ACK, u32::MAX, &piece));
        seen.expect(&acknowledgement(&client, 600), &[]);
        assert_eq!(kept(bench, &client), bytes[..600]);
    });
}

/// Changes the TCP checksum field.
fn with_checksum(bench: &Bench, segment: &Segment, change: impl FnOnce(u16) -> u16) -> Vec<u8> {
    let at = if bench.shape.v6 { 56 } else { 36 };
    let mut bytes = segment.to_bytes();
    let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&change(old).to_be_bytes());
    bytes
}

/// A stored segment goes on under a fresh checksum, so a broken one must not be stored.
#[test]
fn with_a_broken_checksum() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        let first = client.segment(Flags::PSH_ACK, 0, &bytes[..500]);
        for change in [1, 0x100, 0x8000] {
            let broken = with_checksum(bench, &first, |sum| sum ^ change);
            bench.public_packet(&broken).dropped(BadChecksum);
        }
        let mut flipped = first.to_bytes();
        *flipped.last_mut().unwrap() ^= 4;
        bench.public_packet(&flipped).dropped(BadChecksum);
        assert!(
            bench.hello(client.address, Refusal::Alert).is_none(),
            "no buffer was kept"
        );
        bench
            .from_client(&first)
            .expect(&acknowledgement(&client, 500), &[]);
        let second = client.segment(Flags::PSH_ACK, 500, &bytes[500..]);
        bench
            .public_packet(&with_checksum(bench, &second, |sum| !sum))
            .dropped(BadChecksum);
        assert_eq!(kept(bench, &client), bytes[..500]);
        let seen = bench.from_client(&second);
        assert_opened(bench, &client, &seen.segment(), &bytes);
    });
}

/// What a device or GRO has checked already holds only the pseudo-header's sum.
#[test]
fn with_a_checksum_that_is_still_to_be_finished() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        let segment = client.segment(Flags::PSH_ACK, 0, &bytes[..333]);
        let packet = segment.to_bytes();
        let ip = if bench.shape.v6 { 40 } else { 20 };
        let length = (packet.len() - ip) as u16;
        let addresses = if bench.shape.v6 {
            &packet[8..40]
        } else {
            &packet[12..20]
        };
        let sum = forwarder_common::checksum::Sum::of_bytes(addresses)
            .add_u16_raw(6_u16.to_be())
            .add_u16_raw(length.to_be());
        let unfinished = with_checksum(bench, &segment, |_| u16::from_be(sum.fold16()));
        let seen = bench.public_packet(&unfinished);
        seen.expect(&acknowledgement(&client, 333), &[]);
    });
}

#[test]
fn a_client_that_leaves_in_the_middle() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        let (_, before) = bench.maps.free();
        // A FIN behind bytes that are missing waits for them.
        let early = client.segment(Flags::FIN_ACK, 600, &[]);
        bench.from_client(&early).dropped(Absorbed);
        let fin = client.segment(Flags::FIN_ACK, 500, &[]);
        let answer = client.answer(Flags::FIN_ACK, 0, 501, 0);
        bench.from_client(&fin).expect(&answer, &[Absorbed]);
        assert!(bench.hello(client.address, Refusal::Alert).is_none());
        assert_eq!(bench.maps.free().1.len(), before.len() + 1);
    });
}

/// Only the exact number ends it (RFC 5961 3.2); and it is not answered.
#[test]
fn a_reset_in_the_middle() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        for at in [0, 499, 501, 60_000] {
            bench
                .from_client(&client.segment(Flags::RST, at, &[]))
                .dropped(Absorbed);
            assert_eq!(kept(bench, &client).len(), 500);
        }
        bench
            .from_client(&client.segment(Flags::RST, 500, &[]))
            .dropped(Absorbed);
        assert!(bench.hello(client.address, Refusal::Alert).is_none());
    });
}

#[test]
fn another_acknowledgement_number_in_the_middle() {
    each_shape(|bench| {
        let bytes = hello();
        let mut client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        client.forge();
        client.send(bench, 500, &bytes[500..]).dropped(Absorbed);
        assert_eq!(kept(bench, &client), bytes[..500]);
    });
}

/// A client that forgot a connection may use its port again at once.
#[test]
fn another_connection_from_the_same_port() {
    each_shape(|bench| {
        let bytes = hello();
        let unlisted = Hello::browser("other.example.org", 6).name_last().record();
        for (abandoned, sent) in [(&bytes, 500), (&unlisted, unlisted.len())] {
            let mut client = Client::connect(bench, Refusal::Alert);
            for piece in abandoned[..sent].chunks(1_000).scan(0, |at, piece| {
                let start = *at;
                *at += piece.len();
                Some((start, piece))
            }) {
                client.send(bench, piece.0 as u32, piece.1);
            }
            assert!(bench.hello(client.address, Refusal::Alert).is_some());
            client.isn = client.isn.wrapping_add(0x4000_0000);
            client.cookie = bench.from_client(&client.syn(&LINUX)).segment().seq;
            let seen = client.send(bench, 0, &bytes[..700]);
            seen.expect(&acknowledgement(&client, 700), &[]);
            let seen = client.send(bench, 700, &bytes[700..]);
            assert_opened(bench, &client, &seen.segment(), &bytes);
        }
    });
}

/// The other processor holds the buffer: this packet goes, and comes again.
#[test]
fn held_by_another_processor() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &bytes[..500]);
        let (slot, mut hello) = bench.hello(client.address, Refusal::Alert).unwrap();
        hello.users = 1;
        bench.maps.hellos.set(slot, *hello, 0).unwrap();
        let rest = client.segment(Flags::PSH_ACK, 500, &bytes[500..]);
        bench.from_client(&rest).dropped(DropReason::HelloBusy);
        hello.users = 0;
        bench.maps.hellos.set(slot, *hello, 0).unwrap();
        let seen = bench.from_client(&rest);
        assert_opened(bench, &client, &seen.segment(), &bytes);
    });
}

/// Options of data segments, timestamps or SACK, are no part of the stream.
#[test]
fn segments_with_options() {
    each_shape(|bench| {
        let bytes = hello();
        let client = Client::connect(bench, Refusal::Alert);
        let mut first = client.segment(Flags::PSH_ACK, 0, &bytes[..777]);
        first.options = vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        bench
            .from_client(&first)
            .expect(&acknowledgement(&client, 777), &[]);
        let mut second = client.segment(Flags::PSH_ACK.with(Flags::CWR), 777, &bytes[777..]);
        second.options = vec![1; 40];
        let seen = bench.from_client(&second);
        assert_opened(bench, &client, &seen.segment(), &bytes);
    });
}

/// A cookie lives in its own epoch, and in the next one as long as the former is fresh.
#[test]
fn how_long_a_cookie_lives() {
    each_shape(|bench| {
        let bytes = hello();
        let fresh = cookie::accepts_previous(now_ns(), false);
        for (age, good) in [(0, true), (1, fresh), (2, false), (64, false), (256, false)] {
            // Should the epoch change between the two looks at the clock, the next try decides.
            let accepted = (0..2).any(|_| {
                let mut client = Client::new(bench, Refusal::Alert);
                client.cookie = client.old_cookie(age);
                client.send(bench, 0, &bytes[..100]).reasons.is_empty()
            });
            assert_eq!(accepted, good, "{age} epochs old");
        }
    });
}

/// What is left of a flow that is over: its client learns it, and the buffer is free again.
#[test]
fn a_hello_whose_flow_is_gone() {
    each_shape(|bench| {
        let opened = Client::open(bench, Mode::Transparent);
        let key = bench.flow_key(opened.client.address, Refusal::Alert);
        bench.maps.flows.remove(&key).unwrap();
        // Whoever removes a flow counts it.
        bench.uncount(&key.client);
        let (_, buffers) = bench.maps.free();
        let segment = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
        let mut reset = Segment::new(segment.destination, segment.source, Flags::RST);
        (reset.seq, reset.window) = (segment.ack, 0);
        bench
            .from_client(&segment)
            .expect(&reset, &[DropReason::UnknownFlow]);
        assert_eq!(bench.maps.free().1.len(), buffers.len() + 1);
    });
}

/// The entrance has the room that it announces, so every length comes to its verdict, whatever is left of the window.
#[test]
fn every_length_is_judged() {
    let mut bench = Bench::new();
    for options in [&LINUX[..], &[2, 4, 5, 180]] {
        for length in (16_200..=16_390)
            .step_by(10)
            .chain([16_384, 16_388, 16_389])
        {
            let bytes = Hello::small(Mode::Transparent.name())
                .padded_to(length)
                .record();
            let client = Client::connect_with(&mut bench, Refusal::Reset, options);
            let (mut at, mut edge, mut packets) = (0, 16_384, 0);
            let last = loop {
                let end = bytes.len().min(at + 1_380).min(edge);
                assert!(end > at, "{length}: no window at {at}");
                let seen = client.send(&mut bench, at as u32, &bytes[at..end]);
                let answer = seen.segment();
                if answer.flags != Flags::ACK {
                    break answer;
                }
                packets += 1;
                assert!(packets < 20, "{length}");
                at = answer.ack.wrapping_sub(client.isn).wrapping_sub(1) as usize;
                let unit = if options.len() == LINUX.len() { 128 } else { 1 };
                let right = at + usize::from(answer.window) * unit;
                // Rounded to its unit, it may come back by less than that.
                assert!(
                    right + unit > edge,
                    "{length}: a window that shrinks, at {at}"
                );
                edge = right;
            };
            // Less the four bytes before its body.
            if length <= 16_388 {
                assert_opened(&bench, &client, &last, &bytes);
            } else {
                assert!(last.flags.has(Flags::RST), "{length}: {last:?}");
            }
            bench.from_client(&client.segment(Flags::RST, 0, &[]));
        }
    }
}

/// A probe of the window, or a keep-alive, is answered (RFC 9293 3.8.4, 3.8.6.1).
#[test]
fn a_probe_in_the_middle() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &hello()[..500]);
        let probe = client.segment(Flags::ACK, 499, &[]);
        let answer = acknowledgement(&client, 500);
        bench.from_client(&probe).expect(&answer, &[Absorbed]);
        bench
            .from_client(&client.segment(Flags::ACK, 500, &[]))
            .dropped(Absorbed);
    });
}

/// What follows a hello before its node has answered is kept, as far as there is room, and sent with it.
#[test]
fn data_behind_a_hello() {
    each_shape(|bench| {
        for mode in Mode::ALL {
            let opened = Client::open(bench, mode);
            let first = opened.from_client(Flags::PSH_ACK, 0, 0, b"early ");
            let broken = with_checksum(bench, &first, |sum| !sum);
            bench.public_packet(&broken).dropped(BadChecksum);
            bench.from_client(&first).dropped(Absorbed);
            // One that overtook another is for the client to send again.
            let ahead = opened.from_client(Flags::PSH_ACK, 9, 0, b"late");
            bench.from_client(&ahead).dropped(DropReason::BeforeNode);
            let second = opened.from_client(Flags::PSH_ACK, 6, 0, b"data");
            bench.from_client(&second).dropped(Absorbed);
            let whole = [&opened.hello[..], b"early data"].concat();
            assert_eq!(kept(bench, &opened.client), whole);
            let sent: Vec<u8> = opened
                .accept(bench)
                .iter()
                .flat_map(|segment| segment.payload.clone())
                .collect();
            assert!(sent.ends_with(&whole));
            // Acknowledged in part, it is kept on.
            bench.from_node(&opened.from_node(Flags::ACK, 0, 0, &[]));
            assert_eq!(kept(bench, &opened.client), whole);
            bench.from_node(&opened.from_node(Flags::ACK, 0, 10, &[]));
            assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
            let more = opened.from_client(Flags::PSH_ACK, 10, 0, b"more");
            let passed = bench.from_client(&more).segment();
            assert_eq!(passed.payload, b"more");
            assert_eq!(passed.destination, opened.syn.destination);
        }
    });
}

/// After an alert, a client that has it and writes on is reset; one that says goodbye is not.
#[test]
fn a_client_that_writes_on_after_the_alert() {
    each_shape(|bench| {
        for pieces in [1, 2] {
            let bytes = Hello::small("other.example.org").record();
            // Whose acknowledgement of the alert looks like that of another cookie is told nothing.
            let client = (0..10)
                .map(|_| Client::connect(bench, Refusal::Alert))
                .find(|client| !client.is_of_these_ends(client.cookie.wrapping_add(8)))
                .unwrap();
            let size = bytes.len().div_ceil(pieces);
            let mut last = None;
            for (number, piece) in bytes.chunks(size).enumerate() {
                last = Some(client.send(bench, (number * size) as u32, piece).segment());
            }
            let alert = last.unwrap();
            assert_eq!(
                (alert.payload.len(), alert.flags.has(Flags::FIN)),
                (7, true)
            );
            let end = bytes.len() as u32;
            // On their way when the alert came: a reset might overtake it.
            let on_its_way = client.segment(Flags::PSH_ACK, end, b"GET / HTTP/1.0");
            let seen = bench.from_client(&on_its_way);
            assert!(seen.bytes.is_none(), "{seen:?}");
            let has_it = |flags, at, payload: &[u8]| {
                let mut segment = client.segment(flags, at, payload);
                segment.ack = segment.ack.wrapping_add(8);
                segment
            };
            let acknowledged = bench.from_client(&has_it(Flags::ACK, end, &[]));
            assert!(acknowledged.bytes.is_none(), "{acknowledged:?}");
            for _ in 0..2 {
                let again = has_it(Flags::PSH_ACK, end, b"GET / HTTP/1.0");
                let reset = bench.from_client(&again).segment();
                assert_eq!((reset.flags, reset.seq), (Flags::RST, again.ack));
            }
            let fin = bench
                .from_client(&has_it(Flags::FIN_ACK, end, &[]))
                .segment();
            assert_eq!(
                (fin.flags, fin.ack),
                (Flags::ACK, client.isn.wrapping_add(end + 2))
            );
        }
    });
}

/// A name that is listed and cannot be served is not called unrecognized.
#[test]
fn listed_names_that_cannot_be_served_are_reset() {
    each_shape(|bench| {
        let hello = Hello::small("empty.example.org").record();
        for (refusal, answered) in [
            (Refusal::Alert, true),
            (Refusal::Reset, true),
            (Refusal::Drop, false),
        ] {
            let client = Client::connect(bench, refusal);
            let seen = client.send(bench, 0, &hello);
            assert_eq!(seen.reasons, [DropReason::NoNode]);
            if answered {
                let reset = client.answer(Flags::RST_ACK, 0, hello.len() as u32, 0);
                assert_eq!(seen.segment(), reset);
            } else {
                assert!(seen.bytes.is_none());
            }
        }
    });
}

/// Puts a whole hello where it would be stored, for a test run takes no packet of that size, and has it read
/// to its end by a client that sends one byte again. Returns the verdict, and how many packets it took.
#[track_caller]
fn read_at_once(bench: &mut Bench, client: &Client, bytes: &[u8]) -> (Seen, usize) {
    client.send(bench, 0, &bytes[..1]);
    let (slot, mut hello) = bench.hello(client.address, client.refusal).unwrap();
    hello.bytes[HELLO_PREFIX..][..bytes.len()].copy_from_slice(bytes);
    hello.stored = bytes.len() as u32;
    bench.maps.hellos.set(slot, *hello, 0).unwrap();
    for packets in 1..4 {
        let seen = client.send(bench, 0, &bytes[..1]);
        if seen.reasons != [DropReason::KernelRefused] {
            return (seen, packets);
        }
        assert_eq!(kept(bench, client), bytes);
    }
    panic!("three packets were not enough")
}

/// A hello that takes the reader as many steps as its kind of records can.
fn longest(size: usize) -> Vec<u8> {
    let fits =
        |hello: &Hello| hello.message().len() <= 16_380 && hello.records(size).len() <= HELLO_CAP;
    let many = (0..)
        .map(|n| with_extensions(10 * n))
        .take_while(fits)
        .last();
    many.unwrap().records(size)
}

fn with_extensions(count: u16) -> Hello {
    let hello = Hello::small(Mode::Transparent.name());
    (0..count).fold(hello, |hello, n| hello.extension(0x4000 + n, Vec::new()))
}

#[test]
fn hellos_that_take_longest_to_read() {
    let mut bench = Bench::new();
    for size in [16_384, 16, 2, 1] {
        let bytes = longest(size);
        let client = Client::connect(&mut bench, Refusal::Alert);
        let (seen, packets) = read_at_once(&mut bench, &client, &bytes);
        assert_opened(&bench, &client, &seen.segment(), &bytes);
        assert!(packets <= 2, "{packets} packets for records of {size}");
    }
}

/// Wherever the reader has to stop for one packet, it goes on from there with the next: in the middle, right
/// before its last step, and right before what it leads to.
#[test]
fn reading_goes_on_where_it_stopped() {
    let mut bench = Bench::new();
    let hello = Hello::small(Mode::Transparent.name()).record();
    let mut stops = [0; 2];
    for count in (500..585).step_by(3) {
        for length in 0..6 {
            let hello_bytes = |twice: bool| {
                let mut long = with_extensions(count).extension(0xbeef, vec![7; length]);
                if twice {
                    long = long.extension(0, vec![0, 4, 0, 0, 1, b'a']);
                }
                long.records(1)
            };
            let client = Client::connect(&mut bench, Refusal::Reset);
            let bytes = hello_bytes(false);
            let (seen, packets) = read_at_once(&mut bench, &client, &bytes);
            assert_opened(&bench, &client, &seen.segment(), &bytes);
            stops[packets - 1] += 1;
            let reset = client.segment(Flags::RST, bytes.len() as u32, &[]);
            bench.from_client(&reset).dropped(Absorbed);

            let client = Client::connect(&mut bench, Refusal::Reset);
            let bytes = hello_bytes(true);
            let (seen, _) = read_at_once(&mut bench, &client, &bytes);
            let reset = client.answer(Flags::RST_ACK, 0, bytes.len() as u32, 0);
            seen.expect(&reset, &[DropReason::SeveralServerNames]);
        }
    }
    assert!(stops[0] > 20 && stops[1] > 20, "packets it took: {stops:?}");
    let opened = Client::open_with(&mut bench, Mode::Transparent, &hello);
    assert_eq!(opened.syn.flags, Flags::SYN);
}
