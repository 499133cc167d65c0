//! Segments before any byte of a hello: absorbed, answered with FIN, or reset.

use forwarder_common::abi::Settings;
use forwarder_common::token_bucket::Limit;
use forwarder_common::verdict::DropReason::{
    self, Absorbed, MalformedSegment, OutOfOrder, UnknownFlow,
};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::Client;
use forwarder_tests::programs::shape::{Refusal, Shape};

fn each_shape(mut test: impl FnMut(&mut Bench)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        test(&mut bench);
    }
}

#[test]
fn the_third_packet_of_the_handshake_is_absorbed() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        for flags in [Flags::ACK, Flags::PSH_ACK, Flags::ACK.with(Flags::ECE)] {
            bench
                .from_client(&client.segment(flags, 0, &[]))
                .dropped(Absorbed);
        }
    });
}

#[test]
fn a_client_that_leaves_without_a_word_is_done() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        let fin = client.segment(Flags::FIN_ACK, 0, &[]);
        let answer = client.answer(Flags::FIN_ACK, 0, 1, 0);
        bench.from_client(&fin).expect(&answer, &[Absorbed]);
        // The same again, should the answer be lost.
        bench.from_client(&fin).expect(&answer, &[Absorbed]);
        // And its last acknowledgement, of our FIN.
        let mut last = client.segment(Flags::ACK, 1, &[]);
        last.ack = last.ack.wrapping_add(1);
        bench.from_client(&last).dropped(Absorbed);
        assert_eq!(bench.maps.hello_index.keys().count(), 0);
    });
}

#[test]
fn resets_are_absorbed() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        for flags in [Flags::RST, Flags::RST_ACK] {
            bench
                .from_client(&client.segment(flags, 0, &[]))
                .dropped(Absorbed);
        }
        let stranger = Client::new(bench, Refusal::Alert);
        bench
            .from_client(&stranger.segment(Flags::RST, 0, &[]))
            .dropped(Absorbed);
    });
}

#[test]
fn a_segment_without_a_cookie_is_reset() {
    each_shape(|bench| {
        // What a client sends whose flow was forgotten, and the reset it must get (RFC 9293 3.10.7.1).
        let ack = |client: &Client, flags| client.segment(flags, 0, b"late");
        for flags in [Flags::ACK, Flags::PSH_ACK, Flags::FIN_ACK] {
            let mut client = Client::new(bench, Refusal::Alert);
            client.forge();
            let segment = ack(&client, flags);
            let mut reset = Segment::new(client.vip, client.address, Flags::RST);
            reset.seq = segment.ack;
            reset.window = 0;
            bench.from_client(&segment).expect(&reset, &[UnknownFlow]);
        }
        let mut client = Client::new(bench, Refusal::Alert);
        client.forge();
        let segment = ack(&client, Flags::FIN);
        let mut reset = Segment::new(client.vip, client.address, Flags::RST_ACK);
        reset.ack = segment.end();
        reset.window = 0;
        bench.from_client(&segment).expect(&reset, &[UnknownFlow]);
    });
}

/// A good cookie with other numbers, or of another connection, is none.
#[test]
fn a_cookie_is_good_for_its_own_segment_only() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        // Ahead of the first byte: an overtaking segment, which comes again.
        client.send(bench, 5, b"later").dropped(OutOfOrder);
        let mut wrong = client.segment(Flags::PSH_ACK, 0, b"x");
        wrong.ack = wrong.ack.wrapping_add(0x0001_0000);
        wrong.seq = wrong.seq.wrapping_add(9);
        // The tuple's part still fits: silence.
        bench.from_client(&wrong).dropped(OutOfOrder);
        let mut forged = client.clone();
        forged.forge();
        assert_eq!(forged.send(bench, 0, b"x").reasons, [UnknownFlow]);
        let mut thief = Client::new(bench, Refusal::Alert);
        (thief.isn, thief.cookie) = (client.isn, client.cookie);
        if !thief.is_cookie(thief.cookie) {
            // By chance, once in 128, the tuple's part fits another connection too: then silence.
            let seen = thief.send(bench, 0, b"stolen");
            assert!(
                [UnknownFlow, OutOfOrder].contains(&seen.reasons[0]),
                "{seen:?}"
            );
        }
        assert_eq!(bench.maps.hello_index.keys().count(), 0);
    });
}

#[test]
fn flags_that_no_stack_sends() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        for flags in [
            Flags(0),
            Flags::PSH,
            Flags::URG,
            Flags::SYN.with(Flags::FIN),
            Flags::SYN.with(Flags::RST),
            Flags::SYN_ACK,
            Flags(0x3f),
        ] {
            bench
                .from_client(&client.segment(flags, 0, &[]))
                .dropped(MalformedSegment);
        }
    });
}

#[test]
fn resets_are_rationed() {
    let mut bench = Bench::new();
    let limit = Limit::per_second(1, 3);
    bench.maps.set(|settings: &mut Settings| {
        settings.reset_interval_ns = limit.interval_ns;
        settings.reset_fill_ns = limit.fill_ns;
    });
    let mut counts = [0; 2];
    for _ in 0..40 {
        let mut client = Client::new(&mut bench, Refusal::Alert);
        client.forge();
        let seen = client.send(&mut bench, 0, b"who");
        match seen.reasons[..] {
            [UnknownFlow] => counts[0] += 1,
            [DropReason::ResetRateLimited] => {
                assert_eq!(seen.bytes, None);
                counts[1] += 1;
            }
            _ => panic!("{seen:?}"),
        }
    }
    // Three at once on each CPU that took part, and one more should a second pass meanwhile.
    assert!(
        (3..=10).contains(&counts[0]) && counts[1] >= 30,
        "{counts:?}"
    );
}
