//! A node that still knows an older connection of the same ends answers our SYN with an acknowledgement of that one:
//! it is told to forget it, and asked again at once, as a socket in our place does (RFC 9293 3.10.7.3).

use forwarder_common::abi::state;
use forwarder_common::verdict::DropReason::{Absorbed, BadChecksum};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, Opened};
use forwarder_tests::programs::shape::{Mode, Refusal};

use crate::answer::{assert_header_and_hello, each_shape_and_mode, joined};

/// What the node knew before.
const OLD_ACK: u32 = 0x0bad_cafe;
const OLD_SEQ: u32 = 0x1234_5678;
/// How many are answered for each segment of the client.
const CHALLENGES: usize = 3;

fn challenge(opened: &Opened, flags: Flags, payload: &[u8]) -> Segment {
    let mut old = opened.from_node(flags, 0, 0, payload);
    (old.seq, old.ack) = (OLD_SEQ, OLD_ACK);
    old
}

/// The reset that ends what the node knows.
fn reset(opened: &Opened) -> Segment {
    let mut reset = Segment::new(opened.syn.source, opened.syn.destination, Flags::RST);
    (reset.seq, reset.window) = (OLD_ACK, 0);
    reset
}

#[track_caller]
fn assert_connecting(bench: &Bench, opened: &Opened) {
    let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
    assert_eq!((flow.state, flow.delta), (state::CONNECTING, 0));
}

#[test]
fn a_challenge_draws_a_reset_and_another_syn() {
    each_shape_and_mode(|bench, mode| {
        // Of an established connection, of one in TIME_WAIT, with data or a FIN that come again, and a late SYN-ACK.
        let kinds = [
            (Flags::ACK, &b""[..]),
            (Flags::PSH_ACK, b"of another time"),
            (Flags::FIN_ACK, b""),
            (Flags::SYN_ACK, b""),
        ];
        for (flags, payload) in kinds {
            let opened = Client::open(bench, mode);
            let seen = bench.from_node(&challenge(&opened, flags, payload));
            assert_eq!(seen.reasons, []);
            assert_eq!(
                seen.all(),
                [reset(&opened), opened.syn.clone()],
                "{flags:?}"
            );
            assert_connecting(bench, &opened);
            let stream = joined(&opened, &opened.accept(bench));
            assert_header_and_hello(bench, &opened, &stream, None);
        }
    });
}

/// No node is kept busy by it, and nor are we: a few for each time that the client moves things on.
#[test]
fn a_node_that_insists_is_not_asked_for_ever() {
    let mut bench = Bench::new();
    for mode in Mode::ALL {
        let opened = Client::open(&mut bench, mode);
        let insists = challenge(&opened, Flags::ACK, &[]);
        for _ in 0..CHALLENGES {
            assert_eq!(bench.from_node(&insists).all().len(), 2);
        }
        bench.from_node(&insists).dropped(Absorbed);
        bench.maps.set(|settings| settings.syn_interval_us = 0);
        let syn = opened.client.send(&mut bench, 0, &opened.hello).segment();
        assert_eq!(syn.flags, Flags::SYN);
        for _ in 0..CHALLENGES {
            assert_eq!(bench.from_node(&insists).all().len(), 2);
        }
        bench.from_node(&insists).dropped(Absorbed);
        bench
            .maps
            .set(|settings| settings.syn_interval_us = 60_000_000);
    }
}

/// A node that answers is not silent, whatever it answers.
#[test]
fn a_challenge_is_no_silence() {
    let mut bench = Bench::new();
    bench.maps.set(|settings| settings.syn_interval_us = 0);
    for mode in Mode::ALL {
        let node = bench.node_number(0);
        let before = bench.maps.node_stats(node);
        let opened = Client::open(&mut bench, mode);
        for _ in 0..4 {
            let seen = bench.from_node(&challenge(&opened, Flags::ACK, &[]));
            assert_eq!(seen.all().len(), 2);
            // The client's timer comes before the node's answer to the second SYN.
            let again = opened.client.send(&mut bench, 0, &opened.hello).segment();
            assert_eq!(again.destination, opened.syn.destination);
        }
        let after = bench.maps.node_stats(node);
        assert_eq!((after[1] - before[1], after[2] - before[2]), (0, 0));
        assert!(!opened.accept(&mut bench).is_empty());
    }
}

#[test]
fn what_is_no_challenge() {
    each_shape_and_mode(|bench, mode| {
        let opened = Client::open(bench, mode);
        // A reset is never answered, nor believed when it answers something else.
        for flags in [Flags::RST, Flags::RST_ACK] {
            bench
                .from_node(&challenge(&opened, flags, &[]))
                .dropped(Absorbed);
        }
        let mut broken = challenge(&opened, Flags::ACK, &[]).to_bytes();
        broken[if bench.shape.v6 { 45 } else { 25 }] ^= 1;
        bench.tunnel_packet(&broken).dropped(BadChecksum);
        // Nor is a reset of the SYN that came to harm on its way.
        let mut refusal = opened.syn_ack(&[]);
        (refusal.flags, refusal.seq) = (Flags::RST_ACK, 0);
        let mut broken = refusal.to_bytes();
        broken[if bench.shape.v6 { 45 } else { 25 }] ^= 1;
        bench.tunnel_packet(&broken).dropped(BadChecksum);
        assert_connecting(bench, &opened);
        assert!(!opened.accept(bench).is_empty());
        // Once it has accepted, what acknowledges something else is the client's affair.
        let late = challenge(&opened, Flags::ACK, &[]);
        assert_eq!(
            bench.from_node(&late).segment().destination,
            opened.client.address
        );
    });
}
