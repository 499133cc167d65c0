//! This project's forwarder, in the ways it can be set up.

use super::{family, fill, names, node, node_v6};
use crate::bench::bpf::{self, Hook};
use crate::bench::contender::{Capacity, Running, unavailable};
use crate::bench::load::flood::{End, drop_flood};
use crate::bench::load::server::{PROXIED, RAW, TLS};
use crate::bench::scene::{NAME, Scene};
use crate::error::Result;
use crate::forwarder::Forwarder;

const CONFIG: &str = include_str!("../../../../bench/configs/forwarder.toml");

/// A running forwarder.
pub type Instance<'a> = Forwarder<'a>;

/// Nodes see the clients' addresses.
pub fn transparent(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    start(scene, &configuration(scene, capacity, Way::Transparent))
}

/// Nodes learn the clients' addresses from a PROXY v2 header.
pub fn proxied(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    start(scene, &configuration(scene, capacity, Way::Proxied))
}

/// Nodes see the clients' addresses, and XDP answers handshakes.
pub fn with_xdp(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    // What XDP sends out of one end of a veth arrives only if the other end has a program too.
    let other_end = scene.client().enter(|| {
        let program = drop_flood(Hook::Xdp, End::Destination)?;
        bpf::attach(&program, Hook::Xdp, bpf::interface("eth0")?)
    })?;
    let other_end = other_end.map_err(|error: std::io::Error| {
        unavailable("forwarder-xdp", &format!("the kernel refuses it: {error}"))
    })?;
    let running = start(scene, &configuration(scene, capacity, Way::Xdp))?;
    Ok(running.with(other_end))
}

/// What [`configuration`] differs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TC, transparent.
    Transparent,
    /// TC, PROXY v2.
    Proxied,
    /// XDP and TC, transparent.
    Xdp,
}

/// The configuration file.
#[must_use]
pub fn configuration(scene: &Scene, capacity: Capacity, way: Way) -> String {
    let add = if way == Way::Proxied { PROXIED } else { 0 };
    let mode = if way == Way::Proxied {
        "proxy-v2"
    } else {
        "transparent"
    };
    let xdp = if way == Way::Xdp { "on" } else { "off" };
    let names = names(capacity, |name| format!("    {name:?},\n"));
    let nodes = |port: u16| {
        format!(
            "\"{}:{port}\", \"[{}]:{port}\"",
            node(scene),
            node_v6(scene)
        )
    };
    let values: [(&str, &dyn std::fmt::Display); 11] = [
        ("XDP", &xdp),
        ("PUBLIC", &"eth0"),
        ("TUNNEL", &scene.node().entrance_interface),
        ("FLOWS", &capacity.flows),
        ("MODE", &mode),
        ("NAMES", &names),
        ("NAME", &NAME),
        ("RAW", &RAW),
        ("TLS", &TLS),
        ("NODES_RAW", &nodes(RAW + add)),
        ("NODES_TLS", &nodes(TLS + add)),
    ];
    fill(CONFIG, &values)
}

fn start<'a>(scene: &'a Scene, config: &str) -> Result<Running<'a>> {
    let forwarder = Forwarder::start(&scene.lab, config)?;
    let pids = forwarder.daemon().map(|daemon| family(daemon.pid()));
    Ok(Running::at(scene.public())
        .and(scene.public_v6())
        .pids(pids.unwrap_or_default())
        .forwarder(forwarder))
}
