//! The lab's flood as a program of its own, for networks that the lab did not make: SYNs and ACKs from ever new
//! addresses, from the namespace it runs in.
//!
//! While it runs, the veth it sends from has an XDP program that lets everything pass: without one nothing of what
//! the armour at its other end answers would arrive, and honest connections would fail beside the flood.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use clap::value_parser;
use forwarder_tests::Result;
use forwarder_tests::bench::bpf;
use forwarder_tests::error::Context;
use forwarder_tests::flood::{Flood, Kind, LONGEST};
use forwarder_tests::raw::{Injector, hardware_address};

/// Floods targets with SYNs and ACKs, for a while.
#[derive(Debug, Parser)]
struct Arguments {
    /// The veth to send from.
    interface: String,
    /// The hardware address of its other end.
    #[arg(value_parser = parse_neighbour)]
    neighbour: [u8; 6],
    /// Who is flooded.
    #[arg(required = true)]
    targets: Vec<SocketAddr>,
    /// Packets a second of each kind, to each target.
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// How long it floods.
    #[arg(long, value_parser = seconds())]
    seconds: u64,
    /// How much longer the XDP program stays, for armour that comes off late.
    #[arg(long, default_value_t = 1, value_parser = seconds())]
    linger: u64,
}

fn seconds() -> RangedU64ValueParser {
    value_parser!(u64).range(1..=LONGEST.as_secs())
}

fn parse_neighbour(text: &str) -> std::result::Result<[u8; 6], &'static str> {
    hardware_address(text).ok_or("not a hardware address such as 02:00:00:00:00:01")
}

fn main() -> ExitCode {
    match work(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-flood: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> Result<()> {
    let interface = arguments.interface.as_str();
    let ear = bpf::ear(interface).context(|| format!("an XDP program at {interface}"))?;
    let mut floods = Vec::new();
    for target in &arguments.targets {
        for kind in [Kind::Syn, Kind::Ack] {
            let injector = Injector::here(interface, arguments.neighbour)?;
            let flood = Flood::through(injector, *target, kind, arguments.rate);
            floods.push((target, kind, flood));
        }
    }
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    for (target, kind, flood) in floods {
        println!("{target}: {} packets, {kind:?}", flood.sent());
    }
    std::thread::sleep(Duration::from_secs(arguments.linger));
    drop(ear);
    Ok(())
}
