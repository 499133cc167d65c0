//! Builds the namespaces, links, addresses and routes of a lab.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    ClientHost, Family, Lab, LabBuilder, Node, TunnelKind, client_address, public_address, tunnel,
};
use crate::cleanup;
use crate::command::{self, run, run_with_input};
use crate::error::{Context, Error, Result};
use crate::ethtool::Offloads;
use crate::netns::{self, Namespace};
use crate::pki::Pki;
use crate::raw;
use crate::wire::Wire;

/// The table that leads a node's answers back into the tunnel they came from.
const RETURN_TABLE: u8 = 51;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(super) fn build(plan: &LabBuilder) -> Result<Lab> {
    crate::require_root()?;
    netns::remove_stale();
    let name = plan.name.clone().unwrap_or_else(|| {
        format!(
            "fw{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )
    });
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(folder.join("bpf"))
        .context(|| format!("making {}", folder.display()))?;
    let doomed = folder.clone();
    let folder_guard = cleanup::on_end(move || netns::remove_folder(&doomed));
    mount_bpffs(&folder.join("bpf"))?;

    let mut site = Site {
        plan,
        name,
        folder,
        wire_namespaces: Vec::new(),
    };
    let router = site.namespace("router")?;
    for key in [
        "net/ipv4/conf/all/forwarding",
        "net/ipv6/conf/all/forwarding",
    ] {
        router.sysctl(key, "1")?;
    }
    let entrance = site.namespace("entrance")?;
    if plan.forwarding {
        for key in [
            "net/ipv4/conf/all/forwarding",
            "net/ipv6/conf/all/forwarding",
        ] {
            entrance.sysctl(key, "1")?;
        }
    }
    let mut public_wires = Vec::new();
    let clients = if plan.routed {
        let clients = (0..plan.clients)
            .map(|index| site.client(&router, index, &format!("c{index}")))
            .collect::<Result<Vec<_>>>()?;
        for interface in 0..plan.publics {
            public_wires.extend(site.public_link(&router, &entrance, interface)?);
        }
        clients
    } else {
        let client = site.client(&entrance, 0, "eth0")?;
        let (v4, v6) = (public_address(0, Family::V4), public_address(0, Family::V6));
        entrance.ip(&format!(
            "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"
        ))?;
        site.plan.offloads.apply(&entrance, "eth0")?;
        vec![client]
    };
    let mut nodes = Vec::new();
    let mut running = Vec::new();
    let mut wireguards = 0;
    for (kind, count) in &plan.tunnels {
        let first = nodes.len();
        for _ in 0..*count {
            nodes.push(site.node(&entrance, *kind, nodes.len(), wireguards)?);
        }
        if *kind != TunnelKind::Ethernet {
            running.extend(tunnel::connect(
                &site.folder,
                &entrance,
                &nodes[first..],
                *kind,
                wireguards,
                plan.mtu,
            )?);
            wireguards += 1;
        }
    }
    for node in &nodes {
        return_routes(node)?;
    }
    let pki = Pki::create(&site.folder)?;
    let lab = Lab {
        wireguards: Mutex::new(running),
        public_wires,
        clients,
        router,
        entrance,
        nodes,
        pki,
        publics: plan.publics,
        name: site.name,
        folder: site.folder,
        _wire_namespaces: site.wire_namespaces,
        _folder_guard: folder_guard,
    };
    tunnel::warm_up(&lab)?;
    Ok(lab)
}

struct Site<'a> {
    plan: &'a LabBuilder,
    name: String,
    folder: PathBuf,
    wire_namespaces: Vec<Namespace>,
}

