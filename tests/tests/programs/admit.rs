//! Who may connect, and in which packets: the same at both hooks, on the public side and on the tunnel's.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use forwarder_common::abi::{Settings, source_rule, state};
use forwarder_common::cookie;
use forwarder_common::verdict::DropReason::{
    BadChecksum, Fragment, InvalidSource, IpOptions, NotItsFlow, UnknownFlow,
};
use forwarder_tests::command;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::{Bench, OURS, ethernet};
use forwarder_tests::programs::client::{Client, LINUX, now_ns};
use forwarder_tests::programs::kernel::Context;
use forwarder_tests::programs::seen::{Seen, Verdict};
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// Both families, with Ethernet outside, where each packet meets the XDP program first, too.
fn each_hook(mut test: impl FnMut(&mut Bench)) {
    let mut bench = Bench::new();
    for v6 in [false, true] {
        for armoured in [false, true] {
            bench.reshape(Shape {
                v6,
                ..Shape::COMMON
            });
            bench.armoured = armoured;
            println!("v6 {v6} armoured {armoured}");
            test(&mut bench);
        }
    }
    bench.armoured = false;
    for shape in Shape::all() {
        if shape.public == Link::L3 {
            bench.reshape(shape);
            test(&mut bench);
        }
    }
}

/// Without an Ethernet header, a test run reads the EtherType where the source stands: it must be one of the bench's.
fn is_bare(bench: &Bench) -> bool {
    bench.shape.public == Link::L3
}

fn client_at(bench: &mut Bench, ip: IpAddr) -> Client {
    let mut client = Client::new(bench, Refusal::Alert);
    client.address = SocketAddr::new(ip, client.address.port());
    client.cookie = client.old_cookie(0);
    client
}

/// Nothing is said to this source, and nothing kept for it.
fn assert_refused(bench: &mut Bench, ip: IpAddr) {
    let client = client_at(bench, ip);
    println!("{ip}");
    bench
        .from_client(&client.syn(&LINUX))
        .dropped(InvalidSource);
    let hello = Hello::small(Mode::Transparent.name()).record();
    client.send(bench, 0, &hello).dropped(InvalidSource);
    assert_eq!(bench.maps.hello_index.keys().count(), 0);
    assert!(bench.flow(client.address, Refusal::Alert).is_none());
}

#[test]
fn sources_that_nobody_has() {
    each_hook(|bench| {
        if is_bare(bench) {
            return;
        }
        let bad: &[&str] = if bench.shape.v6 {
            &["::", "::1", "ff02::1", "ff0e::77", "::ffff:198.51.100.9"]
        } else {
            &[
                "0.0.0.0",
                "0.9.9.9",
                "127.0.0.1",
                "127.9.9.9",
                "224.0.0.1",
                "239.1.2.3",
                "240.1.1.1",
                "255.255.255.255",
            ]
        };
        for ip in bad {
            assert_refused(bench, ip.parse().unwrap());
        }
        // A LAND attack: the claimed address itself, and its port too.
        let vip = bench.vip(Refusal::Alert);
        assert_refused(bench, vip.ip());
        let land = Segment::new(vip, vip, Flags::SYN);
        for _ in 0..20 {
            bench.from_client(&land).dropped(InvalidSource);
        }
    });
}

/// The host's own addresses, nodes' and what is reached by a tunnel: the longest prefix decides.
#[test]
fn sources_by_rule() {
    each_hook(|bench| {
        if is_bare(bench) {
            return;
        }
        let ips: [&str; 5] = if bench.shape.v6 {
            [
                "fd77::",
                "fd77:1::",
                "fd77:1:1::",
                "2001:db8:77::1",
                "fd77::9",
            ]
        } else {
            ["9.0.0.0", "9.1.0.0", "9.1.1.0", "9.200.0.1", "9.3.0.9"]
        };
        let [net, inside, deep, own, node] = ips.map(|ip| ip.parse().unwrap());
        let bits = if bench.shape.v6 {
            [16, 32, 48, 128, 128]
        } else {
            [8, 16, 24, 32, 32]
        };
        bench.source_rule(net, bits[0], source_rule::TUNNEL);
        bench.source_rule(inside, bits[1], source_rule::ELSEWHERE);
        bench.source_rule(deep, bits[2], source_rule::TUNNEL);
        bench.source_rule(own, bits[3], source_rule::OWN);
        bench.source_rule(node, bits[4], source_rule::NODE);
        for ip in [net, deep, own, node] {
            assert_refused(bench, ip);
        }
        // Somebody out there.
        let client = client_at(bench, inside);
        let answer = bench.from_client(&client.syn(&LINUX));
        assert_eq!(answer.verdict, Verdict::Redirect);
    });
}

