//! Both directions of a spliced flow: every field is translated, and nothing else is touched.

use forwarder_common::abi::{mark, state};
use forwarder_common::checksum::Sum;
use forwarder_common::verdict::DropReason::{
    self, Absorbed, LinkDown, MalformedSegment, NotItsFlow, TtlExpired,
};
use forwarder_tests::packet::{Checksums, Flags, Packet, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, NODE_ISN, Opened};
use forwarder_tests::programs::kernel::Context;
use forwarder_tests::programs::shape::{Mode, Refusal, Shape};

fn each_flow(mut test: impl FnMut(&mut Bench, &Opened)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            println!("{shape:?} {mode:?}");
            let opened = Client::open(&mut bench, mode);
            opened.splice(&mut bench);
            let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            assert_eq!(flow.state, state::SPLICED);
            assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
            test(&mut bench, &opened);
        }
    }
}

/// A client's segment as its node gets it.
fn up(opened: &Opened, sent: &Segment) -> Segment {
    let delta = opened.client.cookie.wrapping_sub(NODE_ISN);
    let mut passed = sent.clone();
    passed.source = opened.syn.source;
    passed.destination = opened.syn.destination;
    passed.hop_limit -= 1;
    if sent.flags.has(Flags::URG) {
        passed.flags.0 &= !Flags::URG.0;
        passed.urgent = 0;
    }
    if sent.flags.has(Flags::ACK) {
        passed.ack = sent.ack.wrapping_sub(delta);
    }
    passed
}

/// A node's segment as its client gets it.
fn down(opened: &Opened, sent: &Segment) -> Segment {
    let delta = opened.client.cookie.wrapping_sub(NODE_ISN);
    let mut passed = sent.clone();
    passed.source = opened.client.vip;
    passed.destination = opened.client.address;
    passed.hop_limit -= 1;
    passed.seq = sent.seq.wrapping_add(delta);
    // The node's scale is 9, and 7 is what the client was told.
    passed.window = (u32::from(sent.window) * 4).min(65_535) as u16;
    passed
}

#[test]
fn data_and_acknowledgements() {
    each_flow(|bench, opened| {
        let flags = [
            Flags::ACK,
            Flags::PSH_ACK,
            Flags::ACK.with(Flags::URG),
            Flags::ACK.with(Flags::ECE).with(Flags::CWR),
        ];
        for (n, flags) in flags.into_iter().enumerate() {
            for length in [0, 1, 2, 3, 1_000, 1_321, 1_380] {
                let payload = vec![n as u8 ^ length as u8; length];
                let mut sent = opened.from_client(flags, 100 * n as u32, 7 * n as u32, &payload);
                sent.window = 1_234;
                sent.hop_limit = 2 + n as u8;
                bench.from_client(&sent).expect(&up(opened, &sent), &[]);
                let mut sent = opened.from_node(flags, 50 * n as u32, n as i32, &payload);
                sent.hop_limit = 255;
                for window in [0, 1, 200, 16_383, 16_384, 65_535] {
                    sent.window = window;
                    bench.from_node(&sent).expect(&down(opened, &sent), &[]);
                }
            }
        }
    });
}

/// Linux takes the byte an urgent pointer names out of the stream: the node would read other bytes than were judged. What
/// a node sends is not judged, and its urgent data is the client's to understand.
#[test]
fn no_urgent_pointer_reaches_a_node() {
    each_flow(|bench, opened| {
        for (flags, urgent, length) in [
            (Flags::ACK, 1, 0),
            (Flags::PSH_ACK, 0xffff, 5),
            (Flags::ACK, 0, 1_000),
            (Flags::FIN_ACK, 3, 4),
            (Flags::RST_ACK, 0xff00, 0),
            (Flags::ACK.with(Flags::ECE), 0x00ff, 3),
        ] {
            let mut sent = opened.from_client(flags.with(Flags::URG), 9, 9, &vec![7; length]);
            sent.urgent = urgent;
            if sent.flags.has(Flags::RST) {
                // One that only leaves a mark, so that the flow goes on.
                sent.seq = sent.seq.wrapping_add(0x1000);
            }
            let passed = up(opened, &sent);
            assert!(!passed.flags.has(Flags::URG) && passed.urgent == 0);
            bench.from_client(&sent).expect(&passed, &[]);
            let mut sent = opened.from_node(Flags::PSH_ACK.with(Flags::URG), 0, 0, b"!");
            sent.urgent = urgent;
            bench.from_node(&sent).expect(&down(opened, &sent), &[]);
        }
    });
}

