//! What is examined: a configuration and the machine it is for.

use std::net::IpAddr;

use crate::config::model::{Node, Pool};
use crate::config::{self, Config};
use crate::link::{Link, Network};

/// A configuration and the machine it is for.
pub struct Patient<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The file, for the lines that mend.
    pub report: &'a config::Report,
    /// The machine.
    pub network: Network,
}

impl<'a> Patient<'a> {
    /// Every interface of the configuration with its side, `public` or `tunnels`.
    pub fn interfaces(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let entrance = &self.config.entrance;
        let public = entrance.public.iter();
        let public = public.map(|own| ("public", own.get_ref().as_str()));
        public.chain(self.tunnels().map(|own| ("tunnels", own)))
    }

    /// Interfaces that lead to nodes.
    pub fn tunnels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let tunnels = self.config.entrance.tunnels.iter();
        tunnels.map(|own| own.get_ref().as_str())
    }

    /// Every node with its pool.
    pub fn nodes(&self) -> impl Iterator<Item = (&'a Pool, &'a Node)> + use<'a> {
        let pools = self.config.pools.iter();
        pools.flat_map(|pool| pool.nodes.iter().map(move |node| (pool, node)))
    }

    /// Whether an interface exists.
    pub fn is_there(&self, interface: &str) -> bool {
        self.network.link(interface).is_some()
    }

    /// The configured tunnel that leads to an address.
    pub fn tunnel_towards(&self, ip: IpAddr) -> Option<&Link> {
        let egress = self.network.egress.get(&ip).filter(|way| !way.local)?;
        let link = self.network.link_by_index(egress.ifindex)?;
        self.tunnels().any(|own| own == link.name).then_some(link)
    }

    /// Bytes of the largest packet to an address.
    pub fn mtu_towards(&self, ip: IpAddr) -> Option<u32> {
        let link = self.tunnel_towards(ip)?;
        let route = self.network.egress.get(&ip).and_then(|way| way.mtu);
        Some(route.map_or(link.mtu, |route| route.min(link.mtu)))
    }
}
