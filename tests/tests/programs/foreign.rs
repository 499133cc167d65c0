//! What is none of ours passes untouched; what cannot be judged does not.

use std::net::{SocketAddr, TcpListener};

use forwarder_common::abi::{HELLO_CAP, slot as slots};
use forwarder_common::verdict::DropReason::{
    Absorbed, Fragment, MalformedSegment, NotItsFlow, UnknownFlow,
};
use forwarder_tests::command;
use forwarder_tests::packet::{Flags, Segment, ip_header};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX};
use forwarder_tests::programs::entrance::address;
use forwarder_tests::programs::kernel::Context;
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

fn each_shape(mut test: impl FnMut(&mut Bench)) {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        test(&mut bench);
    }
}

#[test]
fn foreign_traffic_passes() {
    each_shape(|bench| {
        let client = Client::new(bench, Refusal::Alert);
        let at = |ip: std::net::IpAddr, port| SocketAddr::new(ip, port);
        for destination in [
            at(client.vip.ip(), 22),
            at(client.vip.ip(), 446),
            at(bench.local(), 443),
            bench.node_address(0),
        ] {
            for flags in [Flags::SYN, Flags::ACK, Flags::RST, Flags(0), Flags(0xff)] {
                let segment = Segment::new(client.address, destination, flags);
                bench.from_client(&segment).passed();
            }
        }
        // From the claimed port, as a reply of the host's: the direction counts.
        let outward = Segment::new(client.address, client.address, Flags::ACK);
        bench.from_client(&outward).passed();
        for (protocol, payload) in [
            (17, vec![0; 30]),
            (47, vec![0; 8]),
            (50, vec![7; 60]),
            (6, vec![1; 19]),
        ] {
            let ip = ip_header(
                client.address.ip(),
                client.vip.ip(),
                protocol,
                64,
                payload.len(),
            );
            let packet = [ip, payload].concat();
            if bench.takes(true, &packet) {
                bench.public_packet(&packet).passed();
            }
            if bench.takes(false, &packet) {
                bench.tunnel_packet(&packet).passed();
            }
        }
    });
}

/// The fold that says at once what is not claimed lets several ports of an address meet.
#[test]
fn what_shares_a_slot_with_a_claimed_port_passes() {
    each_shape(|bench| {
        let vip = bench.vip(Refusal::Alert);
        let slot = |port: u16| slots::of(&address(vip.ip()), port.to_be());
        let own = slot(vip.port());
        let present = bench.maps.vip_slots.get(&own, 0).expect("a slot");
        let neighbours: Vec<u16> = (1..=u16::MAX)
            .filter(|port| *port != vip.port() && slot(*port) == own)
            .collect();
        assert!(neighbours.len() > 200 && present != slots::NOTHING);
        for said in [present, slots::SEVERAL] {
            bench.maps.vip_slots.set(own, said, 0).expect("a slot");
            let client = Client::connect(bench, Refusal::Alert);
            for port in neighbours.iter().take(20) {
                let neighbour = SocketAddr::new(vip.ip(), *port);
                let syn = Segment::new(client.address, neighbour, Flags::SYN);
                bench.from_client(&syn).passed();
            }
        }
        bench.maps.vip_slots.set(own, present, 0).expect("a slot");
    });
}

/// Echo requests and every other ICMP error are the host's.
#[test]
fn other_icmp_passes() {
    each_shape(|bench| {
        let opened = Client::open(bench, Mode::Transparent);
        let (kind, protocol) = if bench.shape.v6 { (1, 58) } else { (3, 1) };
        for (kind, code) in [(8, 0), (128, 0), (11, 0), (kind, 1), (kind, 3)] {
            let mut body = vec![kind, code, 0, 0, 0, 0, 0, 0];
            body.extend(opened.syn.to_bytes());
            let ip = ip_header(
                opened.client.address.ip(),
                opened.client.vip.ip(),
                protocol,
                64,
                body.len(),
            );
            bench.public_packet(&[ip, body].concat()).passed();
        }
    });
}

#[test]
fn other_protocols_pass() {
    let bench = Bench::new();
    assert_eq!(bench.shape.public, Link::L2);
    for kind in [[8, 6], [0x88, 0xcc], [0x81, 0], [0, 0x26], [0x86, 0xdc]] {
        let frame = [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
            &kind[..],
            &[0x45; 60],
        ]
        .concat();
        let context = Context {
            ifindex: bench.public,
            ..Context::default()
        };
        let outcome = bench.raw(true, &frame, context).unwrap();
        assert_eq!((outcome.action, &outcome.bytes), (-1, &frame));
    }
}

/// A packet that ends inside its headers is nobody's.
#[test]
fn packets_cut_short() {
    each_shape(|bench| {
        let client = Client::new(bench, Refusal::Alert);
        let whole = client.syn(&LINUX).to_bytes();
        let ip = if bench.shape.v6 { 40 } else { 20 };
        for length in ip..whole.len() {
            if !bench.takes(true, &whole[..length]) {
                continue;
            }
            let seen = bench.public_packet(&whole[..length]);
            if length < ip + 20 {
                seen.passed();
            } else {
                seen.dropped(MalformedSegment);
            }
        }
    });
}