/// The replay may be lost: a bare segment that names a byte of the coming hello must not reach the node either.
#[test]
fn no_urgent_pointer_reaches_a_node_before_the_hello() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            let opened = Client::open(&mut bench, mode);
            let mut sent = opened.client.segment(Flags::ACK.with(Flags::URG), 0, &[]);
            sent.urgent = 20;
            bench.from_client(&sent).dropped(Absorbed);
            assert!(!opened.accept(&mut bench).is_empty());
            bench.from_client(&sent).expect(&up(&opened, &sent), &[]);
        }
    }
}

/// Sequence numbers pass zero on either side, and every checksum passes all its corners.
#[test]
fn numbers_around_zero() {
    each_flow(|bench, opened| {
        for step in [0, 0x7f, 0x80, 0x8000, 0xffff, 0x0001_0000, 0x00ff_ffff] {
            let sent = opened.from_client(Flags::PSH_ACK, step, step, &[0xff, 0xff]);
            bench.from_client(&sent).expect(&up(opened, &sent), &[]);
            let sent = opened.from_node(Flags::PSH_ACK, step, 0, &[0, 0]);
            bench.from_node(&sent).expect(&down(opened, &sent), &[]);
        }
        // Payloads that give every seventh checksum there is, 0x0000 and 0xffff included.
        for value in (0..=u16::MAX).step_by(4_099).chain([0xfffe, 0xffff]) {
            let sent = opened.from_client(Flags::ACK, 0, 0, &value.to_be_bytes());
            bench.from_client(&sent).expect(&up(opened, &sent), &[]);
            let sent = opened.from_node(Flags::ACK, 0, 0, &value.to_be_bytes());
            bench.from_node(&sent).expect(&down(opened, &sent), &[]);
        }
    });
}

/// Blocks of the client name what the node sent, and are shifted; the node's name what the client sent.
#[test]
fn selective_acknowledgements() {
    each_flow(|bench, opened| {
        let delta = opened.client.cookie.wrapping_sub(NODE_ISN);
        for blocks in 1..=4_u32 {
            let edges = |base: u32| -> Vec<u32> {
                (0..2 * blocks)
                    .map(|n| base.wrapping_add(1_000 * n))
                    .collect()
            };
            let option = |edges: &[u32]| {
                let mut option = vec![1, 1, 5, 2 + 8 * blocks as u8];
                option.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
                option
            };
            let seen = edges(opened.client.cookie);
            let mut sent = opened.from_client(Flags::ACK, 0, 0, &[]);
            sent.options = option(&seen);
            let mut passed = up(opened, &sent);
            let shifted: Vec<u32> = seen.iter().map(|edge| edge.wrapping_sub(delta)).collect();
            passed.options = option(&shifted);
            bench.from_client(&sent).expect(&passed, &[]);

            let mut sent = opened.from_node(Flags::ACK, 0, 0, &[]);
            sent.options = option(&edges(opened.client.isn));
            bench.from_node(&sent).expect(&down(opened, &sent), &[]);
        }
    });
}