impl Site<'_> {
    fn namespace(&self, role: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{role}", self.name))
    }

    /// A client whose gateway is `port` of another namespace.
    fn client(&self, router: &Namespace, index: u8, port: &str) -> Result<ClientHost> {
        let namespace = self.namespace(&format!("client{index}"))?;
        veth(&namespace, "eth0", router, port)?;
        let (v4, v6) = (
            client_address(index, Family::V4),
            client_address(index, Family::V6),
        );
        let v6_prefix = format!("2001:db8:{:x}", 0xc0 + u16::from(index));
        namespace.ip(&format!(
            "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
             route add default via 198.18.{index}.1\nroute add default via {v6_prefix}::1"
        ))?;
        router.ip(&format!(
            "addr add 198.18.{index}.1/24 dev {port}\naddr add {v6_prefix}::1/64 dev {port} nodad\n\
             link set {port} up\nroute add 198.18.{index}.128/25 via {v4}\n\
             route add {v6_prefix}:100::/56 via {v6}"
        ))?;
        self.plan.offloads.apply(&namespace, "eth0")?;
        let gateway = hardware_address(router, port)?;
        Ok(ClientHost {
            namespace,
            gateway,
            index,
        })
    }

    fn public_link(
        &mut self,
        router: &Namespace,
        entrance: &Namespace,
        index: u8,
    ) -> Result<Option<Wire>> {
        let (port, interface) = (format!("p{index}"), format!("eth{index}"));
        let wire = self.link(router, &port, entrance, &interface, self.plan.public_wire)?;
        router_end(router, index)?;
        entrance.ip(&format!("link set {interface} up"))?;
        entrance_end(entrance, index)?;
        // Each public interface answers for its own address by itself, as behind two providers.
        let table = 100 + u16::from(index);
        let [v4, v6] = Family::BOTH.map(|family| public_address(index, family));
        entrance.ip(&format!(
            "rule add from {v4} lookup {table}\n-6 rule add from {v6} lookup {table}"
        ))?;
        Ok(wire)
    }

    fn node(
        &mut self,
        entrance: &Namespace,
        kind: TunnelKind,
        index: usize,
        wireguards: u8,
    ) -> Result<Node> {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        let namespace = self.namespace(&format!("node{index}"))?;
        if kind == TunnelKind::Ethernet {
            let entrance_interface = format!("lan{index}");
            let wire = self.link(
                entrance,
                &entrance_interface,
                &namespace,
                "lan0",
                self.plan.tunnel_wires,
            )?;
            let node = Node {
                namespace,
                interface: "lan0".to_owned(),
                entrance_interface,
                wire,
                tunnel_index: 64 + index,
                index,
            };
            let ends = [
                (entrance, &node.entrance_interface, 1),
                (&node.namespace, &node.interface, 2 + index),
            ];
            for (end, interface, host) in ends {
                let v4 = super::tunnel_address(node.tunnel_index, host, Family::V4);
                let v6 = super::tunnel_address(node.tunnel_index, host, Family::V6);
                end.ip(&format!(
                    "addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n\
                     link set {interface} up mtu {}",
                    self.plan.mtu
                ))?;
            }
            return Ok(node);
        }
        // What carries the encrypted packets: a link that stands for the internet between the two.
        let port = format!("up{index}");
        let wire = self.link(entrance, &port, &namespace, "up0", self.plan.tunnel_wires)?;
        entrance.ip(&format!(
            "addr add 172.31.{index}.1/30 dev {port}\nlink set {port} up"
        ))?;
        namespace.ip(&format!(
            "addr add 172.31.{index}.2/30 dev up0\nlink set up0 up"
        ))?;
        Ok(Node {
            namespace,
            interface: "wg0".to_owned(),
            entrance_interface: format!("wg{wireguards}"),
            wire,
            tunnel_index: 8 + wireguards,
            index,
        })
    }

    /// Joins two namespaces, with a faulty wire in between if there is to be one.
    fn link(
        &mut self,
        near: &Namespace,
        near_interface: &str,
        far: &Namespace,
        far_interface: &str,
        wired: bool,
    ) -> Result<Option<Wire>> {
        if !wired {
            veth(near, near_interface, far, far_interface)?;
            self.plan.offloads.apply(near, near_interface)?;
            self.plan.offloads.apply(far, far_interface)?;
            return Ok(None);
        }
        let number = self.wire_namespaces.len();
        let wire = self.namespace(&format!("wire{number}"))?;
        // The wire must not take part in what it carries.
        wire.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        veth(near, near_interface, &wire, "near")?;
        veth(far, far_interface, &wire, "far")?;
        wire.ip("link set near up\nlink set far up")?;
        // Whole segments with finished checksums on the wire, whatever the ends make of them.
        let ends = Offloads {
            receive_merge: self.plan.offloads.receive_merge,
            ..Offloads::NONE
        };
        ends.apply(near, near_interface)?;
        ends.apply(far, far_interface)?;
        Offloads::NONE.apply(&wire, "near")?;
        Offloads::NONE.apply(&wire, "far")?;
        let seed = self.plan.seed.wrapping_add(number as u64);
        let joined = Wire::join(&wire, "near", "far", seed)?;
        self.wire_namespaces.push(wire);
        Ok(Some(joined))
    }
}

