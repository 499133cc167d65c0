//! The floor: a kernel program of four instructions at each of the entrance's interfaces hands every
//! frame to the other one. Client and node take each other for neighbours on one link.

use std::net::Ipv4Addr;

use crate::bench::bpf::{self, Hook};
use crate::bench::contender::{Capacity, Running, unavailable};
use crate::bench::scene::Scene;
use crate::cleanup;
use crate::error::Result;
use crate::lab::TunnelKind;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);

/// Starts it.
pub fn start(scene: &Scene, _: Capacity) -> Result<Running<'_>> {
    if scene.tunnel() != TunnelKind::Ethernet {
        return Err(unavailable(
            "redirect",
            "its tunnel must carry Ethernet frames",
        ));
    }
    let (client, node) = (scene.client(), scene.node());
    let inside = &node.entrance_interface;
    let client_mac = scene.hardware_address(client, "eth0")?;
    let node_mac = scene.hardware_address(&node.namespace, &node.interface)?;
    let ends = [
        (client.name(), "eth0", CLIENT, NODE, node_mac),
        (
            node.namespace.name(),
            node.interface.as_str(),
            NODE,
            CLIENT,
            client_mac,
        ),
    ];
    let mut undo = Vec::new();
    for ((own, interface, address, peer, mac), namespace) in
        ends.into_iter().zip([client, &node.namespace])
    {
        namespace.ip(&format!(
            "addr replace {address}/24 dev {interface}\n\
             neigh replace {peer} lladdr {mac} dev {interface} nud permanent"
        ))?;
        let (own, interface) = (own.to_owned(), interface.to_owned());
        undo.push(cleanup::on_end(move || {
            let mut ip = match crate::command::command("ip") {
                Ok(ip) => ip,
                Err(_) => return,
            };
            ip.args(["-n", &own, "addr", "del", &format!("{address}/24"), "dev"]);
            let _ = crate::command::output(ip.arg(&interface));
        }));
    }
    let links = scene.lab.entrance.enter(|| {
        let (outer, inner) = (bpf::interface("eth0")?, bpf::interface(inside)?);
        Ok([
            bpf::attach(&bpf::redirect(inner)?, Hook::TrafficIn, outer)?,
            bpf::attach(&bpf::redirect(outer)?, Hook::TrafficIn, inner)?,
        ])
    })?;
    let links = links.map_err(|error: std::io::Error| {
        unavailable("redirect", &format!("the kernel refuses it: {error}"))
    })?;
    Ok(Running::at(NODE.into()).with(links).with(undo))
}