/// A reset is an answer too.
#[test]
fn no_reset_goes_to_a_source_that_nobody_has() {
    let mut bench = Bench::new();
    let mut client = client_at(&mut bench, "224.0.0.9".parse().unwrap());
    client.forge();
    let seen = bench.from_client(&client.segment(Flags::PSH_ACK, 0, b"x"));
    assert_eq!((seen.bytes, seen.verdict), (None, Verdict::Drop));
    assert_eq!(seen.reasons, [UnknownFlow, InvalidSource]);
}

/// Open flows are not asked about: an address may move behind a tunnel.
#[test]
fn open_flows_go_on_whatever_the_rules_say() {
    let mut bench = Bench::new();
    let opened = Client::open(&mut bench, Mode::Masquerade);
    opened.splice(&mut bench);
    bench.source_rule(opened.client.address.ip(), 32, source_rule::TUNNEL);
    let seen = bench.from_client(&opened.from_client(Flags::PSH_ACK, 0, 0, b"data"));
    assert_eq!(seen.segment().payload, b"data");
}

/// Frames for another station, or for all, are not answered: the answer would have that address for its sender.
#[test]
fn frames_for_other_stations_pass() {
    let mut bench = Bench::new();
    for v6 in [false, true] {
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        let opened = Client::open(&mut bench, Mode::Transparent);
        opened.splice(&mut bench);
        let syn = Client::new(&mut bench, Refusal::Alert).syn(&LINUX);
        let data = opened.from_client(Flags::PSH_ACK, 0, 0, b"data");
        let stations = [
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
            [2, 0, 0, 0, 0, 9],
        ];
        for station in stations {
            for segment in [&syn, &data] {
                let packet = segment.to_bytes();
                let mut frame = [&ethernet(&packet)[..], &packet].concat();
                assert_eq!(frame[..6], OURS);
                frame[..6].copy_from_slice(&station);
                let context = Context {
                    ifindex: bench.public,
                    ..Context::default()
                };
                let outcome = bench.raw(true, &frame, context).unwrap();
                assert_eq!(
                    (outcome.action, &outcome.bytes),
                    (-1, &frame),
                    "{station:02x?}"
                );
                assert!(
                    bench.at_driver(&frame).is_none(),
                    "{station:02x?} at the driver"
                );
            }
        }
        bench.forget();
    }
}

/// An interface that the daemon has not told of yet: at the driver what is for several stations is known by its address.
#[test]
fn broadcast_frames_pass_an_unknown_interface() {
    let mut bench = Bench::new();
    bench.maps.public_links.remove(&1).unwrap();
    let packet = Client::new(&mut bench, Refusal::Alert)
        .syn(&LINUX)
        .to_bytes();
    let mut frame = [&ethernet(&packet)[..], &packet].concat();
    assert!(bench.at_driver(&frame).is_some());
    frame[..6].fill(0xff);
    assert!(bench.at_driver(&frame).is_none());
}

/// An IPv4 packet with options before its TCP header.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], options, &packet[20..]].concat();
    packet[0] = 0x45 + (options.len() / 4) as u8;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    fix_v4(&mut packet);
    packet
}

fn fix_v4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = forwarder_common::checksum::Sum::of_bytes(&packet[..header]).checksum();
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// An IPv6 packet with extension headers of these kinds and lengths in units of eight bytes before its TCP header.
fn with_headers(packet: &[u8], headers: &[(u8, u8)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (i, (_, length)) in headers.iter().enumerate() {
        let next = headers.get(i + 1).map_or(6, |(kind, _)| *kind);
        let mut header = vec![0; 8 * usize::from(*length)];
        header[0] = next;
        header[1] = length - 1;
        // Padding: PadN over the rest.
        header[2] = 1;
        header[3] = 8 * length - 4;
        body.extend(header);
    }
    behind(packet, headers.first().map_or(6, |(kind, _)| *kind), &body)
}

fn behind(packet: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..40], body, &packet[40..]].concat();
    packet[6] = kind;
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// An IPv6 fragment: `offset` in units of eight bytes, with the first `keep` bytes of what follows the IP header.
fn fragment_v6(packet: &[u8], kind: u8, offset: u16, more: bool, keep: usize) -> Vec<u8> {
    let field = offset << 3 | u16::from(more);
    let [high, low] = field.to_be_bytes();
    let cut = &packet[..(40 + keep).min(packet.len())];
    behind(cut, 44, &[kind, 0, high, low, 0, 0, 0, 7])
}