/// Any other layout of a client's options becomes NOPs: an untranslated block would lie.
#[test]
fn other_options_of_the_client() {
    let timestamps = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let sack_first = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1];
    let short = [1, 1, 5, 2];
    let lying = [1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2];
    let odd = [1, 1, 5, 11, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
    let five = [&[1, 1, 5, 42][..], &[9; 36]].concat();
    each_flow(|bench, opened| {
        for options in [
            &timestamps[..],
            &sack_first,
            &short,
            &lying,
            &odd,
            &five,
            &[0; 4],
        ] {
            let mut sent = opened.from_client(Flags::PSH_ACK, 0, 0, b"data");
            sent.options = options.to_vec();
            let mut passed = up(opened, &sent);
            passed.options.fill(1);
            bench.from_client(&sent).expect(&passed, &[]);
        }
        // One block, and padding behind it.
        let delta = opened.client.cookie.wrapping_sub(NODE_ISN);
        let mut sent = opened.from_client(Flags::ACK, 0, 0, &[]);
        sent.options = vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
        let mut passed = up(opened, &sent);
        passed.options[4..8].copy_from_slice(&1_u32.wrapping_sub(delta).to_be_bytes());
        passed.options[8..12].copy_from_slice(&2_u32.wrapping_sub(delta).to_be_bytes());
        bench.from_client(&sent).expect(&passed, &[]);
    });
}

/// A node's window in the scale of a client that offered none.
#[test]
fn windows_for_clients_without_a_scale() {
    let mut bench = Bench::new();
    let hello = forwarder_tests::hello::Hello::small(Mode::Masquerade.name()).record();
    let client = Client::connect_with(&mut bench, Refusal::Alert, &[2, 4, 5, 180]);
    let syn = client.send(&mut bench, 0, &hello).segment();
    let opened = Opened {
        client,
        mode: Mode::Masquerade,
        hello,
        syn,
    };
    let accepted = bench.from_node(&opened.syn_ack(&[2, 4, 5, 100]));
    assert_eq!(accepted.segment().payload, opened.hello);
    for window in [0, 1, 29_200, 65_535] {
        let mut sent = opened.from_node(Flags::ACK, 0, 0, &[]);
        sent.window = window;
        let mut passed = down(&opened, &sent);
        passed.window = window;
        bench.from_node(&sent).expect(&passed, &[]);
    }
}

/// A connection of a client with these options to a node with those.
fn between(bench: &mut Bench, mode: Mode, client: &[u8], node: &[u8]) -> Opened {
    let hello = forwarder_tests::hello::Hello::small(mode.name()).record();
    let client = Client::connect_with(bench, Refusal::Alert, client);
    let syn = client.send(bench, 0, &hello).segment();
    let opened = Opened {
        client,
        mode,
        hello,
        syn,
    };
    assert!(!bench.from_node(&opened.syn_ack(node)).all().is_empty());
    let seen = bench.from_node(&opened.from_node(Flags::ACK, 0, 0, &[]));
    assert_eq!(seen.segment().destination, opened.client.address);
    opened
}

/// A node that takes no window scale (any that answers by SYN cookie without timestamps) is told windows in bytes, as
/// many as fit; the client gets the node's in its own scale.
#[test]
fn windows_of_nodes_without_a_scale() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            for scale in [0, 1, 2, 7, 8, 9, 13, 14] {
                let options = [2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, scale];
                let opened = between(&mut bench, mode, &options, &[2, 4, 5, 100]);
                assert_eq!(opened.syn.window_scale(), Some(scale));
                for window in [0, 1, 502, 16_384, 65_535] {
                    let bytes = (u32::from(window) << scale).min(65_535) as u16;
                    let mut sent = opened.from_client(Flags::ACK, 0, 0, &[]);
                    sent.window = window;
                    let mut passed = up(&opened, &sent);
                    passed.window = bytes;
                    bench.from_client(&sent).expect(&passed, &[]);
                    let mut sent = opened.from_node(Flags::ACK, 0, 0, &[]);
                    sent.window = window;
                    let mut passed = down(&opened, &sent);
                    passed.window = window >> 7;
                    bench.from_node(&sent).expect(&passed, &[]);
                }
            }
        }
    }
}

