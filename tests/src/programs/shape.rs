//! What varies from bench to bench: address family, kinds of interfaces, modes of pools, answers to refusals.

use forwarder_common::abi::{client_address, on_refuse};

use super::entrance::PATHS_PER_ROUTE;

/// Whether an interface has Ethernet headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It has.
    L2,
    /// It has not.
    L3,
}

/// The shape of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// The public interface.
    pub public: Link,
    /// The tunnel.
    pub tunnel: Link,
    /// Whether the nodes are at home where clients connect to.
    pub home: bool,
}

impl Shape {
    /// IPv4, Ethernet outside, a tunnel without.
    pub const COMMON: Self = Self {
        v6: false,
        public: Link::L2,
        tunnel: Link::L3,
        home: true,
    };

    /// Every family with every pair of interfaces; half of them are at home.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let links = [Link::L2, Link::L3];
        let mut shapes = Vec::new();
        for v6 in [false, true] {
            for public in links {
                for tunnel in links {
                    shapes.push(Self {
                        v6,
                        public,
                        tunnel,
                        home: v6 == (public == tunnel),
                    });
                }
            }
        }
        shapes
    }
}

/// How a pool tells its nodes the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As source of the packets.
    Transparent,
    /// In a PROXY v2 header.
    ProxyV2,
    /// Not at all.
    Masquerade,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Transparent, Self::ProxyV2, Self::Masquerade];

    /// A name that leads to a pool of this mode.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transparent => "transparent.example.org",
            Self::ProxyV2 => "proxy.example.org",
            Self::Masquerade => "masquerade.example.org",
        }
    }

    /// The first path of that name.
    #[must_use]
    pub fn path_base(self) -> u32 {
        u32::from(self.number()) * PATHS_PER_ROUTE
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Transparent => client_address::TRANSPARENT,
            Self::ProxyV2 => client_address::PROXY_V2,
            Self::Masquerade => client_address::MASQUERADE,
        }
    }
}

/// What a listener does with what it refuses; each has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// TLS alert and FIN: port 443.
    Alert,
    /// Reset: port 444.
    Reset,
    /// Silence: port 445.
    Drop,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 3] = [Self::Alert, Self::Reset, Self::Drop];

    /// The number of its listener.
    #[must_use]
    pub fn listener(self) -> u16 {
        match self {
            Self::Alert => 0,
            Self::Reset => 1,
            Self::Drop => 2,
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Alert => on_refuse::ALERT,
            Self::Reset => on_refuse::RESET,
            Self::Drop => on_refuse::DROP,
        }
    }
}
