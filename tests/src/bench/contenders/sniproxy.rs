//! sniproxy: <https://github.com/dlundquist/sniproxy>.

use super::{family, fill, fresh_log, names, node, proxied_connections, wait_serving, write};
use crate::bench::contender::{Capacity, Running};
use crate::bench::load::server::{RAW, TLS};
use crate::bench::scene::Scene;
use crate::error::Result;
use crate::process::Daemon;

const CONFIG: &str = include_str!("../../../../bench/configs/sniproxy.conf");

/// Starts it. Its names are regular expressions that are tried one after the other.
pub fn start(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    let file = |ending: &str| scene.lab.folder().join(format!("bench-sniproxy.{ending}"));
    let node = node(scene);
    let table = |port: u16| {
        names(capacity, |name| {
            format!("    ^{}$ {node}:{port}\n", name.replace('.', "\\\\."))
        })
    };
    let values: [(&str, &dyn std::fmt::Display); 4] = [
        ("RAW", &RAW),
        ("TLS", &TLS),
        ("RAW_TABLE", &table(RAW)),
        ("TLS_TABLE", &table(TLS)),
    ];
    write(&file("conf"), &fill(CONFIG, &values))?;
    let mut command = scene.lab.entrance.command("sniproxy")?;
    command.arg("-f").arg("-c").arg(file("conf"));
    command
        .arg("-n")
        .arg((2 * proxied_connections(capacity) + 500).to_string());
    let daemon = Daemon::start("sniproxy", command, &fresh_log(scene, "sniproxy"))?;
    wait_serving(&daemon, scene)?;
    Ok(Running::at(scene.public())
        .pids(family(daemon.pid()))
        .with(daemon))
}