fn gateways(index: u8) -> [String; 2] {
    [
        format!("203.0.{}.1", 113 + index),
        format!("2001:db8:{index:x}::1"),
    ]
}

/// The internet's end of a public link.
pub(super) fn router_end(router: &Namespace, index: u8) -> Result<()> {
    let [gateway4, gateway6] = gateways(index);
    router.ip(&format!(
        "addr add {gateway4}/24 dev p{index}\naddr add {gateway6}/64 dev p{index} nodad\nlink set p{index} up"
    ))
}

/// Addresses and routes of the entrance's end, which is up.
pub(super) fn entrance_end(entrance: &Namespace, index: u8) -> Result<()> {
    let [v4, v6] = Family::BOTH.map(|family| public_address(index, family));
    let [gateway4, gateway6] = gateways(index);
    let (interface, table) = (format!("eth{index}"), 100 + u16::from(index));
    entrance.ip(&format!(
        "addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n\
         route add default via {gateway4} dev {interface} metric {table}\n\
         route add default via {gateway6} dev {interface} metric {table}\n\
         route add default via {gateway4} dev {interface} table {table}\n\
         route add default via {gateway6} dev {interface} table {table}"
    ))
}

/// What leaves a node from its tunnel address goes back into the tunnel, wherever it is for: the node
/// sees its clients' own addresses.
fn return_routes(node: &Node) -> Result<()> {
    let Node {
        interface,
        tunnel_index,
        ..
    } = node;
    let (via4, via6) = if interface == "lan0" {
        let via = |family| format!("via {} ", super::tunnel_address(*tunnel_index, 1, family));
        (via(Family::V4), via(Family::V6))
    } else {
        (String::new(), String::new())
    };
    let (v4, v6) = (node.address(Family::V4), node.address(Family::V6));
    node.namespace.ip(&format!(
        "route add default {via4}dev {interface} table {RETURN_TABLE}\n\
         -6 route add default {via6}dev {interface} table {RETURN_TABLE}\n\
         rule add from {v4} lookup {RETURN_TABLE}\n-6 rule add from {v6} lookup {RETURN_TABLE}"
    ))
}

pub(super) fn veth(
    near: &Namespace,
    near_interface: &str,
    far: &Namespace,
    far_interface: &str,
) -> Result<()> {
    let line = format!(
        "link add {near_interface} netns {} type veth peer name {far_interface} netns {}",
        near.name(),
        far.name()
    );
    run_with_input(command::command("ip")?.args(["-batch", "-"]), &line).map(drop)
}

fn hardware_address(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = namespace.ip_output(&["-o", "link", "show", "dev", interface])?;
    let word = text
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap_or_default();
    raw::hardware_address(word).ok_or_else(|| Error::Unintelligible {
        what: format!(
            "the hardware address of {interface} in {}",
            namespace.name()
        ),
        text,
    })
}

fn mount_bpffs(folder: &Path) -> Result<()> {
    let mut mount = command::command("mount")?;
    run(mount.args(["-t", "bpf", "bpf"]).arg(folder)).map(drop)
}
