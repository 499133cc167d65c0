//! The armour in front of the public side: it answers and drops as the other hook would, keeps its hands off
//! open flows and hellos, and counts once.

use forwarder_common::abi::{Settings, tally};
use forwarder_common::cookie;
use forwarder_common::token_bucket::Limit;
use forwarder_common::verdict::DropReason::{
    Absorbed, Fragment, IpOptions, MalformedSegment, ResetRateLimited, UnknownFlow,
};
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::Flags;
use forwarder_tests::programs::bench::{Bench, ethernet};
use forwarder_tests::programs::client::{Client, LINUX, now_ns};
use forwarder_tests::programs::seen::Verdict;
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// What the armour did so far: foreign, flow, handed on, answered, dropped.
fn tallies(bench: &Bench) -> [u64; 5] {
    let mut counts = [0; 5];
    for ((slot, _), count) in tally::XDP.iter().zip(&mut counts) {
        *count = bench.maps.tally(*slot);
    }
    counts
}

fn each_family(mut test: impl FnMut(&mut Bench)) {
    for v6 in [false, true] {
        let mut bench = Bench::new();
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        bench.armoured = true;
        test(&mut bench);
    }
}

/// The same SYN at both hooks: the same answer, byte for byte.
#[test]
fn a_syn_gets_the_same_answer_at_both_hooks() {
    let blocks: [&[u8]; 8] = [
        &LINUX,
        &[],
        &[2, 4, 5, 180],
        &[4, 2, 0, 0],
        &[2, 4, 5, 180, 1, 3, 3, 8],
        &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
        &[1; 40],
        &[4, 0, 2, 4, 5, 180, 0, 0],
    ];
    each_family(|bench| {
        for (i, options) in blocks.into_iter().enumerate() {
            for payload in [0, 5, 1_300] {
                let mut client = Client::new(bench, Refusal::Alert);
                let mut syn = client.syn(options);
                syn.flags = Flags::SYN.with(Flags::ECE);
                syn.payload = vec![7; payload];
                let before = tallies(bench);
                let answer = bench.from_client(&syn);
                assert_eq!(answer.verdict, Verdict::Redirect, "block {i}");
                assert_eq!(tallies(bench)[3], before[3] + 1, "by the armour");
                client.cookie = answer.segment().seq;
                assert!(client.is_cookie(client.cookie), "block {i}");
                bench.armoured = false;
                let other = bench.from_client(&syn);
                bench.armoured = true;
                // A new epoch may have begun between the two.
                if other.segment().seq == client.cookie {
                    assert_eq!(other.bytes, answer.bytes, "block {i}");
                }
                assert!(answer.reasons.is_empty());
            }
        }
        let stats = bench.maps.listener_stats(0);
        let seen = 2 * 3 * blocks.len() as u64;
        assert_eq!(stats[..2], [seen, seen], "SYNs and cookies, once each");
        assert_eq!(stats[10], seen, "packets");
    });
}

/// A whole connection, and everything behind the handshake is the next hook's.
#[test]
fn connections_go_on_behind_it() {
    each_family(|bench| {
        for mode in Mode::ALL {
            let opened = Client::open(bench, mode);
            opened.splice(bench);
            let data = opened.from_client(Flags::PSH_ACK, 0, 0, b"request");
            let before = tallies(bench);
            let seen = bench.from_client(&data);
            assert_eq!(seen.segment().payload, b"request");
            // A SYN of an open flow is the node's to resolve.
            let again = opened.client.syn(&LINUX);
            let seen = bench.from_client(&again);
            assert_eq!(seen.segment().destination, opened.syn.destination);
            let after = tallies(bench);
            assert_eq!(after[1], before[1] + 2, "flows");
            assert_eq!((after[3], after[4]), (before[3], before[4]));
        }
    });
}

#[test]
fn hellos_in_pieces_are_handed_on() {
    each_family(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        bench
            .from_client(&client.segment(Flags::ACK, 0, &[]))
            .dropped(Absorbed);
        let hello = Hello::small(Mode::ProxyV2.name()).record();
        let (first, rest) = hello.split_at(40);
        let kept = client.send(bench, 0, first);
        assert_eq!(kept.segment().ack, client.isn.wrapping_add(41));
        // A piece that is no longer at the start has no cookie of its own: the kept part vouches for it.
        let syn = client.send(bench, 40, rest).segment();
        assert!(syn.flags.has(Flags::SYN) && syn.destination == bench.node_address(0));
        let [_, _, handed_on, ..] = tallies(bench);
        assert_eq!(handed_on, 2);
    });
}

/// All frames of a batch come by the driver's hook before the next hook sees the first: nothing vouches for
/// the second segment of a hello yet but what it acknowledges.
#[test]
fn a_second_segment_is_handed_on_before_the_first_is_kept() {
    each_family(|bench| {
        bench.maps.set(|settings: &mut Settings| {
            settings.reset_interval_ns = u64::MAX;
            settings.reset_fill_ns = 0;
        });
        let client = Client::connect(bench, Refusal::Alert);
        let second = client.segment(Flags::PSH_ACK, 1_400, b"the rest of a hello");
        let frame = ethernet(&second.to_bytes());
        assert_eq!(bench.at_driver(&frame), None, "let through");
        // Without data there is nothing to hand on.
        let bare = client.segment(Flags::ACK, 1_400, b"");
        bench.from_client(&bare).dropped(ResetRateLimited);
    });
}

/// A refused client is told so, and is done, with the armour in front.
#[test]
fn refusals_are_told() {
    each_family(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        let hello = Hello::small("private.example.org").record();
        let alert = client.send(bench, 0, &hello).segment();
        assert_eq!(alert.payload.len(), 7);
        let end = alert.payload.len() as u32 + 1;
        let mut fin = client.segment(Flags::FIN_ACK, hello.len() as u32, &[]);
        fin.ack = fin.ack.wrapping_add(end);
        let seen = bench.from_client(&fin).segment();
        assert_eq!(seen.flags, Flags::ACK);
    });
}

