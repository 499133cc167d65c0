//! What drives an interface: `ETHTOOL_GDRVINFO` of linux/ethtool.h, and its queues from sysfs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde::Serialize;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_DRIVER_INFO: u32 = 0x3;

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

fn driver_name(interface: &str) -> io::Result<String> {
    // SAFETY: socket takes plain numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: `request` names an interface and points to an ethtool_drvinfo of 196 bytes; both outlive the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&info.driver);
    name.map(|name| name.to_string_lossy().into_owned())
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_structure_has_196_bytes() {
        assert_eq!(size_of::<DriverInfo>(), 196);
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
        };
        assert!(driver("wireguard").is_tunnel() && driver("tun").is_tunnel());
        assert!(!driver("virtio_net").is_tunnel());
        assert_eq!(driver("virtio_net").runs_xdp(), Some(true));
        assert_eq!(driver("e1000").runs_xdp(), Some(false));
        assert_eq!(Driver::default().runs_xdp(), None);
    }
}
