//! Turns an interface's offloads on and off (`ETHTOOL_S*` of linux/ethtool.h).
//!
//! With them on, packets between namespaces stay 64 KB super-packets with unfinished checksums, as
//! behind a modern network card; off, every segment is whole, as behind a simple one.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Context, Result};
use crate::netns::Namespace;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const SET_RX_CHECKSUM: u32 = 0x15;
const SET_TX_CHECKSUM: u32 = 0x17;
const SET_TSO: u32 = 0x1f;
const SET_GSO: u32 = 0x24;
const SET_GRO: u32 = 0x2c;

/// What an interface does for the protocol stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Cuts super-packets on sending, so that the stack may hand it some.
    pub segmentation: bool,
    /// Finishes checksums on sending.
    pub checksum: bool,
    /// Merges received segments into super-packets.
    pub receive_merge: bool,
}

impl Offloads {
    /// What a veth pair does by default: no merging, everything else.
    pub const DEFAULT: Self = Self {
        segmentation: true,
        checksum: true,
        receive_merge: false,
    };
    /// Everything, merging included.
    pub const ALL: Self = Self {
        segmentation: true,
        checksum: true,
        receive_merge: true,
    };
    /// Only whole segments with finished checksums.
    pub const NONE: Self = Self {
        segmentation: false,
        checksum: false,
        receive_merge: false,
    };
    /// Whole segments on the wire, merged again on arrival, as a network card with GRO has it.
    pub const MERGE_ONLY: Self = Self {
        segmentation: false,
        checksum: false,
        receive_merge: true,
    };

    /// Applies the settings to an interface of a namespace.
    pub fn apply(self, namespace: &Namespace, interface: &str) -> Result<()> {
        let settings = [
            (SET_GRO, self.receive_merge),
            (SET_TX_CHECKSUM, self.checksum),
            (SET_TSO, self.segmentation),
            (SET_GSO, self.segmentation),
            (SET_RX_CHECKSUM, true),
        ];
        namespace
            .enter(|| {
                settings
                    .into_iter()
                    .try_for_each(|(what, on)| set(interface, what, u32::from(on)))
            })?
            .context(|| format!("setting offloads of {interface} in {}", namespace.name()))
    }
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn set(interface: &str, command: u32, data: u32) -> std::io::Result<()> {
    let mut value = EthtoolValue { command, data };
    // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(interface.bytes().take(libc::IFNAMSIZ - 1))
    {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: plain numbers; a valid result is owned here alone.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(std::io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: SIOCETHTOOL reads an ifreq whose data points at an ethtool_value; both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