/// Segments of all kinds for a claimed port: those that begin, those of an open flow, and those that end it.
fn segments(bench: &mut Bench) -> Vec<Segment> {
    let opened = Client::open(bench, Mode::Transparent);
    opened.splice(bench);
    let client = Client::connect(bench, Refusal::Alert);
    vec![
        client.syn(&LINUX),
        client.segment(Flags::PSH_ACK, 0, b"hello"),
        opened.from_client(Flags::PSH_ACK, 0, 0, b"data"),
        opened.from_client(Flags::RST, 0, 0, &[]),
    ]
}

fn lenient(bench: &mut Bench, packet: &[u8]) -> Seen {
    bench.lenient = true;
    bench.public_packet(packet)
}

/// Nothing for a claimed port reaches the host, wherever its TCP header stands.
#[test]
fn ipv4_options_do_not_bypass_the_claim() {
    each_hook(|bench| {
        if bench.shape.v6 {
            return;
        }
        for segment in segments(bench) {
            for words in 1..=10 {
                let packet = with_options(&segment.to_bytes(), &vec![1; 4 * words]);
                lenient(bench, &packet).dropped(IpOptions);
            }
            let mut foreign = segment.clone();
            foreign.destination.set_port(22);
            // The options look like the ports of a segment to a claimed one.
            let ports = [0x99, 0x99, 0x01, 0xbb];
            for options in [&[1; 4][..], &ports] {
                let packet = with_options(&foreign.to_bytes(), options);
                lenient(bench, &packet).passed();
            }
        }
    });
}

/// The first fragment holds the ports, and ends here; the others wait for it in vain.
#[test]
fn ipv4_fragments_do_not_bypass_the_claim() {
    each_hook(|bench| {
        if bench.shape.v6 {
            return;
        }
        for segment in segments(bench) {
            for options in [0, 1, 10] {
                let whole = with_options(&segment.to_bytes(), &vec![1; 4 * options]);
                let header = 20 + 4 * options;
                let mut first = whole[..header + 8].to_vec();
                first[6] = 0x20;
                let length = first.len() as u16;
                first[2..4].copy_from_slice(&length.to_be_bytes());
                fix_v4(&mut first);
                if !bench.takes(true, &first) {
                    continue;
                }
                lenient(bench, &first).dropped(Fragment);
                let mut later = [&whole[..header], &whole[header + 8..]].concat();
                later[6..8].copy_from_slice(&[0, 1]);
                fix_v4(&mut later);
                lenient(bench, &later).passed();
                // Of another connection of the same address.
                first[header + 2..header + 4].copy_from_slice(&22_u16.to_be_bytes());
                lenient(bench, &first).passed();
            }
        }
    });
}

#[test]
fn ipv6_extension_headers_do_not_bypass_the_claim() {
    each_hook(|bench| {
        if !bench.shape.v6 {
            return;
        }
        let local = bench.vip(Refusal::Alert).ip();
        bench.source_rule(local, 128, source_rule::OWN);
        let chains: [&[(u8, u8)]; 6] = [
            &[(0, 1)],
            &[(60, 1)],
            &[(43, 3)],
            &[(0, 2), (60, 1), (43, 1), (60, 5)],
            &[(60, 1); 7],
            // More than anybody reads: dropped unread.
            &[(60, 1); 9],
        ];
        for segment in segments(bench) {
            for chain in chains {
                let packet = with_headers(&segment.to_bytes(), chain);
                lenient(bench, &packet).dropped(IpOptions);
                let mut foreign = segment.clone();
                foreign.destination.set_port(22);
                if chain.len() < 8 {
                    let packet = with_headers(&foreign.to_bytes(), chain);
                    lenient(bench, &packet).passed();
                }
                // Another address of the host's.
                foreign.destination.set_ip(bench.local());
                let packet = with_headers(&foreign.to_bytes(), chain);
                lenient(bench, &packet).passed();
            }
            let bytes = segment.to_bytes();
            // Whole in one piece, the first of several, and the first without the ports.
            lenient(bench, &fragment_v6(&bytes, 6, 0, false, 1_500)).dropped(IpOptions);
            lenient(bench, &fragment_v6(&bytes, 6, 0, true, 8)).dropped(Fragment);
            let hidden = with_headers(&bytes, &[(60, 2)]);
            lenient(bench, &fragment_v6(&hidden, 60, 0, true, 8)).dropped(Fragment);
            lenient(bench, &fragment_v6(&bytes, 6, 1, false, 1_500)).passed();
            // Other protocols behind the same headers.
            let mut other = with_headers(&bytes, &[(60, 1)]);
            other[40] = 17;
            lenient(bench, &other).passed();
        }
    });
}

