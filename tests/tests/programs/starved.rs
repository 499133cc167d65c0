//! Buffers run out, or are lost: who gives way, who is told, and that nothing unjudged gets by.

use std::net::IpAddr;

use forwarder_common::abi::{close_reason, event_kind, map};
use forwarder_common::verdict::DropReason::{HelloBuffersFull, HelloDisplaced, HelloTimeout};
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::Flags;
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::shape::{Mode, Refusal};

use crate::answer::each_shape_and_mode;

/// `CLOCK_MONOTONIC`, ms, as the programs keep it.
fn now_ms() -> u32 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec * 1_000 + now.tv_nsec / 1_000_000) as u32
}

fn bench(buffers: u32) -> Bench {
    Bench::sized(&[
        (map::HELLOS, buffers),
        (map::HELLO_INDEX, 2 * buffers),
        (map::HELLO_FREE, buffers),
    ])
}

/// A client with an address of its own: `source` tells the network, `host` the machine there.
fn client(bench: &mut Bench, source: u8, host: u8) -> Client {
    let mut client = Client::new(bench, Refusal::Alert);
    let text = if bench.shape.v6 {
        format!("2001:db8:1:{source:x}::{host:x}")
    } else {
        format!("8.1.0.{source}")
    };
    client.address.set_ip(text.parse::<IpAddr>().unwrap());
    client.cookie = bench.from_client(&client.syn(&LINUX)).segment().seq;
    client
}

fn hello(mode: Mode) -> Vec<u8> {
    Hello::small(mode.name()).record()
}

/// A client that has sent the first bytes of its hello.
fn begun(bench: &mut Bench, source: u8, host: u8) -> Client {
    let client = client(bench, source, host);
    let seen = client.send(bench, 0, &hello(Mode::Transparent)[..40]);
    assert_eq!(seen.reasons, [], "{source}");
    client
}

/// However slow this machine is.
fn keep_young(bench: &mut Bench, client: &Client) {
    age(bench, client, 600_000_u32.wrapping_neg());
}

/// As if its hello had begun so long ago.
fn age(bench: &mut Bench, client: &Client, ms: u32) {
    let (slot, mut hello) = bench.hello(client.address, client.refusal).unwrap();
    hello.started_ms = now_ms().wrapping_sub(ms);
    bench.maps.hellos.set(slot, *hello, 0).unwrap();
}

fn is_kept(bench: &Bench, client: &Client) -> bool {
    bench.hello(client.address, client.refusal).is_some()
}

fn has_flow(bench: &Bench, client: &Client) -> bool {
    bench.flow(client.address, client.refusal).is_some()
}

/// Sends a whole hello in one segment.
fn open(bench: &mut Bench, client: Client, mode: Mode) -> Option<Opened> {
    let hello = hello(mode);
    let seen = client.send(bench, 0, &hello);
    seen.reasons.is_empty().then(|| Opened {
        client,
        mode,
        hello,
        syn: seen.segment(),
    })
}

/// Whatever the client sends: the node has not acknowledged what the entrance answered for, and would read it in its
/// place.
#[test]
fn a_flow_that_lost_its_hello_passes_nothing() {
    each_shape_and_mode(|bench, mode| {
        for at in [-1_i32, 0, 30, 300, 10_000] {
            let opened = Client::open(bench, mode);
            assert!(!opened.accept(bench).is_empty());
            let key = bench.flow_key(opened.client.address, Refusal::Alert);
            let slot = bench.maps.hello_index.get(&key, 0).unwrap();
            bench.maps.hello_index.remove(&key).unwrap();
            bench.maps.hello_free.push(slot, 0).unwrap();
            bench.maps.events();
            let forged = Hello::small("secret.example.org").record();
            let segment = opened.client.segment(Flags::PSH_ACK, at as u32, &forged);
            let seen = bench.from_client(&segment);
            for sent in seen.all() {
                assert!(
                    sent.flags.has(Flags::RST) && sent.payload.is_empty(),
                    "{sent:?}"
                );
            }
            assert_eq!(seen.segment().destination, opened.client.address);
            assert_eq!(seen.segment().seq, segment.ack, "exact");
            assert!(!has_flow(bench, &opened.client));
            let [event] = bench.maps.events()[..] else {
                panic!("one event")
            };
            assert_eq!(
                (event.kind, event.reason),
                (event_kind::CLOSED, close_reason::UNCONFIRMED)
            );
        }
    });
}

