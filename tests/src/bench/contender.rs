//! What can stand between client and node.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};

use crate::error::{Error, Result};
use crate::lab::Family;

use super::contenders;
use super::scene::Scene;

/// What a contender is asked to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Listed names.
    pub names: usize,
    /// Open connections.
    pub flows: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            names: 10,
            flows: 130_000,
        }
    }
}

impl Capacity {
    /// The listed names but for [`super::scene::NAME`].
    pub fn other_names(self) -> impl Iterator<Item = String> {
        (1..self.names).map(|number| format!("site-{number}.example.net"))
    }
}

/// Has a program use another text in each of its names, in place of one that all but the first have.
pub type Rename = Box<dyn Fn(&str, &str) -> Result<()>>;

/// A contender at work; it ends when this is dropped.
pub struct Running<'a> {
    /// The address that clients connect to, with the ports of [`super::load::server::SERVICES`].
    pub address: IpAddr,
    /// The same for clients of IPv6, where it is set up for them.
    pub address_v6: Option<IpAddr>,
    /// Its processes at the entrance.
    pub pids: Vec<u32>,
    /// Puts other names to use, if it can without a new start.
    pub rename: Option<Rename>,
    /// The forwarder, if that is what it is.
    pub forwarder: Option<contenders::forwarder::Instance<'a>>,
    _parts: Vec<Box<dyn Any>>,
}

impl<'a> Running<'a> {
    /// Something that clients reach at an address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self {
            address,
            address_v6: None,
            pids: Vec::new(),
            rename: None,
            forwarder: None,
            _parts: Vec::new(),
        }
    }

    /// With an address for clients of IPv6.
    #[must_use]
    pub fn and(mut self, address: IpAddr) -> Self {
        self.address_v6 = Some(address);
        self
    }

    /// With something that must live as long.
    #[must_use]
    pub fn with(mut self, part: impl Any) -> Self {
        self._parts.push(Box::new(part));
        self
    }

    /// With processes at the entrance.
    #[must_use]
    pub fn pids(mut self, pids: Vec<u32>) -> Self {
        self.pids = pids;
        self
    }

    /// With a way to other names.
    #[must_use]
    pub fn renamed_by(mut self, rename: impl Fn(&str, &str) -> Result<()> + 'static) -> Self {
        self.rename = Some(Box::new(rename));
        self
    }

    /// With the forwarder.
    #[must_use]
    pub fn forwarder(mut self, forwarder: contenders::forwarder::Instance<'a>) -> Self {
        self.forwarder = Some(forwarder);
        self
    }

    /// Where clients find a service.
    #[must_use]
    pub fn service(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// The same for clients of a family.
    pub fn service_of(&self, family: Family, port: u16) -> Result<SocketAddr> {
        let address = match family {
            Family::V4 => Some(self.address),
            Family::V6 => self.address_v6,
        };
        let address = address.ok_or_else(|| unavailable("this contender", "it has no IPv6"))?;
        Ok(SocketAddr::new(address, port))
    }
}

/// How a contender decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is nothing in between.
    Control,
    /// Every connection goes to the node, whatever name it is for.
    Blind,
    /// By the name in the ClientHello.
    Named,
    /// As the forwarder does, with floods dropped in front of it: the control of floods.
    Shield,
}

/// One of [`ALL`].
#[derive(Clone, Copy)]
pub struct Contender {
    /// What it is called on the command line and in tables.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// How it decides.
    pub kind: Kind,
    start: for<'a> fn(&'a Scene, Capacity) -> Result<Running<'a>>,
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The control, which is part of every run.
pub const CONTROL: &str = "direct";
/// What others are compared with.
pub const YARDSTICK: &str = "routing";

/// The control of floods.
pub const SHIELD: &str = "drop-only";

/// All of them.
pub const ALL: &[Contender] = &[
    Contender {
        name: CONTROL,
        title: "a link from client to node, nothing in between",
        kind: Kind::Control,
        start: contenders::direct::start,
    },
    Contender {
        name: "redirect",
        title: "a kernel program that redirects frames unchanged (the floor)",
        kind: Kind::Blind,
        start: contenders::redirect::start,
    },
    Contender {
        name: YARDSTICK,
        title: "Linux routing",
        kind: Kind::Blind,
        start: contenders::routing::start,
    },
    Contender {
        name: "nftables",
        title: "nftables DNAT to one node",
        kind: Kind::Blind,
        start: contenders::nftables::start,
    },
    Contender {
        name: "forwarder",
        title: "forwarder, TC only, transparent",
        kind: Kind::Named,
        start: contenders::forwarder::transparent,
    },
    Contender {
        name: "forwarder-proxy",
        title: "forwarder, TC only, PROXY v2",
        kind: Kind::Named,
        start: contenders::forwarder::proxied,
    },
    Contender {
        name: "forwarder-xdp",
        title: "forwarder with XDP, transparent",
        kind: Kind::Named,
        start: contenders::forwarder::with_xdp,
    },
    Contender {
        name: SHIELD,
        title: "forwarder behind an XDP program that drops the flood's sources",
        kind: Kind::Shield,
        start: contenders::shield::start,
    },
    Contender {
        name: "nginx",
        title: "nginx stream with ssl_preread",
        kind: Kind::Named,
        start: contenders::nginx::start,
    },
    Contender {
        name: "haproxy",
        title: "HAProxy in TCP mode by SNI",
        kind: Kind::Named,
        start: contenders::haproxy::plain,
    },
    Contender {
        name: "haproxy-proxy",
        title: "HAProxy in TCP mode by SNI, PROXY v2",
        kind: Kind::Named,
        start: contenders::haproxy::proxied,
    },
    Contender {
        name: "sniproxy",
        title: "sniproxy",
        kind: Kind::Named,
        start: contenders::sniproxy::start,
    },
];

impl Contender {
    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|it| it.name == name)
    }

    /// Starts it.
    pub fn start<'a>(&self, scene: &'a Scene, capacity: Capacity) -> Result<Running<'a>> {
        (self.start)(scene, capacity)
    }

    /// Whether it is this project's.
    #[must_use]
    pub fn is_forwarder(&self) -> bool {
        self.name.starts_with("forwarder")
    }
}

/// A contender that cannot be had here, with the reason.
pub fn unavailable(what: &str, why: &str) -> Error {
    Error::Unmeasured {
        what: format!("{what} cannot take part"),
        why: why.to_owned(),
    }
}