/// What a node sends so is not forwarded, and does not leave in clear either.
#[test]
fn a_node_does_not_bypass_its_flow() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for mode in Mode::ALL {
            let opened = Client::open(&mut bench, mode);
            opened.splice(&mut bench);
            let bytes = opened.from_node(Flags::PSH_ACK, 0, 0, b"data").to_bytes();
            bench.lenient = true;
            let packet = if shape.v6 {
                with_headers(&bytes, &[(60, 1)])
            } else {
                with_options(&bytes, &[1; 4])
            };
            bench.tunnel_packet(&packet).dropped(IpOptions);
            bench.lenient = false;
        }
    }
}

/// A packet with one bit of its TCP checksum turned.
fn damaged(segment: &Segment) -> Vec<u8> {
    let mut packet = segment.to_bytes();
    let at = if segment.source.is_ipv6() { 56 } else { 36 };
    packet[at] ^= 0x10;
    packet
}

/// RFC 9293 MUST-3: nothing is done for a segment with a wrong checksum that would begin or end a connection.
#[test]
fn damaged_segments_change_nothing() {
    each_hook(|bench| {
        bench.lenient = true;
        let client = Client::new(bench, Refusal::Alert);
        for payload in [0, 1, 2, 3, 4, 7, 600, 1_300] {
            let mut syn = client.syn(&LINUX);
            syn.payload = vec![0xa5; payload];
            bench.public_packet(&damaged(&syn)).dropped(BadChecksum);
            assert_eq!(bench.from_client(&syn).verdict, Verdict::Redirect);
        }
        for mode in Mode::ALL {
            let opened = Client::open(bench, mode);
            // Before the node answered.
            let reset = opened
                .client
                .segment(Flags::RST, opened.hello.len() as u32, &[]);
            bench.public_packet(&damaged(&reset)).dropped(BadChecksum);
            assert!(bench.flow(opened.client.address, Refusal::Alert).is_some());
            let mut refusal = opened.syn_ack(&[]);
            refusal.flags = Flags::RST_ACK;
            let seen = bench.tunnel_packet(&damaged(&refusal));
            assert_eq!(seen.verdict, Verdict::Drop);
            let flow = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            assert_eq!(flow.state, state::CONNECTING);
            opened.splice(bench);
            let before = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            for flags in [Flags::RST, Flags::FIN_ACK, Flags::SYN] {
                for payload in [&b""[..], b"x", &[3; 1_200]] {
                    let sent = opened.from_client(flags, 0, 0, payload);
                    bench.public_packet(&damaged(&sent)).dropped(BadChecksum);
                    if flags == Flags::SYN {
                        continue;
                    }
                    let sent = opened.from_node(flags, 0, 0, payload);
                    bench.tunnel_packet(&damaged(&sent)).dropped(BadChecksum);
                }
            }
            let after = bench.flow(opened.client.address, Refusal::Alert).unwrap();
            assert_eq!((after.client_marks, after.node_marks), (0, 0));
            assert_eq!(after.client_acked, before.client_acked);
            // The right ones do.
            bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, b"bye"));
            bench.from_node(&opened.from_node(Flags::RST, 0, 0, &[]));
            assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
        }
        bench.lenient = false;
    });
}

