//! What this machine shows: where the default route leads, which interfaces are tunnels, and who is at their other
//! end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::doctor::wireguard::WireGuard;
use crate::link::driver::Driver;
use crate::link::survey::{SurveyError, Surveyor};
use crate::link::{LinkKind, Network};

/// Addresses that no network has (RFC 5737, RFC 3849): their way is the default route. Nothing is sent there.
const NOWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detected {
    /// Interfaces of the default routes that are no tunnels.
    pub public: Vec<String>,
    /// WireGuard, Tailscale and other TUN interfaces.
    pub tunnels: Vec<String>,
    /// Every interface but the loopback one.
    pub links: Vec<String>,
    /// Single addresses in the AllowedIPs of WireGuard's peers.
    pub peers: Vec<IpAddr>,
}

/// Looks at this machine. Needs a tokio runtime.
pub async fn look() -> Result<Detected, SurveyError> {
    let network = Surveyor::open()?.survey(NOWHERE.into_iter()).await?;
    let mut detected = judge(&network, |name| Driver::of(name).is_tunnel());
    for tunnel in &detected.tunnels {
        // Whatever is no WireGuard has no such peers.
        let Ok(own) = WireGuard::of(tunnel) else {
            continue;
        };
        let allowed = own.peers.iter().flat_map(|peer| &peer.allowed);
        let hosts = allowed.filter(|prefix| prefix.is_host());
        detected.peers.extend(hosts.map(|prefix| prefix.address));
    }
    Ok(detected)
}

fn judge(network: &Network, is_tunnel: impl Fn(&str) -> bool) -> Detected {
    let leads_home =
        |name: &str| name.starts_with("wg") || name.starts_with("tailscale") || is_tunnel(name);
    let mut public = Vec::new();
    for nowhere in NOWHERE {
        let way = network.egress.get(&nowhere).filter(|way| !way.local);
        let link = way.and_then(|way| network.link_by_index(way.ifindex));
        if let Some(link) = link
            && link.name != "lo"
            && !leads_home(&link.name)
            && !public.contains(&link.name)
        {
            public.push(link.name.clone());
        }
    }
    let tunnels = network.links.iter();
    let tunnels = tunnels.filter(|link| link.kind == LinkKind::L3 && leads_home(&link.name));
    Detected {
        tunnels: tunnels.map(|link| link.name.clone()).collect(),
        public,
        links: network
            .links
            .iter()
            .map(|link| link.name.clone())
            .filter(|name| name != "lo")
            .collect(),
        peers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Egress, Link};

    fn link(name: &str, ifindex: u32, kind: LinkKind) -> Link {
        Link {
            name: name.to_owned(),
            ifindex,
            kind,
            mtu: 1_500,
            up: true,
            addresses: Vec::new(),
            wireguard: false,
            mac: None,
        }
    }

    fn network(default: u32) -> Network {
        let way = Egress {
            ifindex: default,
            source: None,
            local: false,
            mtu: None,
        };
        Network {
            links: vec![
                link("lo", 1, LinkKind::L2),
                link("ens3", 2, LinkKind::L2),
                link("tailscale0", 3, LinkKind::L3),
                link("ppp0", 4, LinkKind::L3),
                link("home", 5, LinkKind::L3),
            ],
            egress: [(NOWHERE[0], way.clone()), (NOWHERE[1], way)].into(),
            routes: Vec::new(),
        }
    }

    #[test]
    fn the_default_route_is_public_and_tunnels_lead_home() {
        let detected = judge(&network(2), |name| name == "home");
        assert_eq!(detected.public, ["ens3"]);
        assert_eq!(detected.tunnels, ["tailscale0", "home"]);
        let dialled = judge(&network(4), |_| false);
        assert_eq!(dialled.public, ["ppp0"], "plain IP, and no tunnel");
        assert_eq!(dialled.tunnels, ["tailscale0"]);
    }

    #[test]
    fn a_default_route_into_the_tunnel_faces_nobody() {
        assert!(judge(&network(3), |_| false).public.is_empty());
        assert!(judge(&network(1), |_| false).public.is_empty());
    }
}