/// The hello itself tells the node of the client's window.
#[test]
fn the_window_of_a_replay_for_a_node_without_a_scale() {
    let mut bench = Bench::new();
    for mode in Mode::ALL {
        let opened = Client::open(&mut bench, mode);
        let replay = bench.from_node(&opened.syn_ack(&[2, 4, 5, 100])).segment();
        assert_eq!(replay.window, 502 << 7);
        let opened = Client::open(&mut bench, mode);
        assert_eq!(opened.accept(&mut bench)[0].window, 502);
    }
}

/// A node that offers a scale although it was not asked for one has none (RFC 7323 2.2).
#[test]
fn windows_that_nobody_agreed_on() {
    let mut bench = Bench::new();
    for mode in Mode::ALL {
        let opened = between(
            &mut bench,
            mode,
            &[2, 4, 5, 180],
            &[2, 4, 5, 100, 1, 3, 3, 9],
        );
        for window in [0, 1, 502, 65_535] {
            let mut sent = opened.from_client(Flags::ACK, 0, 0, &[]);
            sent.window = window;
            bench.from_client(&sent).expect(&up(&opened, &sent), &[]);
            let mut sent = opened.from_node(Flags::ACK, 0, 0, &[]);
            sent.window = window;
            let mut passed = down(&opened, &sent);
            passed.window = window;
            bench.from_node(&sent).expect(&passed, &[]);
        }
    }
}

/// The way back follows the client: a line that was dialled anew is another interface, and so is another uplink.
/// Whoever does not know the numbers cannot lead it away.
#[test]
fn the_way_back_follows_the_client() {
    each_flow(|bench, opened| {
        let link_of = |bench: &Bench| {
            let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            flow.public_link & !forwarder_common::abi::link::NO_HEADER
        };
        let elsewhere = Context {
            ifindex: bench.tunnel,
            ..Context::default()
        };
        assert_eq!(link_of(bench), bench.public);
        let good = opened.from_client(Flags::ACK, 0, 0, &[]);
        let ahead = opened.from_client(Flags::PSH_ACK, 3_000, 1_000, b"data");
        let seen = bench.run(true, &ahead.to_bytes(), elsewhere);
        assert_eq!(seen.segment().destination, opened.syn.destination);
        assert_eq!(link_of(bench), bench.tunnel);
        bench.from_client(&good).expect(&up(opened, &good), &[]);
        assert_eq!(link_of(bench), bench.public);
        let far = 1 << 21;
        for (seq, ack) in [
            (far, 0),
            (0_u32.wrapping_sub(far), 0),
            (0, 0_u32.wrapping_sub(far)),
            (0, far),
        ] {
            let mut spoofed = good.clone();
            spoofed.seq = spoofed.seq.wrapping_add(seq);
            spoofed.ack = spoofed.ack.wrapping_add(ack);
            let _ = bench.run(true, &spoofed.to_bytes(), elsewhere);
            assert_eq!(link_of(bench), bench.public, "{seq} {ack}");
        }
        for flags in [Flags::RST, Flags::SYN] {
            let mut spoofed = good.clone();
            spoofed.flags = flags;
            spoofed.seq = spoofed.seq.wrapping_add(5_000);
            let _ = bench.run(true, &spoofed.to_bytes(), elsewhere);
            assert_eq!(link_of(bench), bench.public, "{flags:?}");
        }
    });
}

/// What an IP header says beyond addresses and time to live is left alone: ECN, identification, flow label.
#[test]
fn the_rest_of_the_ip_header() {
    each_flow(|bench, opened| {
        let marked = |segment: &Segment| {
            let mut bytes = segment.to_bytes();
            if bytes[0] == 0x60 {
                bytes[0..4].copy_from_slice(&[0x6b, 0xb1, 0x23, 0x45]);
            } else {
                bytes[1] = 0xbb;
                bytes[4..6].copy_from_slice(&[0xab, 0xcd]);
                bytes[6] = 0;
                bytes[10..12].fill(0);
                let sum = Sum::of_bytes(&bytes[..20]).checksum();
                bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
            }
            bytes
        };
        let sent = opened.from_client(Flags::PSH_ACK, 0, 0, b"up");
        let seen = bench.public_packet(&marked(&sent));
        assert_eq!(seen.bytes, Some(marked(&up(opened, &sent))));
        let sent = opened.from_node(Flags::PSH_ACK, 0, 0, b"down");
        let seen = bench.tunnel_packet(&marked(&sent));
        assert_eq!(seen.bytes, Some(marked(&down(opened, &sent))));
    });
}

