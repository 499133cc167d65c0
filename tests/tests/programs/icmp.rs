//! "Fragmentation needed" and "packet too big" reach whoever sent the segment they are about.

use std::net::IpAddr;

use forwarder_common::verdict::DropReason::NotUnderWay;
use forwarder_tests::packet::{Content, Flags, Packet, packet_too_big};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, Opened};
use forwarder_tests::programs::shape::{Mode, Shape};

fn each_flow(mut test: impl FnMut(&mut Bench, &Opened, IpAddr)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        let router = if shape.v6 {
            "2001:db8:86dd:9::1"
        } else {
            "8.0.99.1"
        };
        for mode in Mode::ALL {
            println!("{shape:?} {mode:?}");
            let opened = Client::open(&mut bench, mode);
            opened.splice(&mut bench);
            test(&mut bench, &opened, router.parse().unwrap());
        }
    }
}

/// Bytes of a quoted packet that are translated: IP header, ports, sequence number.
fn quoted(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

#[track_caller]
fn body(bytes: &[u8]) -> (Packet, u32, Vec<u8>) {
    let packet = Packet::parse(bytes, false).expect("an IP packet");
    let Content::Icmp { rest, body, .. } = packet.content.clone() else {
        panic!("{packet:?}")
    };
    (packet, rest, body)
}

#[test]
fn about_a_segment_to_the_client() {
    each_flow(|bench, opened, router| {
        let mut sent = opened.from_node(Flags::PSH_ACK, 33, 0, &[7; 1_200]);
        let passed = bench.from_node(&sent).bytes.unwrap();
        let error = packet_too_big(router, &passed, 1_280);
        let seen = bench.public_packet(&error);
        assert_eq!(seen.reasons, []);
        let (packet, mtu, body) = body(seen.bytes.as_ref().unwrap());
        assert_eq!(mtu, 1_280);
        assert_eq!(packet.destination, opened.syn.destination.ip());
        let source = if opened.mode == Mode::Transparent {
            router
        } else {
            bench.local()
        };
        assert_eq!(packet.source, source);
        // The node recognises its own segment, with one hop less.
        sent.hop_limit -= 1;
        let length = quoted(bench.shape.v6);
        assert_eq!(body[..length], sent.to_bytes()[..length]);
        assert_eq!(
            body[length..],
            passed[length..body.len()],
            "the rest is as it was quoted"
        );
    });
}

#[test]
fn about_a_segment_to_the_node() {
    each_flow(|bench, opened, router| {
        let mut sent = opened.from_client(Flags::PSH_ACK, 44, 0, &[8; 1_300]);
        let passed = bench.from_client(&sent).bytes.unwrap();
        let error = packet_too_big(router, &passed, 1_280);
        let seen = bench.tunnel_packet(&error);
        assert_eq!(seen.reasons, []);
        let (packet, mtu, body) = body(seen.bytes.as_ref().unwrap());
        assert_eq!(mtu, 1_280);
        assert_eq!(packet.destination, opened.client.address.ip());
        assert_eq!(packet.source, opened.client.vip.ip());
        sent.hop_limit -= 1;
        let length = quoted(bench.shape.v6);
        assert_eq!(body[..length], sent.to_bytes()[..length]);
        assert_eq!(body[length..], passed[length..body.len()]);
    });
}

/// Whoever does not see a flow's segments, on the internet or as another peer of the tunnel, must guess which are under
/// way (RFC 5927 4.1).
#[test]
fn about_a_segment_that_is_not_under_way() {
    each_flow(|bench, opened, router| {
        let about = |bench: &mut Bench, up: bool, offset: u32| {
            let segment = if up {
                let mut sent = opened.from_client(Flags::ACK, offset, 0, &[8; 100]);
                (sent.source, sent.destination) = (opened.syn.source, opened.syn.destination);
                sent
            } else {
                let mut sent = opened.from_node(Flags::ACK, offset, 0, &[7; 100]);
                sent.seq = opened.client.cookie.wrapping_add(1).wrapping_add(offset);
                (sent.source, sent.destination) = (opened.client.vip, opened.client.address);
                sent
            };
            let error = packet_too_big(router, &segment.to_bytes(), 1_280);
            if up {
                bench.tunnel_packet(&error)
            } else {
                bench.public_packet(&error)
            }
        };
        for up in [true, false] {
            for offset in [0, 1, 1_400, 1 << 20, (1 << 24) - 2] {
                let seen = about(bench, up, offset);
                assert_eq!(seen.reasons, [], "{up} {offset}");
                assert!(seen.bytes.is_some());
            }
            for offset in [
                u32::MAX - 1,
                0u32.wrapping_sub(1_400),
                1 << 24,
                1 << 31,
                3 << 30,
            ] {
                about(bench, up, offset).dropped(NotUnderWay);
            }
        }
    });
}

/// Errors about no flow of ours are the host's.
#[test]
fn about_nothing_of_ours() {
    each_flow(|bench, opened, router| {
        let mut sent = opened.from_node(Flags::ACK, 0, 0, &[7; 100]);
        sent.source = opened.client.vip;
        sent.destination = bench.client_address();
        bench
            .public_packet(&packet_too_big(router, &sent.to_bytes(), 1_280))
            .passed();
        sent.source.set_port(22);
        bench
            .public_packet(&packet_too_big(router, &sent.to_bytes(), 1_280))
            .passed();
        let mut sent = opened.from_client(Flags::ACK, 0, 0, &[7; 100]);
        sent.source = bench.client_address();
        sent.destination = opened.syn.destination;
        bench
            .tunnel_packet(&packet_too_big(router, &sent.to_bytes(), 1_280))
            .passed();
        // A node that was asked and has not answered has sent nothing that could be too big.
        let waiting = Client::open(bench, opened.mode);
        let mut sent = waiting.from_node(Flags::ACK, 0, 0, &[7; 100]);
        sent.source = waiting.client.vip;
        sent.destination = waiting.client.address;
        bench
            .public_packet(&packet_too_big(router, &sent.to_bytes(), 1_280))
            .passed();
    });
}

/// A quotation that was cut below the ports names no flow.
#[test]
fn with_too_short_a_quotation() {
    each_flow(|bench, opened, router| {
        let sent = opened.from_node(Flags::ACK, 0, 0, &[]);
        let passed = bench.from_node(&sent).bytes.unwrap();
        let whole = packet_too_big(router, &passed, 1_280);
        let headers = if bench.shape.v6 { 48 + 40 } else { 28 + 20 };
        for length in headers - 20..headers + 8 {
            let mut cut = whole[..length].to_vec();
            if bench.shape.v6 {
                let payload = (length - 40) as u16;
                cut[4..6].copy_from_slice(&payload.to_be_bytes());
            } else {
                cut[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            }
            if bench.takes(true, &cut) {
                bench.public_packet(&cut).passed();
            }
        }
    });
}
