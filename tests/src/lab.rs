//! The lab itself: which namespaces there are, and who has which address.
//!
//! The addresses follow from the position alone, so that a packet tells where it comes from:
//!
//! | Who | IPv4 | IPv6 |
//! |---|---|---|
//! | client *i* | 198.18.*i*.2 | 2001:db8:c*i*::2 |
//! | client *i*, addresses for hand-made packets | 198.18.*i*.128/25 | 2001:db8:c*i*:100::/56, one /64 each |
//! | entrance, public interface *k* (`eth`*k*) | 203.0.(113+*k*).7 | 2001:db8:*k*::7 |
//! | entrance, WireGuard tunnel *t* (`wg`*t*) | 10.(8+*t*).0.1 | fd00:8+*t*::1 |
//! | node *j* there | 10.(8+*t*).0.(2+*j*) | fd00:8+*t*::2+*j* |
//! | entrance, Ethernet link to node *j* (`lan`*j*) | 10.(64+*j*).0.1 | fd00:64+*j*::1 |
//! | node *j* there | 10.(64+*j*).0.(2+*j*) | fd00:64+*j*::2+*j* |

mod build;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cleanup::Guard;
use crate::error::Result;
use crate::ethtool::Offloads;
use crate::netns::Namespace;
use crate::pki::Pki;
use crate::wire::Wire;

pub use tunnel::kernel_has_wireguard;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// What leads from the entrance to its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// WireGuard in user space (wireguard-go): a TUN device, which is a true L3 device.
    WireGuard,
    /// WireGuard in the kernel, where there is one.
    KernelWireGuard,
    /// A plain Ethernet link to each node: quick, and an L2 device.
    Ethernet,
}

/// How a lab will look.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    name: Option<String>,
    clients: u8,
    publics: u8,
    tunnels: Vec<(TunnelKind, u8)>,
    mtu: u16,
    offloads: Offloads,
    public_wire: bool,
    tunnel_wires: bool,
    seed: u64,
    forwarding: bool,
    routed: bool,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            name: None,
            clients: 1,
            publics: 1,
            tunnels: Vec::new(),
            mtu: 1420,
            offloads: Offloads::DEFAULT,
            public_wire: false,
            tunnel_wires: false,
            seed: 1,
            forwarding: false,
            routed: true,
        }
    }
}

impl LabBuilder {
    /// Gives the lab a fixed name, so that it may outlive this process; it is then not seen as stale.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// How many clients there are; one unless told.
    #[must_use]
    pub fn clients(mut self, count: u8) -> Self {
        self.clients = count;
        self
    }

    /// How many public interfaces the entrance has; one unless told.
    #[must_use]
    pub fn public_interfaces(mut self, count: u8) -> Self {
        self.publics = count;
        self
    }

    /// Adds a tunnel with nodes at its other end.
    #[must_use]
    pub fn tunnel(mut self, kind: TunnelKind, nodes: u8) -> Self {
        self.tunnels.push((kind, nodes));
        self
    }

    /// The tunnels' MTU; 1420 unless told.
    #[must_use]
    pub fn tunnel_mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// The offloads of the entrance's Ethernet interfaces and of their other ends.
    #[must_use]
    pub fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// Puts a faulty wire between the internet and each public interface.
    #[must_use]
    pub fn public_wire(mut self) -> Self {
        self.public_wire = true;
        self
    }

    /// Puts a faulty wire between the entrance and each node (below WireGuard, where that is used).
    #[must_use]
    pub fn tunnel_wires(mut self) -> Self {
        self.tunnel_wires = true;
        self
    }

    /// The seed of the wires' random faults.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Lets the entrance route packets, as entrances that are not this project's need it. It does
    /// not by default: whatever gets through was forwarded on purpose.
    #[must_use]
    pub fn entrance_routes(mut self) -> Self {
        self.forwarding = true;
        self
    }

    /// Joins the one client with the entrance's first public interface directly, and leaves the internet
    /// out: whatever it costs to cross the entrance is then not mixed with another router's cost.
    #[must_use]
    pub fn without_internet(mut self) -> Self {
        self.routed = false;
        self
    }

    /// Builds the lab. Without any tunnel, it gets one of WireGuard with two nodes.
    pub fn build(mut self) -> Result<Lab> {
        if self.tunnels.is_empty() {
            self.tunnels.push((TunnelKind::WireGuard, 2));
        }
        build::build(&self)
    }
}

/// A network of namespaces; it is taken down when dropped.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: programs and wires first, then namespaces, then the folder.
    wireguards: Mutex<Vec<tunnel::End>>,
    public_wires: Vec<Wire>,
    /// The clients.
    pub clients: Vec<ClientHost>,
    /// The internet.
    pub router: Namespace,
    /// Where the forwarder runs.
    pub entrance: Namespace,
    /// The nodes, over all tunnels.
    pub nodes: Vec<Node>,
    /// The certificates of the lab's servers.
    pub pki: Pki,
    publics: u8,
    name: String,
    folder: PathBuf,
    _wire_namespaces: Vec<Namespace>,
    _folder_guard: Guard,
}

/// A client's machine.
#[derive(Debug)]
pub struct ClientHost {
    /// Its namespace.
    pub namespace: Namespace,
    /// The hardware address of its gateway, for hand-made packets.
    pub gateway: [u8; 6],
    index: u8,
}

/// A node's machine.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its tunnel interface.
    pub interface: String,
    /// The entrance's interface that leads to it.
    pub entrance_interface: String,
    wire: Option<Wire>,
    tunnel_index: u8,
    index: u8,
}

