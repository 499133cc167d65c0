//! HAProxy in TCP mode by SNI: <https://docs.haproxy.org/2.6/configuration.html>, `req.ssl_sni` and `map`.

use super::{
    family, fill, fresh_log, names, node, proxied_connections, rename_in, wait_serving, write,
};
use crate::bench::contender::{Capacity, Running};
use crate::bench::load::server::{PROXIED, RAW, TLS};
use crate::bench::scene::Scene;
use crate::error::Result;
use crate::process::Daemon;

const CONFIG: &str = include_str!("../../../../bench/configs/haproxy.cfg");

/// Starts it; the node sees the entrance's address.
pub fn plain(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    start(scene, capacity, 0, "")
}

/// Starts it; the node learns the client's address from a PROXY v2 header.
pub fn proxied(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    start(scene, capacity, PROXIED, "send-proxy-v2")
}

fn start<'a>(
    scene: &'a Scene,
    capacity: Capacity,
    add: u16,
    server_options: &str,
) -> Result<Running<'a>> {
    let file = |ending: &str| scene.lab.folder().join(format!("bench-haproxy.{ending}"));
    let map = file("map");
    write(&map, &names(capacity, |name| format!("{name} node\n")))?;
    let values: [(&str, &dyn std::fmt::Display); 8] = [
        ("CONNECTIONS", &proxied_connections(capacity)),
        ("MAP", &map.display()),
        ("NODE", &node(scene)),
        ("RAW", &RAW),
        ("TLS", &TLS),
        ("NODE_RAW", &(RAW + add)),
        ("NODE_TLS", &(TLS + add)),
        ("SERVER_OPTIONS", &server_options),
    ];
    write(&file("cfg"), &fill(CONFIG, &values))?;
    let mut command = scene.lab.entrance.command("haproxy")?;
    // With a master, as its service has it: only so can it reload.
    command.args(["-W", "-db"]).arg("-f").arg(file("cfg"));
    let daemon = Daemon::start("haproxy", command, &fresh_log(scene, "haproxy"))?;
    wait_serving(&daemon, scene)?;
    Ok(Running::at(scene.public())
        .and(scene.public_v6())
        .pids(family(daemon.pid()))
        .renamed_by(rename_in(map, daemon.pid(), libc::SIGUSR2))
        .with(daemon))
}