/// Segments that fit no cookie: a few go on and draw a reset, the rest ends here, and is counted once.
#[test]
fn a_flood_of_acks_ends_here() {
    const BURST: u32 = 3;
    each_family(|bench| {
        bench.maps.set(|settings: &mut Settings| {
            let limit = Limit::per_second(1, BURST);
            settings.reset_interval_ns = limit.interval_ns;
            settings.reset_fill_ns = limit.fill_ns;
        });
        let mut ends = [0, 0];
        for i in 0..200 {
            let mut client = Client::new(bench, Refusal::Reset);
            client.forge();
            let payload = if i % 2 == 0 { &b"data"[..] } else { b"" };
            let seen = bench.from_client(&client.segment(Flags::ACK, 0, payload));
            match seen.verdict {
                Verdict::Redirect => {
                    assert_eq!(seen.reasons, [UnknownFlow]);
                    ends[0] += 1;
                }
                _ => {
                    seen.dropped(ResetRateLimited);
                    ends[1] += 1;
                }
            }
        }
        // The test may have been moved to another CPU, which has a bucket of its own.
        assert!((BURST..=4 * BURST).contains(&ends[0]), "{ends:?}");
        let stats = bench
            .maps
            .listener_stats(u32::from(Refusal::Reset.listener()));
        assert_eq!(stats[3], 200, "cookies that did not fit, once each");
        assert_eq!(stats[10], 200, "packets, once each");
        assert_eq!(bench.maps.hello_index.keys().count(), 0);
        let stranger = Client::new(bench, Refusal::Reset);
        for flags in [Flags::RST, Flags::RST_ACK] {
            bench
                .from_client(&stranger.segment(flags, 0, &[]))
                .dropped(Absorbed);
        }
    });
}

#[test]
fn a_stale_cookie_is_none() {
    each_family(|bench| {
        bench.maps.set(|settings: &mut Settings| {
            settings.reset_interval_ns = u64::MAX;
            settings.reset_fill_ns = 0;
        });
        let mut client = Client::new(bench, Refusal::Alert);
        let hello = Hello::small(Mode::ProxyV2.name()).record();
        client.cookie = client.old_cookie(3);
        client.send(bench, 0, &hello).dropped(ResetRateLimited);
        // That of the last epoch is good while it is fresh.
        client.cookie = client.old_cookie(u32::from(cookie::accepts_previous(now_ns(), false)));
        assert!(
            client
                .send(bench, 0, &hello)
                .segment()
                .flags
                .has(Flags::SYN)
        );
    });
}

#[test]
fn what_no_stack_sends_is_dropped() {
    each_family(|bench| {
        let client = Client::new(bench, Refusal::Alert);
        for flags in [
            Flags::SYN.with(Flags::FIN),
            Flags::SYN.with(Flags::RST),
            Flags::SYN_ACK,
            Flags::PSH,
        ] {
            bench
                .from_client(&client.segment(flags, 0, &[]))
                .dropped(MalformedSegment);
        }
        if bench.shape.v6 {
            return;
        }
        let mut packet = client.syn(&LINUX).to_bytes();
        packet[6] |= 0x20;
        bench.lenient = true;
        bench.public_packet(&packet).dropped(Fragment);
        let mut packet = client.syn(&LINUX).to_bytes();
        packet.splice(20..20, [1; 4]);
        packet[0] = 0x46;
        bench.public_packet(&packet).dropped(IpOptions);
    });
}

/// Other addresses, other ports, other protocols, and frames cut anywhere.
#[test]
fn foreign_frames_pass() {
    each_family(|bench| {
        let client = Client::new(bench, Refusal::Alert);
        let mut syn = client.syn(&LINUX);
        syn.destination.set_port(22);
        bench.from_client(&syn).passed();
        let whole = client.syn(&LINUX).to_bytes();
        let frame = [&ethernet(&whole), &whole[..]].concat();
        let ip = if bench.shape.v6 { 40 } else { 20 };
        let before = tallies(bench);
        let mut tried = 0;
        // The kernel's test run takes no frame without a whole Ethernet header.
        for length in 14..14 + ip + 20 {
            if let Some((verdict, _)) = bench.at_driver(&frame[..length]) {
                panic!("{length} bytes: {verdict:?}");
            }
            tried += 1;
        }
        let after = tallies(bench);
        assert_eq!(after[0] - before[0], tried, "all foreign");
        let mut arp = frame.clone();
        arp[12..14].copy_from_slice(&[8, 6]);
        assert!(bench.at_driver(&arp).is_none());
    });
}

/// A frame in several buffers looks shorter than its headers say: the next hook decides.
#[test]
fn a_frame_shorter_than_it_says_is_handed_on() {
    each_family(|bench| {
        let client = Client::new(bench, Refusal::Alert);
        let mut syn = client.syn(&LINUX);
        syn.payload = vec![1; 100];
        let whole = syn.to_bytes();
        let frame = [&ethernet(&whole), &whole[..whole.len() - 60]].concat();
        assert!(bench.at_driver(&frame).is_none());
        assert_eq!(tallies(bench)[2], 1, "handed on");
    });
}

/// An interface without Ethernet headers never has the armour; the bench then has none either.
#[test]
fn only_ethernet_wears_it() {
    let mut bench = Bench::new();
    bench.armoured = true;
    bench.reshape(Shape {
        public: Link::L3,
        ..Shape::COMMON
    });
    let _ = Client::connect(&mut bench, Refusal::Alert);
    assert_eq!(tallies(&bench), [0; 5]);
}
