//! Two packets of a connection at once, on two processors.
//!
//! Nothing here can fail by chance alone; on a machine with one processor, or a busy one, less is met.

use std::sync::atomic::{AtomicU32, Ordering};

use forwarder_common::abi::state;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::{Flags, Packet, Segment};
use forwarder_tests::programs::bench::{Bench, ethernet};
use forwarder_tests::programs::client::{Client, LINUX};
use forwarder_tests::programs::kernel::{Context, Outcome};
use forwarder_tests::programs::shape::{Mode, Refusal};

/// Pairs of packets.
const ROUNDS: usize = 2_000;
/// How often one thread looks for the other before it gives way: longer than a thread takes to start.
const SPINS: u32 = 10_000;
/// `TC_ACT_REDIRECT` (Linux `include/uapi/linux/pkt_cls.h`).
const REDIRECT: i32 = 7;

/// A packet, and whether a client sent it.
type Sent<'a> = (bool, &'a Segment);

/// Hands in two packets as close together as two threads come.
fn at_once(bench: &mut Bench, sent: [Sent<'_>; 2]) -> [Outcome; 2] {
    let ready = AtomicU32::new(0);
    let (own, public, tunnel) = (&*bench, bench.public, bench.tunnel);
    let hand_in = |(from_client, segment): Sent<'_>| {
        let packet = segment.to_bytes();
        let (frame, ifindex) = if from_client {
            ([&ethernet(&packet), &packet[..]].concat(), public)
        } else {
            (packet, tunnel)
        };
        let context = Context {
            ifindex,
            ..Context::default()
        };
        ready.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0;
        while ready.load(Ordering::Acquire) < 2 {
            looks += 1;
            // On a busy machine the other waits for this processor.
            if looks < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        own.raw(from_client, &frame, context).expect("a verdict")
    };
    let outcomes = std::thread::scope(|scope| {
        let other = scope.spawn(|| hand_in(sent[1]));
        let first = hand_in(sent[0]);
        [first, other.join().expect("a verdict")]
    });
    // What the copies were, and what was counted, is no matter here.
    bench.forget();
    outcomes
}

/// Both ends have closed; their last acknowledgements pass each other.
#[test]
fn the_last_acknowledgements() {
    let mut bench = Bench::new();
    for round in 0..ROUNDS {
        let opened = Client::open(&mut bench, Mode::ALL[round % 3]);
        opened.splice(&mut bench);
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        bench.from_node(&opened.from_node(Flags::FIN_ACK, 0, 0, &[]));
        let of_client = opened.from_client(Flags::ACK, 1, 1, &[]);
        let of_node = opened.from_node(Flags::ACK, 1, 1, &[]);
        at_once(&mut bench, [(true, &of_client), (false, &of_node)]);
        let left = bench.flow(opened.client.address, Refusal::Alert);
        assert!(left.is_none(), "round {round}: {left:?}");
        bench.maps.events();
    }
    assert_eq!(bench.maps.flows.keys().count(), 0);
    let (ports, buffers) = bench.maps.free();
    assert_eq!(
        (ports.len(), buffers.len()),
        (1_024, 256),
        "given back once"
    );
}

/// A client that has sent its FIN closes with data unread: its reset passes the node's acknowledgement of the FIN.
#[test]
fn a_reset_and_the_acknowledgement_that_makes_it_exact() {
    let mut bench = Bench::new();
    for round in 0..ROUNDS {
        let opened = Client::open(&mut bench, Mode::ALL[round % 3]);
        opened.splice(&mut bench);
        bench.from_client(&opened.from_client(Flags::FIN_ACK, 0, 0, &[]));
        let reset = opened.from_client(Flags::RST, 1, 0, &[]);
        let acknowledged = opened.from_node(Flags::ACK, 0, 1, &[]);
        at_once(&mut bench, [(true, &reset), (false, &acknowledged)]);
        let left = bench.flow(opened.client.address, Refusal::Alert);
        assert!(left.is_none(), "round {round}: {left:?}");
        bench.maps.events();
    }
    assert_eq!(bench.maps.flows.keys().count(), 0);
}

/// The client sends its hello again while the node acknowledges it: the flow goes on.
#[test]
fn a_repeated_hello_and_its_acknowledgement() {
    let mut bench = Bench::new();
    for round in 0..ROUNDS {
        let opened = Client::open(&mut bench, Mode::ALL[round % 3]);
        opened.accept(&mut bench);
        let again = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
        let acknowledged = opened.from_node(Flags::ACK, 0, 0, &[]);
        at_once(&mut bench, [(true, &again), (false, &acknowledged)]);
        let flow = bench.flow(opened.client.address, Refusal::Alert);
        let flow = flow.unwrap_or_else(|| panic!("round {round}: the flow is gone"));
        // Where the hello was held for the replay, the node's next acknowledgement says it again.
        if flow.state != state::SPLICED {
            bench.from_node(&acknowledged);
        }
        let flow = bench
            .flow(opened.client.address, Refusal::Alert)
            .expect("a flow");
        assert_eq!(flow.state, state::SPLICED, "round {round}");
        assert!(bench.hello(opened.client.address, Refusal::Alert).is_none());
        bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
        bench.maps.events();
    }
    assert_eq!(bench.maps.free().1.len(), 256, "every buffer is free");
}

/// Keeps this thread on the processor that it is on.
fn stay() {
    // SAFETY: a set of processors is plain memory, and the pointer is to a local of the size that is told.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let own = usize::try_from(libc::sched_getcpu()).expect("a processor");
        libc::CPU_SET(own, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(done, 0);
}

/// The same step by step: this packet looked for a flow before the other processor made it, and for the hello after.
#[test]
fn a_flow_is_made_between_two_looks() {
    stay();
    let mut bench = Bench::new();
    for mode in Mode::ALL {
        let opened = Client::open(&mut bench, mode);
        let (_, before) = bench.maps.free();
        let segment = opened.client.segment(Flags::PSH_ACK, 0, &opened.hello);
        let packet = segment.to_bytes();
        let frame = [&ethernet(&packet), &packet[..]].concat();
        let outcome = bench.stage("stage_hello", &frame).expect("a verdict");
        assert_ne!(outcome.action, REDIRECT, "neither reset nor sent on");
        bench.forget();
        let flow = bench.flow(opened.client.address, Refusal::Alert);
        assert!(flow.is_some());
        assert_eq!(bench.maps.free().1.len(), before.len(), "it is kept");
        opened.splice(&mut bench);
    }
}

/// A whole hello comes twice before it has a flow: one of them makes it, and the other does not end it.
#[test]
fn a_fresh_hello_twice() {
    let mut bench = Bench::new();
    for round in 0..ROUNDS {
        let mode = Mode::ALL[round % 3];
        let client = Client::connect(&mut bench, Refusal::Alert);
        let hello = client.segment(Flags::PSH_ACK, 0, &Hello::small(mode.name()).record());
        let outcomes = at_once(&mut bench, [(true, &hello), (true, &hello)]);
        let sent = outcomes.iter().filter(|own| own.action == REDIRECT);
        for outcome in sent {
            let packet = Packet::parse(&outcome.bytes[14..], false).expect("a packet");
            let flags = packet.tcp().expect("a segment").flags;
            assert_eq!(flags, Flags::SYN, "round {round}");
        }
        let flow = bench.flow(client.address, Refusal::Alert);
        assert!(flow.is_some(), "round {round}: no flow");
        assert!(bench.hello(client.address, Refusal::Alert).is_some());
        bench.from_client(&client.segment(Flags::RST, 0, &[]));
        bench.maps.events();
    }
    let (ports, buffers) = bench.maps.free();
    assert_eq!((ports.len(), buffers.len()), (1_024, 256));
}

/// One port of a client at two listeners that lead to the same nodes: each connection gets a node of its own.
#[test]
fn one_client_port_at_two_listeners() {
    let mut bench = Bench::new();
    let hello = Hello::small(Mode::Transparent.name()).record();
    let mut busy = 0;
    for round in 0..ROUNDS {
        let home = Client::connect(&mut bench, Refusal::Alert);
        let mut away = home.clone();
        (away.vip, away.refusal) = (bench.vip(Refusal::Reset), Refusal::Reset);
        away.cookie = bench.from_client(&away.syn(&LINUX)).segment().seq;
        let both = [&home, &away];
        let segments = both.map(|client| client.segment(Flags::PSH_ACK, 0, &hello));
        let mut outcomes = at_once(&mut bench, [(true, &segments[0]), (true, &segments[1])]);
        for (outcome, segment) in outcomes.iter_mut().zip(&segments) {
            if outcome.action != REDIRECT {
                // As the client would: it hears nothing and sends it again.
                busy += 1;
                let seen = bench.from_client(segment).segment();
                assert_eq!(seen.flags, Flags::SYN, "round {round}");
            }
        }
        let flows = both.map(|client| bench.flow(client.address, client.refusal).expect("a flow"));
        assert_ne!(
            flows[0].node, flows[1].node,
            "round {round}: both at one node"
        );
        for segment in both.map(|client| client.segment(Flags::RST, 0, &[])) {
            bench.from_client(&segment);
        }
        bench.maps.events();
    }
    assert_eq!(bench.maps.flows.keys().count(), 0);
    assert_eq!(bench.maps.reverse.keys().count(), 0);
    println!("{busy} had to be sent again");
}
