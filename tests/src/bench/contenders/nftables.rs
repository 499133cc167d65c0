//! Blind forwarding by nftables: destination NAT to one node, whose answers come back through the
//! entrance anyway.

use super::{fill, node, write};
use crate::bench::contender::{Capacity, Running};
use crate::bench::load::server::SERVICES;
use crate::bench::scene::Scene;
use crate::cleanup;
use crate::command::{output, run};
use crate::error::Result;

const RULES: &str = include_str!("../../../../bench/configs/nftables.nft");

/// Starts it.
pub fn start(scene: &Scene, _: Capacity) -> Result<Running<'_>> {
    let file = scene.lab.folder().join("bench.nft");
    let ports = SERVICES.map(|port| port.to_string()).join(", ");
    let values: [(&str, &dyn std::fmt::Display); 3] = [
        ("PUBLIC", &scene.public()),
        ("NODE", &node(scene)),
        ("PORTS", &ports),
    ];
    write(&file, &fill(RULES, &values))?;
    run(scene.lab.entrance.command("nft")?.arg("-f").arg(&file))?;
    let mut remove = scene.lab.entrance.command("nft")?;
    remove.args(["delete", "table", "ip", "bench"]);
    let guard = cleanup::on_end(move || drop(output(&mut remove)));
    Ok(Running::at(scene.public()).with(guard))
}