/// A broken checksum stays broken by as much, so that the receiver notices.
#[test]
fn a_broken_checksum_stays_broken() {
    each_flow(|bench, opened| {
        bench.lenient = true;
        let mut sent = opened.from_client(Flags::PSH_ACK, 0, 0, b"payload");
        let mut broken = sent.to_bytes();
        let last = broken.len() - 1;
        broken[last] ^= 0x10;
        let seen = bench.public_packet(&broken);
        let bytes = seen.bytes.unwrap();
        assert_eq!(
            Packet::parse(&bytes, false).unwrap().checksums,
            Checksums::Bad
        );
        sent.payload = b"payload".to_vec();
        let mut expected = up(opened, &sent).to_bytes();
        expected[last] ^= 0x10;
        assert_eq!(bytes, expected);
        bench.lenient = false;
    });
}

/// A super-packet counts as the packets it stands for.
#[test]
fn packets_and_bytes_are_counted() {
    each_flow(|bench, opened| {
        let path = opened.mode.path_base() + bench.node_number(0);
        let before = bench.maps.path_stats(path);
        let sent = opened.from_client(Flags::ACK, 0, 0, &[7; 3_000]);
        let context = Context {
            ifindex: bench.public,
            gso_segments: 3,
            gso_size: 1_000,
        };
        bench
            .run(true, &sent.to_bytes(), context)
            .expect(&up(opened, &sent), &[]);
        let reply = opened.from_node(Flags::ACK, 0, 0, b"x");
        bench.from_node(&reply).expect(&down(opened, &reply), &[]);
        let after = bench.maps.path_stats(path);
        let ip = if bench.shape.v6 { 40 } else { 20 };
        let counted: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        assert_eq!(counted, [3, ip + 20 + 3_000, 1, ip + 20 + 1, 0, 0, 0, 0, 0]);
    });
}

#[test]
fn the_time_to_live_runs_out() {
    each_flow(|bench, opened| {
        for ttl in [0, 1] {
            let mut sent = opened.from_client(Flags::ACK, 0, 0, &[]);
            sent.hop_limit = ttl;
            bench.from_client(&sent).dropped(TtlExpired);
            let mut sent = opened.from_node(Flags::ACK, 0, 0, &[]);
            sent.hop_limit = ttl;
            bench.from_node(&sent).dropped(TtlExpired);
        }
    });
}

