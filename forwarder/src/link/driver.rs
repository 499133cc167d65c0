//! What drives an interface: `ETHTOOL_GDRVINFO` and `ETHTOOL_GFEATURES` of linux/ethtool.h, and its queues from sysfs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde::Serialize;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_DRIVER_INFO: u32 = 0x3;
const GET_STRINGS: u32 = 0x1b;
const GET_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// `ETH_SS_FEATURES`.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME: usize = 32;
/// Room for features; Linux 6.18 has 62.
const FEATURES: usize = 256;
const FEATURE_BLOCKS: usize = FEATURES / 32;
/// `NETIF_F_GRO_FRAGLIST`.
const LISTS: &[u8] = b"rx-gro-list";

/// Drivers that run XDP programs themselves, as of Linux 6.12.
const NATIVE_XDP: &[&str] = &[
    "ena",
    "gve",
    "virtio_net",
    "vmxnet3",
    "hv_netvsc",
    "veth",
    "tun",
    "bonding",
    "mlx4_en",
    "mlx5_core",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "bnxt_en",
    "nfp",
    "qede",
    "sfc",
    "atlantic",
    "mvneta",
    "mvpp2",
    "stmmac",
    "st_gmac",
    "fec",
    "cpsw",
    "enetc",
    "fsl_dpaa2_eth",
    "thunder-nicvf",
    "octeontx2",
    "mana",
    "netvsc",
];

/// What drives an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Its name, for instance `virtio_net`; `None` if the kernel does not say.
    pub name: Option<String>,
    /// Receive queues.
    pub queues: usize,
    /// Whether segments that arrive together are handed on as a list (`rx-gro-list`) and not merged into one; `None`
    /// if the kernel does not say.
    pub lists_segments: Option<bool>,
}

impl Driver {
    /// Of an interface of this network namespace.
    pub fn of(interface: &str) -> Self {
        let queues = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"));
        let is_receive = |entry: &io::Result<std::fs::DirEntry>| {
            let name = entry.as_ref().map(std::fs::DirEntry::file_name);
            name.is_ok_and(|name| name.as_encoded_bytes().starts_with(b"rx-"))
        };
        Self {
            name: driver_name(interface).ok().filter(|name| !name.is_empty()),
            queues: queues.map_or(0, |entries| entries.filter(is_receive).count()),
            lists_segments: lists_segments(interface).ok().flatten(),
        }
    }

    /// Whether it is a WireGuard or TUN device: its packets travel inside others.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.name.as_deref(), Some("wireguard" | "tun"))
    }

    /// Whether it is known to run XDP programs itself; `None` if it does not tell its name.
    pub fn runs_xdp(&self) -> Option<bool> {
        let name = self.name.as_deref()?;
        Some(NATIVE_XDP.contains(&name))
    }
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
struct Count {
    command: u32,
    reserved: u32,
    sets: u64,
    count: u32,
    rest: u32,
}

/// `struct ethtool_gstrings`, with room.
#[repr(C)]
struct Names {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; FEATURES],
}

/// `struct ethtool_gfeatures`, with room.
#[repr(C)]
struct Features {
    command: u32,
    blocks: u32,
    /// Available, requested, active, never changed.
    features: [[u32; 4]; FEATURE_BLOCKS],
}

fn driver_name(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    ask(interface, &mut info)?;
    let name = CStr::from_bytes_until_nul(&info.driver);
    name.map(|name| name.to_string_lossy().into_owned())
        .map_err(io::Error::other)
}

fn lists_segments(interface: &str) -> io::Result<Option<bool>> {
    let mut count = Count {
        command: GET_COUNTS,
        reserved: 0,
        sets: 1 << FEATURE_NAMES,
        count: 0,
        rest: 0,
    };
    ask(interface, &mut count)?;
    if count.count as usize > FEATURES {
        return Ok(None);
    }
    // Newer kernels take no other count.
    let mut names = Box::new(Names {
        command: GET_STRINGS,
        set: FEATURE_NAMES,
        count: count.count,
        names: [[0; NAME]; FEATURES],
    });
    ask(interface, &mut *names)?;
    let is_wanted = |name: &[u8; NAME]| name.split(|byte| *byte == 0).next() == Some(LISTS);
    let Some(at) = names.names.iter().position(is_wanted) else {
        return Ok(None);
    };
    let mut features = Features {
        command: GET_FEATURES,
        blocks: count.count.div_ceil(32),
        features: [[0; 4]; FEATURE_BLOCKS],
    };
    ask(interface, &mut features)?;
    let block = features.features.get(at / 32);
    Ok(block.map(|[_, _, active, _]| active >> (at % 32) & 1 == 1))
}

/// Has the kernel fill in a structure of linux/ethtool.h, which begins with the command.
fn ask<T>(interface: &str, structure: &mut T) -> io::Result<()> {
    // SAFETY: socket takes plain numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(structure).cast();
    // SAFETY: `request` names an interface and points to a structure with as much room as the command fills; both
    // outlive the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_structure_has_196_bytes() {
        assert_eq!(size_of::<DriverInfo>(), 196);
    }

    #[test]
    fn the_loopback_interface_lists_nothing() {
        assert_eq!(Driver::of("lo").lists_segments, Some(false));
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_driver() {
        assert_eq!(Driver::of("no-such-iface"), Driver::default());
        assert_eq!(
            Driver::of("a-name-that-is-too-long-by-far"),
            Driver::default()
        );
    }

    #[test]
    fn drivers_tell_what_they_are() {
        let driver = |name: &str| Driver {
            name: Some(name.to_owned()),
            queues: 1,
            lists_segments: None,
        };
        assert!(driver("wireguard").is_tunnel() && driver("tun").is_tunnel());
        assert!(!driver("virtio_net").is_tunnel());
        assert_eq!(driver("virtio_net").runs_xdp(), Some(true));
        assert_eq!(driver("e1000").runs_xdp(), Some(false));
        assert_eq!(Driver::default().runs_xdp(), None);
    }
}
