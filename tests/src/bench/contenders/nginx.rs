//! nginx with `ssl_preread`: <https://nginx.org/en/docs/stream/ngx_stream_ssl_preread_module.html>.

use super::{
    family, fill, fresh_log, names, node, proxied_connections, rename_in, wait_serving, write,
};
use crate::bench::contender::{Capacity, Running};
use crate::bench::load::server::{RAW, TLS};
use crate::bench::scene::Scene;
use crate::error::{Context, Result};
use crate::process::Daemon;
use crate::server::nginx::stream_module;

const CONFIG: &str = include_str!("../../../../bench/configs/nginx.conf");

/// Starts it.
pub fn start(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    let folder = scene.lab.folder().join("bench-nginx");
    std::fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    let file = |name: &str| folder.join(name);
    let node = node(scene);
    write(
        &file("names"),
        &names(capacity, |name| format!("{name} {node};\n")),
    )?;
    let values: [(&str, &dyn std::fmt::Display); 6] = [
        ("MODULE", &stream_module()),
        ("FOLDER", &folder.display()),
        // A connection to the client and one to the node, and room for listeners.
        ("CONNECTIONS", &(2 * proxied_connections(capacity) + 500)),
        ("HASH", &(4 * capacity.names).next_power_of_two().max(2_048)),
        ("RAW", &RAW),
        ("TLS", &TLS),
    ];
    write(&file("nginx.conf"), &fill(CONFIG, &values))?;
    let mut command = scene.lab.entrance.command("nginx")?;
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(file("nginx.conf"))
        .args(["-e", "stderr"]);
    let daemon = Daemon::start("nginx", command, &fresh_log(scene, "nginx"))?;
    wait_serving(&daemon, scene)?;
    Ok(Running::at(scene.public())
        .and(scene.public_v6())
        .pids(family(daemon.pid()))
        .renamed_by(rename_in(file("names"), daemon.pid(), libc::SIGHUP))
        .with(daemon))
}