/// The node is told, too, where it can be.
#[test]
fn its_node_is_reset() {
    for mode in Mode::ALL {
        let mut bench = Bench::new();
        let opened = Client::open(&mut bench, mode);
        opened.accept(&mut bench);
        let key = bench.flow_key(opened.client.address, Refusal::Alert);
        bench.maps.hello_index.remove(&key).unwrap();
        let seen = bench.from_client(&opened.client.segment(Flags::PSH_ACK, 0, &opened.hello));
        let [to_node, to_client] = &seen.all()[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(to_node.destination, opened.syn.destination);
        assert_eq!(to_node.source, opened.syn.source);
        assert_eq!(to_node.flags, Flags::RST);
        // What its last acknowledgement named: that of the SYN.
        assert_eq!(to_node.seq, opened.client.isn.wrapping_add(1));
        assert_eq!(to_client.destination, opened.client.address);
    }
}

/// A node that took the hello and does not acknowledge it for very long may have to give way, and its flow with it.
#[test]
fn a_routed_hello_gives_way_with_its_flow_only() {
    for mode in Mode::ALL {
        for answered in [false, true] {
            let mut bench = bench(2);
            bench.maps.set(|settings| settings.hello_steal_ms = 1_000);
            let opened = Client::open(&mut bench, mode);
            if answered {
                opened.accept(&mut bench);
            }
            let other = Client::open(&mut bench, mode);
            keep_young(&mut bench, &opened.client);
            keep_young(&mut bench, &other.client);
            let newcomer = client(&mut bench, 9, 9);
            let refused = newcomer.send(&mut bench, 0, &hello(mode));
            refused.dropped(HelloBuffersFull);
            age(
                &mut bench,
                &opened.client,
                if answered { 16_000 } else { 1_500 },
            );
            bench.maps.events();
            assert!(open(&mut bench, newcomer, mode).is_some());
            assert!(!is_kept(&bench, &opened.client) && !has_flow(&bench, &opened.client));
            assert!(is_kept(&bench, &other.client) && has_flow(&bench, &other.client));
            let reason = if answered {
                close_reason::UNCONFIRMED
            } else {
                close_reason::NO_NODE
            };
            let [event] = bench.maps.events()[..] else {
                panic!("one event")
            };
            assert_eq!((event.kind, event.reason), (event_kind::CLOSED, reason));
            if mode != Mode::Transparent {
                assert_eq!(bench.maps.free().0.len(), 1_024 - 2, "its port is free");
            }
            // Its client repeats the hello, and learns that the connection is over.
            let again = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
            let seen = bench.from_client(&again);
            assert_eq!(seen.reasons, [HelloDisplaced]);
            let reset = seen.segment();
            assert_eq!((reset.flags, reset.seq), (Flags::RST, again.ack));
        }
    }
}

/// A single source may drip as it likes.
#[test]
fn the_largest_source_gives_way() {
    for v6 in [false, true] {
        let mut bench = bench(32);
        bench.shape.v6 = v6;
        bench.reshape(bench.shape);
        let others: Vec<Client> = (2..4).map(|source| begun(&mut bench, source, 1)).collect();
        let dripping: Vec<Client> = (0..30).map(|host| begun(&mut bench, 1, host)).collect();
        // Its own next one finds none, ever: what it has begun is young, and the others have one each.
        let own = client(&mut bench, 1, 200);
        for _ in 0..100 {
            own.send(&mut bench, 0, &hello(Mode::Transparent)[..40])
                .dropped(HelloBuffersFull);
        }
        for source in 10..22 {
            let newcomer = client(&mut bench, source, 1);
            let opened = open(&mut bench, newcomer, Mode::Transparent);
            assert!(opened.is_some(), "source {source}");
        }
        assert!(others.iter().all(|other| is_kept(&bench, other)));
        let left: Vec<&Client> = dripping
            .iter()
            .filter(|client| is_kept(&bench, client))
            .collect();
        assert_eq!(left.len(), 30 - 12);
    }
}

/// Connections to a pool whose nodes are silent hold what others need.
#[test]
fn a_dead_pool_gives_way() {
    let mut bench = bench(32);
    bench.maps.set(|settings| settings.hello_steal_ms = 1_000);
    let waiting: Vec<Client> = (0..30)
        .map(|source| {
            let client = client(&mut bench, 100 + source, 1);
            let opened = open(&mut bench, client, Mode::ProxyV2).unwrap();
            age(&mut bench, &opened.client, 1_100);
            opened.client
        })
        .collect();
    let others: Vec<Client> = (2..4).map(|source| begun(&mut bench, source, 1)).collect();
    for other in &others {
        age(&mut bench, other, 5_000);
    }
    for source in 10..20 {
        let newcomer = client(&mut bench, source, 1);
        assert!(open(&mut bench, newcomer, Mode::Transparent).is_some());
    }
    assert!(others.iter().all(|other| is_kept(&bench, other)));
    let left = waiting.iter().filter(|own| is_kept(&bench, own)).count();
    assert_eq!(left, 20);
    let flows = waiting.iter().filter(|own| has_flow(&bench, own)).count();
    assert_eq!(flows, 20);
    assert_eq!(bench.maps.free().0.len(), 1_024 - 20, "ports");
}

/// A deadline from the first byte on, however busily its client drips.
#[test]
fn a_hello_has_its_time() {
    let mut bench = Bench::new();
    let bytes = hello(Mode::Transparent);
    let slow = begun(&mut bench, 1, 1);
    age(&mut bench, &slow, 59_000);
    assert_eq!(slow.send(&mut bench, 40, &bytes[40..41]).reasons, []);
    age(&mut bench, &slow, 60_001);
    let segment = slow.segment(Flags::PSH_ACK, 41, &bytes[41..]);
    let seen = bench.from_client(&segment);
    assert_eq!(seen.reasons, [HelloTimeout]);
    assert_eq!(
        (seen.segment().flags, seen.segment().seq),
        (Flags::RST, segment.ack)
    );
    assert!(!is_kept(&bench, &slow) && !has_flow(&bench, &slow));
    assert_eq!(bench.maps.free().1.len(), 256);
}

/// A processor whose clock was read a millisecond earlier does not take the youngest for the oldest.
#[test]
fn a_hello_from_the_future_is_young() {
    let mut bench = bench(2);
    bench.maps.set(|settings| settings.hello_steal_ms = 1_000);
    let both = [begun(&mut bench, 1, 1), begun(&mut bench, 1, 2)];
    for _ in 0..50 {
        for own in &both {
            age(&mut bench, own, 50_u32.wrapping_neg());
        }
        let newcomer = client(&mut bench, 1, 3);
        newcomer
            .send(&mut bench, 0, &hello(Mode::Transparent))
            .dropped(HelloBuffersFull);
    }
    assert!(both.iter().all(|own| is_kept(&bench, own)));
}

/// A part of its hello was acknowledged, so its client would never send that again.
#[test]
fn who_lost_its_hello_is_told() {
    let mut bench = bench(2);
    bench.maps.set(|settings| settings.hello_steal_ms = 1_000);
    let bytes = hello(Mode::Transparent);
    let lost = begun(&mut bench, 1, 1);
    let kept = client(&mut bench, 2, 1);
    let kept = open(&mut bench, kept, Mode::Transparent).unwrap().client;
    keep_young(&mut bench, &kept);
    age(&mut bench, &lost, 2_000);
    let newcomer = client(&mut bench, 3, 1);
    assert!(open(&mut bench, newcomer, Mode::Transparent).is_some());
    assert!(is_kept(&bench, &kept));
    let segment = lost.segment(Flags::PSH_ACK, 40, &bytes[40..]);
    let seen = bench.from_client(&segment);
    assert_eq!(seen.reasons, [HelloDisplaced]);
    assert_eq!(
        (seen.segment().flags, seen.segment().seq),
        (Flags::RST, segment.ack)
    );
    // The next connection from its port is another one.
    let mut next = lost.clone();
    next.isn = next.isn.wrapping_add(1 << 20);
    next.cookie = bench.from_client(&next.syn(&LINUX)).segment().seq;
    age(&mut bench, &kept, 2_000);
    assert!(open(&mut bench, next, Mode::Transparent).is_some());
}
