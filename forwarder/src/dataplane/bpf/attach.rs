//! Attaches programs to the ingress of interfaces, and detaches them.
//!
//! From Linux 6.6 by TCX links, which are pinned and so outlive the daemon; below by a filter of a fixed
//! priority and handle under `clsact`. Either is replaced in one step, so that a restart leaves no
//! moment without a program.

use std::mem;

use aya::pin::PinError;
use aya::programs::links::{FdLink, Link as _, LinkError, PinnedLink};
use aya::programs::tc::{
    self, NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError,
    TcHandle,
};
use aya::programs::{LinkOrder, ProgramError};
use aya::util::KernelVersion;
use forwarder_common::abi::{ABI_VERSION, program};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::pins::{self, Pins, PinsError, Side};
use crate::link::{Link, LinkKind};

/// Every program that is attached; the names of its filters under clsact.
const PROGRAMS: [&str; 4] = [
    program::PUBLIC_L2,
    program::PUBLIC_L3,
    program::TUNNEL_L2,
    program::TUNNEL_L3,
];

/// The first kernel with TCX links.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// Priority of the filter under clsact: early, with room before it, and for each layout one before that of the layout
/// before, which may still be there.
const PRIORITY: u16 = 15 - ABI_VERSION as u16;
/// Its handle; together with the priority it tells our filter from others.
const HANDLE: TcHandle = TcHandle::new(0, 0x4657);

/// By what programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// A TCX link.
    Tcx,
    /// A filter under clsact.
    Clsact,
}

/// An interface that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the interface when they were attached.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Which side it is on.
    pub side: Side,
    /// By what.
    pub hook: Hook,
}

/// Why an interface could not be attached to.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It has neither an Ethernet nor a bare IP header.
    #[error("{interface} is neither Ethernet nor plain IP")]
    Unsupported {
        /// The interface.
        interface: String,
    },
    /// The object lacks a program, or holds it as another type.
    #[error("the embedded kernel programs hold no classifier {name}")]
    NoProgram {
        /// Its name.
        name: &'static str,
    },
    /// The kernel refuses.
    #[error("cannot attach {program} to {interface}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        source: ProgramError,
    },
    /// A pinned link cannot be used.
    #[error("cannot take over the link pinned for {interface}")]
    Link {
        /// The interface.
        interface: String,
        /// Why.
        source: LinkError,
    },
    /// A link cannot be pinned.
    #[error("cannot pin the link of {interface}")]
    Pin {
        /// The interface.
        interface: String,
        /// Why.
        source: PinError,
    },
    /// The tree of pins cannot be changed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// The program for an interface.
pub fn program_for(side: Side, link: &Link) -> Result<&'static str, AttachError> {
    Ok(match (side, link.kind) {
        (Side::Public, LinkKind::L2) => program::PUBLIC_L2,
        (Side::Public, LinkKind::L3) => program::PUBLIC_L3,
        (Side::Tunnel, LinkKind::L2) => program::TUNNEL_L2,
        (Side::Tunnel, LinkKind::L3) => program::TUNNEL_L3,
        (_, LinkKind::Unsupported) => {
            return Err(AttachError::Unsupported {
                interface: link.name.clone(),
            });
        }
    })
}

/// Attaches `classifier`, replacing what an earlier process attached there.
pub fn attach(
    classifier: &mut SchedClassifier,
    name: &'static str,
    pins: &Pins,
    side: Side,
    link: &Link,
) -> Result<Hook, AttachError> {
    let refused = |source| AttachError::Refused {
        program: name,
        interface: link.name.clone(),
        source,
    };
    let new_enough = KernelVersion::current().is_ok_and(|running| running >= TCX_SINCE);
    if new_enough {
        match tcx(classifier, name, pins, side, link) {
            // A kernel that was built without TCX.
            Err(AttachError::Refused { source, .. }) if is_invalid(&source) => {
                tracing::debug!(interface = link.name, "no TCX, trying clsact");
            }
            other => return other.map(|()| Hook::Tcx),
        }
    }
    clsact(classifier, &link.name).map_err(refused)?;
    Ok(Hook::Clsact)
}

