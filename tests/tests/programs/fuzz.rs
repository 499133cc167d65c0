//! Thousands of mutated packets: nothing crashes, nothing is lost, and what goes out has right checksums.

use forwarder_common::abi::FlowKey;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Checksums, Flags, Packet, packet_too_big};
use forwarder_tests::pattern::Pattern;
use forwarder_tests::programs::bench::{Bench, ethernet};
use forwarder_tests::programs::client::{Client, LINUX, NODE};
use forwarder_tests::programs::kernel::Context;
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// Packets of each shape.
const ROUNDS: usize = 1_500;

struct Dice(Pattern);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % limit
    }
}

/// Packets of all kinds, of connections in all states; `true` for those of clients.
fn seeds(bench: &mut Bench) -> Vec<(bool, Vec<u8>)> {
    let mut seeds = Vec::new();
    let router = if bench.shape.v6 {
        "2001:db8:86dd:9::1"
    } else {
        "8.0.99.1"
    };
    let router = router.parse().unwrap();
    for mode in Mode::ALL {
        let hello = Hello::browser(mode.name(), 1).record();
        let client = Client::connect(bench, Refusal::Alert);
        seeds.push((true, client.syn(&LINUX).to_bytes()));
        for flags in [Flags::ACK, Flags::FIN_ACK, Flags::RST] {
            seeds.push((true, client.segment(flags, 0, &[]).to_bytes()));
        }
        for (at, piece) in [(0, &hello[..900]), (900, &hello[900..]), (0, &hello[..])] {
            seeds.push((true, client.segment(Flags::PSH_ACK, at, piece).to_bytes()));
        }
        let opened = Client::open(bench, mode);
        seeds.push((false, opened.syn_ack(&NODE).to_bytes()));
        seeds.push((
            true,
            opened
                .client
                .segment(Flags::PSH_ACK, 0, &opened.hello)
                .to_bytes(),
        ));
        let replaying = Client::open(bench, mode);
        replaying.accept(bench);
        let spliced = Client::open(bench, mode);
        spliced.splice(bench);
        for flow in [replaying, spliced] {
            for flags in [Flags::PSH_ACK, Flags::FIN_ACK, Flags::RST, Flags::SYN] {
                let mut up = flow.from_client(flags, 0, 0, b"some data");
                up.options = vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
                seeds.push((true, up.to_bytes()));
                let down = flow.from_node(flags, 0, 0, &[5; 700]).to_bytes();
                seeds.push((false, down));
            }
            let mut quoted = flow.from_node(Flags::ACK, 0, 0, &[5; 60]);
            (quoted.source, quoted.destination) = (flow.client.vip, flow.client.address);
            seeds.push((true, packet_too_big(router, &quoted.to_bytes(), 1_280)));
            let mut quoted = flow.from_client(Flags::ACK, 0, 0, &[5; 60]);
            (quoted.source, quoted.destination) = (flow.syn.source, flow.syn.destination);
            seeds.push((false, packet_too_big(router, &quoted.to_bytes(), 1_280)));
        }
    }
    seeds
}

