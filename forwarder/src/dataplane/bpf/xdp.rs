//! Attaches the XDP filter to interfaces and detaches it.
//!
//! Native XDP only: generic XDP runs after the kernel has made a packet buffer, which is what the XDP filter is
//! there to avoid. Its links are pinned, so that a daemon that dies leaves the interface as it is, and are
//! replaced in one step by the next one.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode};
use forwarder_common::abi::program;

use super::attach::AttachError;
use super::pins::{self, Pins};
use crate::link::Link;

/// The program in its two forms, the better one first: the first takes frames in several buffers, so that
/// drivers accept it beside a large MTU (Linux 5.18).
pub const PROGRAMS: [&str; 2] = [program::ARMOUR_FRAGS, program::ARMOUR];

/// Attaches it. What an earlier process attached is replaced.
pub fn attach_xdp(filter: &mut Xdp, pins: &Pins, link: &Link) -> Result<(), AttachError> {
    let interface = || link.name.clone();
    let refused = |source| AttachError::Refused {
        program: program::ARMOUR,
        interface: interface(),
        source,
    };
    let path = pins.xdp_of(link.ifindex)?;
    if path.exists() {
        let bad = |source| AttachError::Link {
            interface: interface(),
            source,
        };
        let pinned = PinnedLink::from_pin(&path).map_err(bad)?;
        let old = XdpLink::try_from(FdLink::from(pinned)).map_err(bad)?;
        match filter.attach_to_link(old) {
            Ok(id) => {
                // The pin keeps the link; this only closes our file descriptor of it.
                drop(filter.take_link(id).map_err(refused)?);
                return Ok(());
            }
            Err(error) => {
                // Its interface went and another got the same index.
                tracing::debug!(interface = link.name, %error, "the pinned link is stale");
                pins::remove_file(&path)?;
            }
        }
    }
    let id = filter
        .attach_to_if_index(link.ifindex, XdpMode::Driver)
        .map_err(refused)?;
    let new = filter.take_link(id).map_err(refused)?;
    let new = FdLink::try_from(new).map_err(|source| AttachError::Link {
        interface: interface(),
        source,
    })?;
    drop(new.pin(&path).map_err(|source| AttachError::Pin {
        interface: interface(),
        source,
    })?);
    Ok(())
}
