//! The network of the bench, and what is the same for every contender.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::command::run;
use crate::error::Result;
use crate::ethtool::Offloads;
use crate::lab::{Family, Lab, Node, TunnelKind};
use crate::netns::Namespace;

use super::load::server::Servers;

/// The one name that every contender lets through.
pub const NAME: &str = "www.example.org";
/// A name that none lets through.
pub const UNLISTED: &str = "private.example.com";
/// The client's end of the direct link.
pub const DIRECT_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// The node's end of the direct link.
pub const DIRECT_NODE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
/// The same of IPv6.
pub const DIRECT_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xd1, 0, 0, 0, 0, 0, 1);
/// The same of IPv6.
pub const DIRECT_NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xd1, 0, 0, 0, 0, 0, 2);
/// Sources of floods: a network that is routed to the client, where nobody answers.
pub const FLOOD_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

/// The same in IPv6, a /112.
pub const FLOOD_NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf100, 0, 0, 0, 0, 0);

/// The MTU of the tunnel, of the direct link too: WireGuard's.
const MTU: u16 = 1420;

/// Every namespace may use all ports, hold long queues, and take up a port again that has just ended, as
/// the documentation of nginx and HAProxy asks for.
const SYSCTLS: [(&str, &str); 5] = [
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_max_syn_backlog", "65535"),
    ("net/core/somaxconn", "65535"),
    ("net/ipv4/tcp_fin_timeout", "10"),
];

/// A client, an entrance and a node with its servers.
#[derive(Debug)]
pub struct Scene {
    _servers: Servers,
    /// The lab: one client, one node, no internet in between.
    pub lab: Lab,
    tunnel: TunnelKind,
    offloads: Mutex<Option<Offloads>>,
}

impl Scene {
    /// Builds it with a kind of tunnel.
    pub fn build(tunnel: TunnelKind) -> Result<Self> {
        let lab = Lab::builder()
            .without_internet()
            .tunnel(tunnel, 1)
            .tunnel_mtu(MTU)
            .offloads(Offloads::ALL)
            .entrance_routes()
            .build()?;
        let (client, node) = (&lab.clients[0].namespace, &lab.nodes[0].namespace);
        for namespace in [client, &lab.entrance, node] {
            for (key, value) in SYSCTLS {
                namespace.sysctl(key, value)?;
            }
        }
        // The client closes first. Without waiting ends its ports would run out within seconds.
        client.sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
        client.ip(&format!(
            "link add direct0 type veth peer name direct0 netns {node}\n\
             addr add {DIRECT_CLIENT}/24 dev direct0\n\
             addr add {DIRECT_CLIENT_V6}/64 dev direct0 nodad\nlink set direct0 up mtu {MTU}",
            node = node.name()
        ))?;
        node.ip(&format!(
            "addr add {DIRECT_NODE}/24 dev direct0\n\
             addr add {DIRECT_NODE_V6}/64 dev direct0 nodad\nlink set direct0 up mtu {MTU}"
        ))?;
        lab.entrance.ip(&format!(
            "route add {FLOOD_NETWORK}/16 via 198.18.0.2\n\
                 -6 route add {FLOOD_NETWORK_V6}/112 via {}",
            lab.clients[0].address(Family::V6)
        ))?;
        let servers = Servers::start(node, &lab.pki)?;
        let scene = Self {
            _servers: servers,
            lab,
            tunnel,
            offloads: Mutex::new(None),
        };
        scene.set_offloads(Offloads::ALL)?;
        Ok(scene)
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.lab.clients[0].namespace
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// The entrance's public address.
    #[must_use]
    pub fn public(&self) -> IpAddr {
        self.lab.public(Family::V4)
    }

    /// The same of IPv6.
    #[must_use]
    pub fn public_v6(&self) -> IpAddr {
        self.lab.public(Family::V6)
    }

    /// What leads to the node.
    #[must_use]
    pub fn tunnel(&self) -> TunnelKind {
        self.tunnel
    }

    /// Sets the offloads of every link, the direct one too. Nothing is touched where they are so already:
    /// beside XDP not even that would be allowed.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<()> {
        let mut current = self.offloads.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == Some(offloads) {
            return Ok(());
        }
        *current = None;
        let node = self.node();
        let mut ends = vec![
            (self.client(), "eth0"),
            (&self.lab.entrance, "eth0"),
            (self.client(), "direct0"),
            (&node.namespace, "direct0"),
        ];
        if self.tunnel == TunnelKind::Ethernet {
            ends.push((&self.lab.entrance, &node.entrance_interface));
            ends.push((&node.namespace, &node.interface));
        }
        ends.into_iter()
            .try_for_each(|(namespace, interface)| offloads.apply(namespace, interface))?;
        *current = Some(offloads);
        Ok(())
    }

    /// The hardware address of an interface.
    pub fn hardware_address(&self, namespace: &Namespace, interface: &str) -> Result<String> {
        let path = format!("/sys/class/net/{interface}/address");
        let mut command = namespace.command("cat")?;
        Ok(run(command.arg(path))?.trim().to_owned())
    }
}