fn tcx(
    classifier: &mut SchedClassifier,
    name: &'static str,
    pins: &Pins,
    side: Side,
    link: &Link,
) -> Result<(), AttachError> {
    let interface = || link.name.clone();
    let path = pins.link(side, link.ifindex);
    let refused = |source| AttachError::Refused {
        program: name,
        interface: interface(),
        source,
    };
    if path.exists() {
        let bad = |source| AttachError::Link {
            interface: interface(),
            source,
        };
        let pinned = PinnedLink::from_pin(&path).map_err(bad)?;
        let old = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(bad)?;
        match classifier.attach_to_link(old) {
            Ok(id) => {
                // The pin keeps the link; this only closes our file descriptor of it.
                drop(classifier.take_link(id).map_err(refused)?);
                return Ok(());
            }
            Err(error) => {
                // Its interface went and another got the same index.
                tracing::debug!(interface = link.name, %error, "the pinned link is stale");
                pins::remove_file(&path)?;
            }
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier
        .attach_with_options(&link.name, TcAttachType::Ingress, options)
        .map_err(refused)?;
    let new = classifier.take_link(id).map_err(refused)?;
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

fn clsact(classifier: &mut SchedClassifier, interface: &str) -> Result<(), ProgramError> {
    if let Err(error) = tc::qdisc_add_clsact(interface) {
        // It is there already; if it is not, attaching says so.
        tracing::debug!(interface, %error, "clsact not added");
    }
    let old =
        SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
            .map_err(TcError::IoError)?;
    let id = match classifier.attach_to_link(old) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                ..NlOptions::default()
            };
            let options = TcAttachOptions::Netlink(options);
            classifier.attach_with_options(interface, TcAttachType::Ingress, options)?
        }
    };
    // Dropping the link would remove the filter; it is to outlive this process.
    mem::forget(classifier.take_link(id)?);
    Ok(())
}

/// Whether a filter of that priority and handle stands where ours do.
pub fn is_our_place(priority: u16, major: u16, minor: u16) -> bool {
    priority == PRIORITY && TcHandle::new(major, minor) == HANDLE
}

/// Detaches from one interface the filter of that priority which has our handle. Says whether there was one.
pub fn detach_filter(interface: &str, priority: u16) -> bool {
    let ingress = TcAttachType::Ingress;
    let filter = SchedClassifierLink::attached(interface, ingress, priority, HANDLE, None);
    filter.is_ok_and(|filter| filter.detach().is_ok())
}

/// Detaches from one interface whatever of ours is attached by clsact. Says whether anything was.
pub fn detach_clsact(interface: &str) -> bool {
    let mut any = false;
    for name in PROGRAMS {
        any |= tc::qdisc_detach_program(interface, TcAttachType::Ingress, name).is_ok();
    }
    any
}

fn is_invalid(error: &ProgramError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| matches!(io.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))) {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: LinkKind) -> Link {
        Link {
            name: String::from("x0"),
            ifindex: 7,
            kind,
            wireguard: false,
            mac: None,
            mtu: 1_500,
            up: true,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn the_program_follows_side_and_header() {
        let name = |side, kind| program_for(side, &link(kind)).unwrap();
        assert_eq!(name(Side::Public, LinkKind::L2), "public_l2");
        assert_eq!(name(Side::Public, LinkKind::L3), "public_l3");
        assert_eq!(name(Side::Tunnel, LinkKind::L2), "tunnel_l2");
        assert_eq!(name(Side::Tunnel, LinkKind::L3), "tunnel_l3");
        let error = program_for(Side::Tunnel, &link(LinkKind::Unsupported)).unwrap_err();
        assert!(error.to_string().contains("x0"));
    }
}
