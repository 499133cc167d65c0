//! What one packet costs in the programs, on each way through them, as the kernel's clock has it.
//!
//! On real hardware that is time, and a noisy one. In a machine whose clock counts instructions (QEMU's
//! `-icount shift=0`: one of them takes a nanosecond) it is the number of machine instructions, helpers included.

use std::fmt;
use std::io;
use std::time::Duration;

use forwarder_common::abi::map;
use forwarder_common::token_bucket::Limit;

use super::bench::Bench;
use super::client::{Client, LINUX, NODE, Opened};
use super::shape::{Mode, Refusal, Shape};
use crate::bench::bpf::{self, Hook};
use crate::hello::Hello;
use crate::packet::{Flags, Segment};

/// How often each way is gone; the least counts.
const TIMES: usize = 40;
const DATA: [u8; 1_000] = [0x5a; 1_000];

/// What one packet costs on one way, in IPv4 and in IPv6.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The packet, and what becomes of it.
    pub way: &'static str,
    /// In IPv4.
    pub v4: Duration,
    /// In IPv6.
    pub v6: Duration,
}

/// What each way costs.
#[derive(Clone, Debug)]
pub struct Costs {
    /// From the public side's traffic hook on.
    pub plain: Vec<Cost>,
    /// With the armour in front of it.
    pub armoured: Vec<Cost>,
}

/// What it is called, and what sends all that comes before the packet and returns it, with whether the client sends it.
type Way = (&'static str, fn(&mut Bench) -> (bool, Segment));

/// Every way, with the tunnel that WireGuard is: no Ethernet header inside.
const WAYS: &[Way] = &[
    ("not for a listener: let through", foreign),
    ("SYN: answered with a cookie", syn),
    ("ACK of nothing: dropped", stray),
    ("hello in one segment: SYN to a node", hello),
    ("hello of a name that is not listed: alert", unlisted),
    ("node's SYN-ACK: hello to the node", accepted),
    ("data of an open flow, up", up),
    ("ACK of an open flow, up", up_ack),
    ("data of an open flow, down", down),
    ("ACK of an open flow, down", down_ack),
];

/// Goes every way.
pub fn costs() -> io::Result<Costs> {
    let idle = idle()?;
    let mut bench = Bench::sized(&[
        (map::HELLOS, 4_096),
        (map::HELLO_INDEX, 4_096),
        (map::HELLO_FREE, 4_096),
    ]);
    bench.maps.set(|settings| {
        let resets = Limit::per_second(1, 3);
        settings.reset_interval_ns = resets.interval_ns;
        settings.reset_fill_ns = resets.fill_ns;
    });
    let mut least = |armoured: bool, v6: bool, way: fn(&mut Bench) -> (bool, Segment)| {
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        bench.armoured = armoured;
        let once = |_| {
            // As a reader would: the programs wake it when the ring fills.
            bench.maps.events();
            let (of_client, segment) = way(&mut bench);
            bench.spent(idle);
            if of_client {
                bench.from_client(&segment);
            } else {
                bench.from_node(&segment);
            }
            bench.spent(idle)
        };
        (0..TIMES).map(once).min().unwrap_or_default()
    };
    let mut all = |armoured| {
        let cost = |(way, go): &Way| Cost {
            way,
            v4: least(armoured, false, *go),
            v6: least(armoured, true, *go),
        };
        WAYS.iter().map(cost).collect()
    };
    Ok(Costs {
        plain: all(false),
        armoured: all(true),
    })
}

/// What the kernel's clock tells of programs that do nothing, XDP and traffic control.
fn idle() -> io::Result<[Duration; 2]> {
    let least = |hook| -> io::Result<Duration> {
        let program = bpf::nothing(hook)?;
        let runs = (0..TIMES).map(|_| bpf::test_run(&program, &[0; 64]));
        let runs = runs.collect::<io::Result<Vec<_>>>()?;
        Ok(runs.into_iter().min().unwrap_or_default())
    };
    Ok([least(Hook::Xdp)?, least(Hook::TrafficIn)?])
}

fn foreign(bench: &mut Bench) -> (bool, Segment) {
    let mut client = Client::new(bench, Refusal::Alert);
    client.vip.set_port(22);
    (true, client.segment(Flags::PSH_ACK, 0, &DATA))
}

fn syn(bench: &mut Bench) -> (bool, Segment) {
    (true, Client::new(bench, Refusal::Alert).syn(&LINUX))
}

fn stray(bench: &mut Bench) -> (bool, Segment) {
    let mut client = Client::new(bench, Refusal::Alert);
    client.forge();
    (true, client.segment(Flags::ACK, 0, &[]))
}

fn hello(bench: &mut Bench) -> (bool, Segment) {
    let hello = Hello::small(Mode::Transparent.name()).record();
    let client = Client::connect(bench, Refusal::Alert);
    (true, client.segment(Flags::PSH_ACK, 0, &hello))
}

fn unlisted(bench: &mut Bench) -> (bool, Segment) {
    let hello = Hello::small("private.example.com").record();
    let client = Client::connect(bench, Refusal::Alert);
    (true, client.segment(Flags::PSH_ACK, 0, &hello))
}

fn accepted(bench: &mut Bench) -> (bool, Segment) {
    let opened = Client::open(bench, Mode::Transparent);
    (false, opened.syn_ack(&NODE))
}

fn open(bench: &mut Bench) -> Opened {
    let opened = Client::open(bench, Mode::Transparent);
    opened.splice(bench);
    opened
}

fn up(bench: &mut Bench) -> (bool, Segment) {
    (true, open(bench).from_client(Flags::PSH_ACK, 0, 0, &DATA))
}

fn up_ack(bench: &mut Bench) -> (bool, Segment) {
    (true, open(bench).from_client(Flags::ACK, 0, 0, &[]))
}

fn down(bench: &mut Bench) -> (bool, Segment) {
    (false, open(bench).from_node(Flags::PSH_ACK, 0, 0, &DATA))
}

fn down_ack(bench: &mut Bench) -> (bool, Segment) {
    (false, open(bench).from_node(Flags::ACK, 0, 0, &[]))
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:<42} | {:>6} | {:>6} | {:>14} | {:>6} |",
            "packet", "IPv4", "IPv6", "IPv4, armoured", "IPv6"
        )?;
        writeln!(
            f,
            "|{:-<44}|{:->7}:|{:->7}:|{:->15}:|{:->7}:|",
            "", "", "", "", ""
        )?;
        for (plain, armoured) in self.plain.iter().zip(&self.armoured) {
            writeln!(
                f,
                "| {:<42} | {:>6} | {:>6} | {:>14} | {:>6} |",
                plain.way,
                plain.v4.as_nanos(),
                plain.v6.as_nanos(),
                armoured.v4.as_nanos(),
                armoured.v6.as_nanos()
            )?;
        }
        Ok(())
    }
}