/// Nothing of a SYN from the ports of a live flow goes to the node: it is asked with a byte that it has, once for any
/// number of SYNs, and its answer is the client's challenge (RFC 5961 4).
#[test]
fn a_syn_on_a_live_flow() {
    each_flow(|bench, opened| {
        bench.from_node(&opened.from_node(Flags::PSH_ACK, 0, 0, b"data"));
        bench.from_client(&opened.from_client(Flags::ACK, 0, 4, &[]));
        let mut syn = opened.client.syn(&[2, 4, 5, 180, 3, 3, 7, 1]);
        syn.seq = syn.seq.wrapping_add(0x1111_1111);
        syn.payload = b"taken by a node that forgot the flow".to_vec();
        let key = bench.flow_key(opened.client.address, Refusal::Alert);
        let before = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        for flags in [
            Flags::SYN,
            Flags::SYN.with(Flags::PSH),
            Flags::SYN.with(Flags::ECE),
        ] {
            // As if the last one was long ago.
            let mut flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            flow.client_marks ^= 4 << mark::TICK_SHIFT;
            bench.maps.flows.insert(key, flow, 0).unwrap();
            syn.flags = flags;
            let mut asked = up(opened, &opened.from_client(Flags::ACK, 0, 4, &[0]));
            asked.seq = asked.seq.wrapping_sub(1);
            asked.window = 1;
            asked.hop_limit = 64;
            bench.from_client(&syn).expect(&asked, &[]);
        }
        // Ticks of the clock are as long as a few hundred of these.
        let again = (0..8).filter(|_| bench.from_client(&syn).reasons.is_empty());
        assert!(again.count() <= 1, "asked once a tick");
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_ne!(flow.client_marks & mark::SYN, 0);
        assert_eq!(flow.seen_ms, before.seen_ms, "no sign of life");

        let challenge = opened.from_node(Flags::ACK, 4, 0, &[]);
        bench
            .from_node(&challenge)
            .expect(&down(opened, &challenge), &[]);
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_ne!(flow.client_marks & mark::SYN, 0);
        assert_eq!(flow.node_marks, mark::ALIVE);
        // The client itself goes on: somebody else had sent the SYN.
        bench.from_client(&opened.from_client(Flags::ACK, 0, 4, &[]));
        let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
        assert_eq!(flow.client_marks, 0);
    });
}

/// A node that has not acknowledged the hello is not asked: the byte would come before what it lacks. Neither does a SYN
/// send it the hello, nor pass behind it.
#[test]
fn a_syn_before_the_node_has_the_hello() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            let opened = Client::open(&mut bench, mode);
            for accepted in [false, true] {
                if accepted {
                    opened.accept(&mut bench);
                }
                for (at, payload) in [(0, &b""[..]), (0, b"x"), (5_000, b""), (5_000, b"x")] {
                    let syn = opened.client.segment(Flags::SYN, at, payload);
                    let seen = bench.from_client(&syn);
                    let nothing = [DropReason::Absorbed, DropReason::BeforeNode];
                    assert!(seen.bytes.is_none() && seen.clones.is_empty(), "{seen:?}");
                    assert!(nothing.contains(&seen.reasons[0]), "{seen:?}");
                }
            }
        }
    }
}

/// With the tunnel gone packets are dropped: clear text never leaves another way.
#[test]
fn without_a_tunnel() {
    each_flow(|bench, opened| {
        bench.node(bench.node_number(0), |node| node.ifindex = 0);
        let sent = opened.from_client(Flags::ACK, 0, 0, b"secret");
        bench.from_client(&sent).dropped(LinkDown);
        bench.node(bench.node_number(0), |_| {});
        bench.from_client(&sent).expect(&up(opened, &sent), &[]);
    });
}

/// Another tunnel's peer cannot speak in a node's name, nor a node for another's flow.
#[test]
fn a_stranger_in_the_tunnel() {
    each_flow(|bench, opened| {
        let sent = opened.from_node(Flags::PSH_ACK, 0, 0, b"forged");
        let elsewhere = Context {
            ifindex: bench.public,
            ..Context::default()
        };
        bench
            .run(false, &sent.to_bytes(), elsewhere)
            .dropped(NotItsFlow);
        let mut other = sent.clone();
        other.source = bench.node_address(1);
        let seen = bench.from_node(&other);
        if opened.mode == Mode::Transparent {
            assert_eq!(
                seen.segment().destination,
                other.source,
                "a reset, not to the client"
            );
        } else {
            seen.passed();
        }
        bench.from_node(&sent).expect(&down(opened, &sent), &[]);
    });
}

#[test]
fn a_node_that_sends_nonsense() {
    each_flow(|bench, opened| {
        let sent = opened.from_node(Flags::PSH_ACK, 0, 0, b"data");
        let tcp = if bench.shape.v6 { 40 } else { 20 };
        for offset in [0, 4, 15] {
            let mut bytes = sent.to_bytes();
            bytes[tcp + 12] = offset << 4;
            bench.tunnel_packet(&bytes).dropped(MalformedSegment);
        }
    });
}