#[test]
fn headers_that_lie() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        let segment = client.segment(Flags::PSH_ACK, 0, b"data");
        let ip = if bench.shape.v6 { 40 } else { 20 };
        for words in [0, 1, 4, 7, 15] {
            let mut bytes = segment.to_bytes();
            bytes[ip + 12] = words << 4;
            bench.public_packet(&bytes).dropped(MalformedSegment);
        }
        // An IP length beyond the packet's end, and one inside the TCP header.
        for length in [19, 25, 300] {
            let mut bytes = segment.to_bytes();
            let at = if bench.shape.v6 { 4 } else { 2 };
            let total: u16 = if bench.shape.v6 { length } else { length + 20 };
            bytes[at..at + 2].copy_from_slice(&total.to_be_bytes());
            bench.public_packet(&bytes).dropped(MalformedSegment);
        }
    });
}

/// What stands behind the IP packet, as padding of a short frame does, is no part of it.
#[test]
fn padding_of_a_short_frame() {
    each_shape(|bench| {
        let client = Client::connect(bench, Refusal::Alert);
        let mut bytes = client.segment(Flags::PSH_ACK, 0, &[22]).to_bytes();
        bytes.extend([0xff; 6]);
        let room = (HELLO_CAP as u16 - 1).div_ceil(128);
        bench
            .public_packet(&bytes)
            .expect(&client.answer(Flags::ACK, 0, 1, room), &[]);
    });
}

#[test]
fn fragments_and_options() {
    for public in [Link::L2, Link::L3] {
        let mut bench = Bench::new();
        bench.reshape(Shape {
            public,
            ..Shape::COMMON
        });
        let client = Client::connect(&mut bench, Refusal::Alert);
        let packet = client.segment(Flags::PSH_ACK, 0, b"data").to_bytes();
        // The first of several pieces is known by its port; the others are joined by nobody.
        let mut first = packet.clone();
        first[6] = 0x20;
        bench.public_packet(&first).dropped(Fragment);
        let mut later = packet.clone();
        later[6..8].copy_from_slice(&[0x20, 5]);
        bench.public_packet(&later).passed();
        // Without four bytes more, the ports stand elsewhere.
        let mut reserved = packet.clone();
        reserved[0] = 0x46;
        bench.public_packet(&reserved).passed();
    }
}

#[test]
fn a_node_without_a_flow() {
    each_shape(|bench| {
        let node = bench.node_address(0);
        let number = bench.node_number(0);
        let client = bench.client_address();
        let strays = bench.maps.node_stats(number)[21];
        // To a client: reset here, for the stack would route it in clear.
        let mut stray = Segment::new(node, client, Flags::PSH_ACK);
        (stray.seq, stray.ack, stray.payload) = (7_000, 8_000, b"late".to_vec());
        let mut reset = Segment::new(client, node, Flags::RST);
        (reset.seq, reset.window) = (8_000, 0);
        bench
            .from_node(&stray)
            .expect(&reset, &[UnknownFlow, NotItsFlow]);
        stray.flags = Flags::SYN;
        let mut reset = Segment::new(client, node, Flags::RST_ACK);
        (reset.ack, reset.window) = (7_005, 0);
        bench
            .from_node(&stray)
            .expect(&reset, &[UnknownFlow, NotItsFlow]);
        stray.flags = Flags::RST_ACK;
        let seen = bench.from_node(&stray);
        assert_eq!(
            (seen.bytes, &seen.reasons[..]),
            (None, &[NotItsFlow, Absorbed][..])
        );
        assert_eq!(bench.maps.node_stats(number)[21], strays + 3);
        // To us: a health check's, for the host's stack.
        let check = Segment::new(node, SocketAddr::new(bench.local(), 55_555), Flags::SYN_ACK);
        bench.from_node(&check).passed();
        // From another port of the same host.
        let mut other = stray.clone();
        other.source.set_port(22);
        bench.from_node(&other).passed();
    });
}

/// A connection of the host's own with a node is its own.
#[test]
fn a_socket_of_the_host() {
    let mut bench = Bench::new();
    for words in ["link set lo up", "addr add 8.0.77.1/32 dev lo"] {
        command::run(command::command("ip").unwrap().args(words.split(' '))).unwrap();
    }
    let listener = TcpListener::bind("8.0.77.1:0").unwrap();
    let node = bench.node_address(0);
    let syn = Segment::new(node, listener.local_addr().unwrap(), Flags::SYN);
    bench.from_node(&syn).passed();
    drop(listener);
    let seen = bench.from_node(&syn);
    assert_eq!(seen.reasons, [UnknownFlow, NotItsFlow]);
}
