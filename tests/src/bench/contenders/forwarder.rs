//! This project's forwarder, in the ways it can be set up.

use super::{family, fill, names, node};
use crate::bench::contender::{Capacity, Running, unavailable};
use crate::bench::load::server::{PROXIED, RAW, TLS};
use crate::bench::scene::Scene;
use crate::command::output;
use crate::error::Result;
use crate::forwarder::{self, Forwarder};

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
    if !knows_xdp(scene)? {
        return Err(unavailable(
            "forwarder-xdp",
            "it knows no `xdp` in [entrance]",
        ));
    }
    start(scene, &configuration(scene, capacity, Way::Xdp))
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
    // Absent unless it is wanted, so that a forwarder that does not know it can be measured too.
    let xdp = if way == Way::Xdp {
        "xdp = \"on\"\n"
    } else {
        ""
    };
    let names = names(capacity, |name| format!("    {name:?},\n"));
    let values: [(&str, &dyn std::fmt::Display); 10] = [
        ("XDP", &xdp),
        ("PUBLIC", &"eth0"),
        ("TUNNEL", &scene.node().entrance_interface),
        ("FLOWS", &capacity.flows.next_power_of_two()),
        ("MODE", &mode),
        ("NAMES", &names),
        ("RAW", &RAW),
        ("TLS", &TLS),
        ("NODE_RAW", &format!("{}:{}", node(scene), RAW + add)),
        ("NODE_TLS", &format!("{}:{}", node(scene), TLS + add)),
    ];
    fill(CONFIG, &values)
}

fn start<'a>(scene: &'a Scene, config: &str) -> Result<Running<'a>> {
    let forwarder = Forwarder::start(&scene.lab, config)?;
    let pids = forwarder.daemon().map(|daemon| family(daemon.pid()));
    Ok(Running::at(scene.public())
        .pids(pids.unwrap_or_default())
        .forwarder(forwarder))
}

/// Whether `check` accepts the key.
fn knows_xdp(scene: &Scene) -> Result<bool> {
    let file = scene.lab.folder().join("bench-xdp.toml");
    super::write(&file, &configuration(scene, Capacity::default(), Way::Xdp))?;
    let mut check = scene.lab.entrance.command(forwarder::program()?)?;
    check
        .arg("--config")
        .arg(&file)
        .args(["check", "--offline"]);
    Ok(output(&mut check)?.status.success())
}
