//! Whether another instance stands at the same interfaces with the same claims: after `bpffs` was changed, the tree of
//! before is still loaded, and its programs would go on beside ours for ever.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::config::Config;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::registry::{self, Registry};
use crate::instance::paths::Paths;
use crate::link::Network;

/// Another instance has what this one is to claim.
#[derive(Debug, Error)]
#[error(
    "{claim} on {interface} is claimed already by what is pinned under {other} (was `bpffs` changed?). Set `bpffs` back; \
     or remove the other one, which ends its open flows: `forwarder unload --bpffs {other}`"
)]
pub struct Stacked {
    claim: SocketAddr,
    interface: String,
    other: String,
}

/// Looks for one among those that share the run directory.
pub fn check(place: &Paths, config: &Config, network: &Network) -> Result<(), Stacked> {
    for other in place.others() {
        let pins = Pins::new(other.bpffs());
        if !pins.exists() {
            continue;
        }
        let Ok(Some(registry)) = registry::file::load(&other.registry()) else {
            continue;
        };
        if let Some((claim, interface)) = shared(&registry, config, network) {
            return Err(Stacked {
                claim,
                interface,
                other: other.bpffs().display().to_string(),
            });
        }
    }
    Ok(())
}

/// What both claim on an interface that both are attached to.
fn shared(registry: &Registry, config: &Config, network: &Network) -> Option<(SocketAddr, String)> {
    let public = || {
        config
            .entrance
            .public
            .iter()
            .map(|name| name.get_ref().as_str())
    };
    let mut attached = registry.attachments.iter();
    let place = attached.find(|own| {
        let link = network.link_by_index(own.ifindex);
        link.is_some_and(|link| public().any(|name| name == link.name))
    })?;
    let theirs: BTreeSet<(IpAddr, u16)> = registry.vips.iter().map(|(_, own)| *own).collect();
    let ours = config.listeners.iter().flat_map(|listener| {
        let addresses = match &listener.addresses {
            Some(listed) => listed.iter().map(|ip| *ip.get_ref()).collect(),
            None => network.addresses(public()),
        };
        addresses.into_iter().map(|ip| (ip, listener.port))
    });
    let (ip, port) = ours.into_iter().find(|own| theirs.contains(own))?;
    Some((SocketAddr::new(ip, port), place.interface.clone()))
}