impl Lab {
    /// A lab to be described; see [`LabBuilder`].
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The prefix of the namespaces' names.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for files of this lab; it goes away with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A BPF file system of this lab's own.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    /// The entrance's address on its first public interface.
    #[must_use]
    pub fn public(&self, family: Family) -> IpAddr {
        self.public_on(0, family)
    }

    /// The entrance's address on a public interface.
    #[must_use]
    pub fn public_on(&self, interface: u8, family: Family) -> IpAddr {
        public_address(interface, family)
    }

    /// The names of the entrance's public interfaces.
    #[must_use]
    pub fn public_interfaces(&self) -> Vec<String> {
        (0..self.publics)
            .map(|index| format!("eth{index}"))
            .collect()
    }

    /// The names of the entrance's tunnel interfaces.
    #[must_use]
    pub fn tunnel_interfaces(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.entrance_interface.clone())
            .collect();
        names.dedup();
        names
    }

    /// The faulty wire before a public interface.
    ///
    /// # Panics
    /// If the lab was built without [`LabBuilder::public_wire`].
    #[must_use]
    pub fn public_wire(&self) -> &Wire {
        self.public_wires
            .first()
            .expect("a lab that was built with a public wire")
    }

    /// The process ids of the user-space WireGuards.
    #[must_use]
    pub fn wireguard_pids(&self) -> Vec<u32> {
        self.wireguards()
            .iter()
            .filter_map(|end| Some(end.daemon.as_ref()?.pid()))
            .collect()
    }

    /// The control sockets of the entrance's user-space WireGuards: each exists in the mount namespace of its
    /// program only.
    #[must_use]
    pub fn wireguard_sockets(&self) -> Vec<PathBuf> {
        let ends = self.wireguards();
        let here = ends.iter().filter(|end| end.at_entrance);
        here.filter_map(|end| {
            let pid = end.daemon.as_ref()?.pid();
            let path = format!("/proc/{pid}/root/run/wireguard/{}.sock", end.interface);
            Some(PathBuf::from(path))
        })
        .collect()
    }

    /// Removes the entrance's WireGuard interface that leads to a node, and makes it anew with the
    /// same name, addresses and keys: it gets another index.
    ///
    /// # Panics
    /// If no WireGuard leads to the node.
    pub fn recreate_wireguard(&self, node: &Node) -> Result<()> {
        self.remove_wireguard(node)?;
        self.make_wireguard(node)
    }

    /// Removes the entrance's WireGuard interface that leads to a node.
    ///
    /// # Panics
    /// If no WireGuard leads to the node.
    pub fn remove_wireguard(&self, node: &Node) -> Result<()> {
        self.at_entrance(node, |end| end.remove(&self.entrance))
    }

    /// Makes a removed one anew.
    ///
    /// # Panics
    /// If no WireGuard led to the node.
    pub fn make_wireguard(&self, node: &Node) -> Result<()> {
        self.at_entrance(node, |end| end.make(&self.entrance))
    }

    fn at_entrance(
        &self,
        node: &Node,
        job: impl FnOnce(&mut tunnel::End) -> Result<()>,
    ) -> Result<()> {
        let mut ends = self.wireguards();
        let end = ends
            .iter_mut()
            .find(|end| end.at_entrance && end.interface == node.entrance_interface);
        job(end.expect("a node behind WireGuard"))
    }

    /// Removes a public interface that has no wire before it.
    pub fn remove_public(&self, interface: u8) -> Result<()> {
        self.entrance.ip(&format!("link del eth{interface}"))
    }

    /// Makes a removed public interface anew, without addresses or routes at the entrance: see
    /// [`Self::address_public`].
    pub fn make_public(&self, interface: u8) -> Result<()> {
        build::veth(
            &self.router,
            &format!("p{interface}"),
            &self.entrance,
            &format!("eth{interface}"),
        )?;
        build::router_end(&self.router, interface)?;
        self.entrance.ip(&format!("link set eth{interface} up"))
    }

    /// Gives a public interface its addresses and routes.
    pub fn address_public(&self, interface: u8) -> Result<()> {
        build::entrance_end(&self.entrance, interface)
    }

    fn wireguards(&self) -> MutexGuard<'_, Vec<tunnel::End>> {
        self.wireguards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientHost {
    /// Its address.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        client_address(self.index, family)
    }

    /// One of its addresses for hand-made packets (`number` below 126), unknown to its kernel, which
    /// therefore never answers with a reset.
    #[must_use]
    pub fn raw_address(&self, family: Family, number: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(198, 18, self.index, 128 + number % 126).into(),
            Family::V6 => Ipv6Addr::new(
                0x2001,
                0xdb8,
                0xc0 + u16::from(self.index),
                0x100 + u16::from(number),
                0,
                0,
                0,
                1,
            )
            .into(),
        }
    }
}

impl Node {
    /// Its address in the tunnel.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        tunnel_address(self.tunnel_index, 2 + self.index, family)
    }

    /// The entrance's address in the tunnel.
    #[must_use]
    pub fn entrance_address(&self, family: Family) -> IpAddr {
        tunnel_address(self.tunnel_index, 1, family)
    }

    /// Its address in the tunnel with a port.
    #[must_use]
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// The faulty wire before this node.
    ///
    /// # Panics
    /// If the lab was built without [`LabBuilder::tunnel_wires`].
    #[must_use]
    pub fn wire(&self) -> &Wire {
        self.wire
            .as_ref()
            .expect("a lab that was built with tunnel wires")
    }
}

fn public_address(interface: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113 + interface, 7).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, interface.into(), 0, 0, 0, 0, 7).into(),
    }
}

fn client_address(index: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, index, 2).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc0 + u16::from(index), 0, 0, 0, 0, 2).into(),
    }
}

fn tunnel_address(tunnel: u8, host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, tunnel, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, tunnel.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}
