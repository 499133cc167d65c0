//! Takes a [`Network`] snapshot from the kernel by rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::tc::TcMessage;
use rtnetlink::{Handle, RouteMessageBuilder};
use thiserror::Error;

use super::{Egress, Link, LinkKind, Network, Route};

/// Why no snapshot could be taken.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// There is no netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel did not list what was asked for.
    #[error("the kernel does not list its {what}")]
    List {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: rtnetlink::Error,
    },
}

/// A netlink socket of the network namespace it was opened in.
#[derive(Clone, Debug)]
pub struct Surveyor {
    handle: Handle,
}

impl Surveyor {
    /// Opens the socket. Needs a tokio runtime; the socket closes with the last clone.
    pub fn open() -> Result<Self, SurveyError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(SurveyError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Lists interfaces and addresses, and asks for the way to each of `destinations`.
    pub async fn survey(
        &self,
        destinations: impl Iterator<Item = IpAddr>,
    ) -> Result<Network, SurveyError> {
        let list = |what| move |source| SurveyError::List { what, source };
        let links = self.handle.link().get().execute();
        let links: Vec<_> = links.try_collect().await.map_err(list("interfaces"))?;
        let addresses = self.handle.address().get().execute();
        let addresses: Vec<_> = addresses.try_collect().await.map_err(list("addresses"))?;
        let mut network = Network {
            links: links.iter().filter_map(link).collect(),
            egress: BTreeMap::new(),
            routes: self.routes().await?,
        };
        for message in &addresses {
            let owner = network
                .links
                .iter_mut()
                .find(|link| link.ifindex == message.header.index);
            if let (Some(link), Some(address)) = (owner, usable_address(message)) {
                link.addresses.push(address);
            }
        }
        for link in &mut network.links {
            link.addresses.sort_unstable();
            link.addresses.dedup();
        }
        for destination in destinations {
            if let Some(egress) = self.egress(destination).await {
                network.egress.insert(destination, egress);
            }
        }
        Ok(network)
    }

    /// The filters at the ingress of an interface.
    pub(crate) async fn filters(&self, ifindex: u32) -> Result<Vec<TcMessage>, SurveyError> {
        let filters = self.handle.traffic_filter(ifindex.cast_signed()).get();
        let filters = filters.ingress().execute();
        let filters = filters.try_collect::<Vec<_>>().await;
        filters.map_err(|source| SurveyError::List {
            what: "filters",
            source,
        })
    }

    /// The routes of all tables.
    async fn routes(&self) -> Result<Vec<Route>, SurveyError> {
        let source = |source| SurveyError::List {
            what: "routes",
            source,
        };
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes = Vec::new();
        for family in [v4, v6] {
            let messages = self.handle.route().get(any_table(family)).execute();
            let messages: Vec<_> = messages.try_collect().await.map_err(source)?;
            routes.extend(messages.iter().filter_map(route));
        }
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// The kernel's route to one address; `None` where it answers "unreachable".
    async fn egress(&self, destination: IpAddr) -> Option<Egress> {
        let message = match destination {
            IpAddr::V4(v4) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(v4, 32)
                .build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(v6, 128)
                .build(),
        };
        let answer = self.handle.route().get(message).execute();
        let mut answer = std::pin::pin!(answer);
        egress(&answer.try_next().await.ok()??)
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mtu = None;
    let mut wireguard = false;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::LinkInfo(infos) => {
                wireguard = infos.contains(&LinkInfo::Kind(InfoKind::Wireguard));
            }
            _ => {}
        }
    }
    Some(Link {
        name: name?,
        ifindex: message.header.index,
        kind: LinkKind::from_arphrd(u16::from(message.header.link_layer_type)),
        wireguard,
        mac,
        mtu: mtu?,
        up: message.header.flags.contains(LinkFlags::Up),
        addresses: Vec::new(),
    })
}

/// The address of a message, if clients can use it.
fn usable_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            // On a point-to-point interface `Address` is the peer and `Local` is ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // A deprecated address still takes connections until it is gone (RFC 4862 5.5.4).
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    let in_scope = matches!(
        message.header.scope,
        AddressScope::Universe | AddressScope::Site
    );
    if !in_scope || (flags.intersects(unusable) && !optimistic) {
        return None;
    }
    local.or(address)
}

/// Asks for whatever there is: a kernel that takes the question strictly would answer for one table and kind only.
fn any_table(mut message: RouteMessage) -> RouteMessage {
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    message
}

fn route(message: &RouteMessage) -> Option<Route> {
    let mut destination = None;
    let mut links = Vec::new();
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                destination = Some(IpAddr::V4(*v4));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                destination = Some(IpAddr::V6(*v6));
            }
            RouteAttribute::Oif(index) => links.push(*index),
            RouteAttribute::MultiPath(hops) => {
                links.extend(hops.iter().map(|hop| hop.interface_index));
            }
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    // Other tables may send everything to the machine itself, as transparent proxies do.
    let of_machine = table == u32::from(libc::RT_TABLE_LOCAL);
    let own = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast if of_machine => true,
        _ => return None,
    };
    links.sort_unstable();
    links.dedup();
    let prefix = IpNet::new(destination?, message.header.destination_prefix_length).ok()?;
    Some(Route {
        prefix: prefix.trunc(),
        own,
        links,
    })
}

fn egress(message: &RouteMessage) -> Option<Egress> {
    let local = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local => true,
        _ => return None,
    };
    let mut ifindex = None;
    let mut source = None;
    let mut mtu = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(IpAddr::V4(*v4)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => source = Some(IpAddr::V6(*v6)),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Egress {
        ifindex: ifindex?,
        source,
        local,
        mtu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_seen_and_is_the_way_to_itself() {
        let surveyor = Surveyor::open().unwrap();
        let localhost: IpAddr = "127.0.0.1".parse().unwrap();
        let network = surveyor.survey([localhost].into_iter()).await.unwrap();
        let lo = network.link("lo").unwrap();
        assert_eq!(lo.kind, LinkKind::L2);
        assert!(lo.mtu >= 16_384);
        // 127.0.0.1 has host scope: nobody else can reach it.
        assert!(!lo.addresses.contains(&localhost));
        let egress = &network.egress[&localhost];
        assert!(egress.local);
        let own = network.routes.iter().find(|route| {
            route.own && route.prefix.contains(&localhost) && route.links.contains(&lo.ifindex)
        });
        assert!(own.is_some(), "{:?}", network.routes);
        assert_eq!(egress.ifindex, lo.ifindex);
    }
}