/// Before the hello is whole, and with one of a device that leaves the sum to others.
#[test]
fn damaged_ends_of_a_hello_change_nothing() {
    each_hook(|bench| {
        bench.lenient = true;
        let client = Client::connect(bench, Refusal::Alert);
        client.send(bench, 0, &Hello::small("www.example.org").record()[..40]);
        for flags in [Flags::RST, Flags::FIN_ACK] {
            let sent = client.segment(flags, 40, &[]);
            bench.public_packet(&damaged(&sent)).dropped(BadChecksum);
            assert!(bench.hello(client.address, Refusal::Alert).is_some());
        }
        bench.from_client(&client.segment(Flags::RST, 40, &[]));
        assert!(bench.hello(client.address, Refusal::Alert).is_none());
        // CHECKSUM_PARTIAL: the field holds the sum of the pseudo-header alone.
        let other = Client::new(bench, Refusal::Alert);
        let syn = other.syn(&LINUX);
        let mut packet = syn.to_bytes();
        let v6 = bench.shape.v6;
        let (ip, at) = if v6 { (40, 56) } else { (20, 36) };
        let addresses = if v6 { 8..40 } else { 12..20 };
        let mut sum = forwarder_common::checksum::Sum::of_bytes(&packet[addresses]);
        sum = sum.add_u16_raw(6_u16.to_be());
        sum = sum.add_u16_raw(((packet.len() - ip) as u16).to_be());
        packet[at..at + 2].copy_from_slice(&sum.fold16().to_ne_bytes());
        assert_eq!(bench.public_packet(&packet).verdict, Verdict::Redirect);
        bench.lenient = false;
    });
}

/// While many cookies are wrong, one of the former epoch is good only for as long as a handshake takes.
#[test]
fn guesses_make_cookies_stricter() {
    // SAFETY: the set is a local, zeroed as `CPU_ZERO` would; the call reads it.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut cpus);
        assert_eq!(
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus),
            0
        );
    }
    let seconds = || now_ns() / 1_000_000_000 % 64;
    for armoured in [false, true] {
        while !(6..16).contains(&seconds()) {
            thread::sleep(Duration::from_millis(500));
        }
        let mut bench = Bench::new();
        bench.armoured = armoured;
        bench.maps.set(|settings: &mut Settings| {
            settings.reset_interval_ns = u64::MAX;
            settings.reset_fill_ns = 0;
        });
        let hello = Hello::small(Mode::Masquerade.name()).record();
        let try_it = |bench: &mut Bench, age| {
            let mut client = Client::new(bench, Refusal::Alert);
            client.cookie = client.old_cookie(age);
            client.send(bench, 0, &hello).bytes.is_some()
        };
        assert!(try_it(&mut bench, 0) && try_it(&mut bench, 1));
        let mut forger = Client::new(&mut bench, Refusal::Alert);
        forger.forge();
        let guess = forger.segment(Flags::ACK, 0, b"guess");
        for _ in 0..2_000 {
            bench.from_client(&guess);
        }
        assert!(
            cookie::accepts_previous(now_ns(), false) && !cookie::accepts_previous(now_ns(), true)
        );
        assert!(try_it(&mut bench, 0), "those of the present epoch are good");
        assert!(!try_it(&mut bench, 1), "those of the former one are not");
    }
}

/// What a node sends to somebody whom the host routes to, and who is not out there, is the host's: a laptop in the same
/// tunnel, a container. What would leave by the public interface is not.
#[test]
fn a_node_speaks_to_others_than_clients() {
    let mut bench = Bench::new();
    let ip = |words: &str| {
        command::run(command::command("ip").unwrap().args(words.split(' '))).unwrap();
    };
    std::fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1").unwrap();
    for words in [
        "addr add 8.0.10.99/24 dev tun0",
        "addr add 203.0.113.7/24 dev pub0",
        "link add lan0 type veth peer name lan0-peer",
        "link set lan0 up",
        "link set lan0-peer up",
        "addr add 192.168.7.1/24 dev lan0",
        "route add default via 203.0.113.1",
    ] {
        ip(words);
    }
    let node = bench.node_address(0);
    let mut segment = Segment::new(node, "192.168.7.9:50000".parse().unwrap(), Flags::SYN_ACK);
    bench.from_node(&segment).passed();
    // Another peer of the same tunnel.
    segment.destination = "8.0.10.55:50000".parse().unwrap();
    bench.from_node(&segment).passed();
    // Somebody out there: it is the rest of a connection of ours.
    segment.destination = "8.8.8.8:50000".parse().unwrap();
    let seen = bench.from_node(&segment);
    assert_eq!(seen.segment().destination, node);
    assert_eq!(seen.reasons, [UnknownFlow, NotItsFlow]);
    // A node whose pools show it no client never sends to one.
    bench.node(bench.node_number(0), |node| node.transparent = 0);
    bench.from_node(&segment).passed();
}
