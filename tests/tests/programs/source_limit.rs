//! A source has no more flows than are left free in the table.

use std::net::IpAddr;

use forwarder_common::abi::map;
use forwarder_common::source_flows::{ALL, MORE, count};
use forwarder_common::verdict::DropReason::SourceLimit;
use forwarder_tests::hello::Hello;
use forwarder_tests::packet::Flags;
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX, Opened};
use forwarder_tests::programs::shape::{Link, Mode, Refusal, Shape};

/// A client with an address of its own: `source` tells the network, `host` the machine there.
fn client(bench: &mut Bench, source: u16, host: u16) -> Client {
    let mut client = Client::new(bench, Refusal::Alert);
    let [high, low] = source.to_be_bytes();
    let text = if bench.shape.v6 {
        format!("2001:db8:1:{source:x}::{host:x}")
    } else {
        format!("8.1.{high}.{low}")
    };
    client.address.set_ip(text.parse::<IpAddr>().unwrap());
    client.cookie = bench.from_client(&client.syn(&LINUX)).segment().seq;
    client
}

fn open(bench: &mut Bench, source: u16, host: u16, mode: Mode) -> Option<Opened> {
    let client = client(bench, source, host);
    let hello = Hello::small(mode.name()).record();
    let seen = client.send(bench, 0, &hello);
    if seen.reasons.is_empty() {
        return Some(Opened {
            client,
            mode,
            hello,
            syn: seen.segment(),
        });
    }
    // Its name is listed: another address or later will do.
    let reset = client.answer(Flags::RST_ACK, 0, hello.len() as u32, 0);
    seen.expect(&reset, &[SourceLimit]);
    None
}

fn bench(v6: bool, flows: u32) -> Bench {
    let mut bench = Bench::sized(&[(map::FLOWS, flows), (map::REVERSE, flows)]);
    bench.reshape(Shape {
        v6,
        // Clients have many addresses, of which the bench knows one: with Ethernet on both sides no matter.
        tunnel: Link::L2,
        ..Shape::COMMON
    });
    bench
}

#[test]
fn a_large_source_is_refused_and_a_small_one_is_not() {
    for v6 in [false, true] {
        for mode in Mode::ALL {
            let mut bench = bench(v6, 64);
            let mut large: Vec<Opened> = (0..)
                .map_while(|host| open(&mut bench, 1, host, mode))
                .collect();
            assert_eq!(large.len(), 32);
            for source in 2..18 {
                assert!(open(&mut bench, source, 1, mode).is_some(), "{source}");
            }
            // As the table fills, what it may have becomes less.
            assert!(open(&mut bench, 1, 1, mode).is_none());
            while large.len() > 20 {
                end(&mut bench, &large.pop().unwrap());
                assert!(open(&mut bench, 2, 1, mode).is_some());
            }
            assert!(open(&mut bench, 1, 1, mode).is_none());
            while large.len() > 10 {
                end(&mut bench, &large.pop().unwrap());
            }
            assert!(open(&mut bench, 1, 1, mode).is_some());
        }
    }
}

/// By an exact reset of the client.
fn end(bench: &mut Bench, opened: &Opened) {
    opened.splice(bench);
    bench.from_client(&opened.from_client(Flags::RST, 0, 0, &[]));
    assert!(bench.flow(opened.client.address, Refusal::Alert).is_none());
}

/// Behind one address of a carrier there may be a whole town.
#[test]
fn many_clients_of_one_address_are_served_while_most_is_free() {
    let mut bench = bench(false, 1_024);
    for host in 0..500 {
        let opened = open(&mut bench, 1, host, Mode::Masquerade).unwrap();
        opened.splice(&mut bench);
    }
}

#[test]
fn a_limit_may_be_set() {
    let mut bench = bench(true, 1_024);
    bench.maps.set(|settings| settings.flows_per_source = 3);
    let opened: Vec<Opened> = (0..)
        .map_while(|host| open(&mut bench, 1, host, Mode::ProxyV2))
        .collect();
    assert_eq!(opened.len(), 3);
    assert!(open(&mut bench, 2, 1, Mode::ProxyV2).is_some());
    end(&mut bench, &opened[0]);
    assert!(open(&mut bench, 1, 1, Mode::ProxyV2).is_some());
}

/// Every flow is counted once, and no more when it ends: `Bench` looks after every test. Here, that it looks.
#[test]
fn flows_are_counted() {
    let mut bench = bench(false, 64);
    let opened = open(&mut bench, 1, 1, Mode::Transparent).unwrap();
    assert_eq!(bench.maps.source_flows.get(&ALL, 0).unwrap(), MORE);
    bench.assert_counted();
    end(&mut bench, &opened);
    let cell = bench.maps.source_flows.get(&ALL, 0).unwrap();
    assert_eq!(count(cell), 0);
}