fn mutate(dice: &mut Dice, packet: &mut Vec<u8>, v6: bool) {
    let tcp = if v6 { 40 } else { 20 };
    for _ in 0..dice.below(4) {
        // Mostly headers; the addresses that carry the EtherType of a packet without one stay.
        let at = match dice.below(8) {
            0 => dice.below(packet.len()),
            1 => dice.below(tcp),
            _ => tcp + dice.below(packet.len().saturating_sub(tcp).clamp(1, 40)),
        };
        if at == 0 || at == 12 || at == 13 || at >= packet.len() {
            continue;
        }
        match dice.below(3) {
            0 => packet[at] ^= 1 << dice.below(8),
            1 => packet[at] = dice.below(256) as u8,
            _ => packet[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
        }
    }
    match dice.below(10) {
        0 => packet.truncate(tcp + dice.below(packet.len() - tcp + 1)),
        1 => packet.extend(vec![0xaa; dice.below(64)]),
        _ => {}
    }
}

/// Puts length and checksums right, as far as the packet can be read, so that mutations get past them.
fn repair(packet: &mut [u8], v6: bool) {
    use forwarder_common::checksum::Sum;
    let (ip, length) = if v6 {
        (40, packet.len() - 40)
    } else {
        (20, packet.len())
    };
    let at = if v6 { 4 } else { 2 };
    packet[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    if !v6 {
        packet[10..12].fill(0);
        let sum = Sum::of_bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
    let (addresses, protocol) = if v6 {
        (8..40, packet[6])
    } else {
        (12..20, packet[9])
    };
    let field = ip + if protocol == 6 { 16 } else { 2 };
    if packet.len() < field + 2 {
        return;
    }
    packet[field..field + 2].fill(0);
    let mut sum = Sum::of_bytes(&packet[ip..]);
    if protocol != 1 {
        sum += Sum::of_bytes(&packet[addresses]);
        sum = sum.add_u16_raw(u16::from(protocol).to_be());
        sum = sum.add_u16_raw(((packet.len() - ip) as u16).to_be());
    }
    packet[field..field + 2].copy_from_slice(&sum.checksum().to_ne_bytes());
}

/// A packet that can be read, with right checksums, and nothing behind it.
fn is_good(packet: &[u8], v6: bool) -> bool {
    let length = if v6 {
        40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    } else {
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    };
    length == packet.len()
        && Packet::parse(packet, false).is_some_and(|p| p.checksums == Checksums::Good)
}

#[test]
fn mutated_packets() {
    let mut bench = Bench::new();
    let mut dice = Dice(Pattern::new(1));
    let mut actions = [0_usize; 3];
    for shape in Shape::all() {
        bench.reshape(shape);
        bench.maps.set(|settings| settings.syn_interval_us = 0);
        bench.forget();
        let mut pool = seeds(&mut bench);
        for round in 0..ROUNDS {
            if round % 500 == 499 {
                bench.forget();
                pool = seeds(&mut bench);
            }
            let (public, seed) = &pool[dice.below(pool.len())];
            let mut packet = seed.clone();
            mutate(&mut dice, &mut packet, shape.v6);
            if dice.below(4) > 0 {
                repair(&mut packet, shape.v6);
            }
            if !bench.takes(*public, &packet) {
                continue;
            }
            let own = if *public { shape.public } else { shape.tunnel };
            let frame = match own {
                Link::L2 => [ethernet(seed), packet.clone()].concat(),
                Link::L3 => packet.clone(),
            };
            let ifindex = if *public { bench.public } else { bench.tunnel };
            let context = Context {
                ifindex,
                ..Context::default()
            };
            let outcome = bench
                .raw(*public, &frame, context)
                .expect("the kernel runs it");
            match outcome.action {
                -1 => {
                    assert_eq!(outcome.bytes, frame);
                    actions[0] += 1;
                }
                2 => actions[1] += 1,
                7 => {
                    actions[2] += 1;
                    let at = if matches!(outcome.bytes[0], 0x45 | 0x60..=0x6f) {
                        0
                    } else {
                        14
                    };
                    let out = &outcome.bytes[at..];
                    assert!(
                        !is_good(&packet, shape.v6) || is_good(out, shape.v6),
                        "{shape:?} {public} {packet:02x?} became {out:02x?}"
                    );
                }
                other => panic!("action {other} for {frame:02x?}"),
            }
        }
    }
    assert!(actions.iter().all(|count| *count > ROUNDS), "{actions:?}");
    assert_nothing_lost(&mut bench);
}

/// Every buffer and every source port is either free or somebody's.
fn assert_nothing_lost(bench: &mut Bench) {
    let (mut ports, mut buffers) = bench.maps.free();
    let index: Vec<_> = bench.maps.hello_index.iter().map(Result::unwrap).collect();
    buffers.extend(index.iter().map(|(_, slot)| *slot));
    buffers.sort_unstable();
    assert_eq!(buffers, (0..256).collect::<Vec<_>>());
    for slot in 0..256 {
        assert_eq!(
            bench.maps.hellos.get(&slot, 0).unwrap().users,
            0,
            "buffer {slot} is held"
        );
    }
    let flows: Vec<_> = bench.maps.flows.iter().map(Result::unwrap).collect();
    for entry in bench.maps.reverse.iter() {
        let (reverse, vip) = entry.unwrap();
        let key = FlowKey {
            client: reverse.client,
            port_be: reverse.port_be,
            vip: vip as u16,
        };
        let flow = bench
            .maps
            .flows
            .get(&key, 0)
            .expect("the flow of a reverse entry");
        assert!(flow.is_seen_by(reverse.node), "{reverse:?}: {flow:?}");
    }
    for (_, flow) in &flows {
        let path = bench.maps.paths.get(&u32::from(flow.path), 0).unwrap();
        assert_eq!(
            (path.node, path.client_address),
            (flow.node, flow.client_address)
        );
        if !flow.is_transparent() {
            ports.push(u32::from(u16::from_be(flow.source_port_be)));
        }
    }
    ports.sort_unstable();
    assert_eq!(ports, (2_000..3_024).collect::<Vec<_>>());
}
