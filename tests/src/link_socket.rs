//! AF_PACKET sockets (packet(7)): what the capture, the faulty wire and the hand-made TCP share.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::socket::set_option;

/// A received packet may be a 64 KB super-packet.
pub(crate) const LARGEST: usize = 66_000;
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// Whether packets carry their link-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// With the Ethernet header.
    Frame,
    /// From the IP header on, whatever the kind of interface.
    Network,
}

/// What the kernel tells beside a packet's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub length: usize,
    pub outgoing: bool,
    /// The checksum is still to be finished (CHECKSUM_PARTIAL).
    pub unfinished: bool,
}

#[derive(Debug)]
pub(crate) struct LinkSocket {
    socket: OwnedFd,
    index: libc::c_int,
}

impl LinkSocket {
    /// Opens a socket on an interface of the calling thread's network namespace.
    pub(crate) fn open(interface: &str, layer: Layer) -> Result<Self> {
        let what = || format!("opening a packet socket on {interface}");
        let link = Self::sender(interface, layer)?;
        link.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)
            .context(what)?;
        link.option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)
            .context(what)?;
        let address = link.address(u16::try_from(libc::ETH_P_ALL).unwrap_or_default(), None);
        // SAFETY: the address is a sockaddr_ll that outlives the call.
        let bound = unsafe {
            libc::bind(
                link.fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error()).context(what);
        }
        Ok(link)
    }

    /// Opens a socket that only sends to neighbours: nothing piles up in one that nobody reads.
    pub(crate) fn sender(interface: &str, layer: Layer) -> Result<Self> {
        let what = || format!("opening a packet socket on {interface}");
        let name = std::ffi::CString::new(interface)
            .map_err(io::Error::from)
            .context(what)?;
        // SAFETY: the name is a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let index = libc::c_int::try_from(index)
            .map_err(io::Error::other)
            .context(what)?;
        if index == 0 {
            return Err(io::Error::last_os_error()).context(what);
        }
        let kind = match layer {
            Layer::Frame => libc::SOCK_RAW,
            Layer::Network => libc::SOCK_DGRAM,
        };
        // Protocol 0 first: a socket made with ETH_P_ALL would take packets of every interface
        // until it is bound.
        // SAFETY: plain numbers; a valid result is owned here alone.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0);
            if socket < 0 {
                return Err(io::Error::last_os_error()).context(what);
            }
            OwnedFd::from_raw_fd(socket)
        };
        Ok(Self { socket, index })
    }

    /// Leaves out packets that the machine itself sends on the interface.
    pub(crate) fn ignore_outgoing(&self) -> io::Result<()> {
        self.option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)
    }

    /// Waits until a packet can be received, or the time is over.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let limit = libc::timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // SAFETY: both pointers are to locals, and one descriptor is announced.
        if unsafe { libc::ppoll(&raw mut poll, 1, &raw const limit, std::ptr::null()) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(())
            } else {
                Err(error)
            };
        }
        Ok(())
    }

    /// Receives one packet; `None` when there is none at the moment.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
        // SAFETY: all-zero is a valid value of these plain C structs.
        let (mut from, mut header): (libc::sockaddr_ll, libc::msghdr) =
            unsafe { std::mem::zeroed() };
        let mut data = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut control = [0u64; 16];
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = size_of_val(&from) as libc::socklen_t;
        header.msg_iov = &raw mut data;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in the header is to a local or to `buffer`, with its true length.
        let length = unsafe { libc::recvmsg(self.fd(), &raw mut header, libc::MSG_DONTWAIT) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let mut unfinished = false;
        // SAFETY: the CMSG macros walk the control buffer that recvmsg has just filled.
        unsafe {
            let mut entry = libc::CMSG_FIRSTHDR(&raw const header);
            while !entry.is_null() {
                if (*entry).cmsg_level == libc::SOL_PACKET
                    && (*entry).cmsg_type == libc::PACKET_AUXDATA
                {
                    let auxiliary: libc::tpacket_auxdata = libc::CMSG_DATA(entry)
                        .cast::<libc::tpacket_auxdata>()
                        .read_unaligned();
                    unfinished = auxiliary.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                }
                entry = libc::CMSG_NXTHDR(&raw const header, entry);
            }
        }
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Some(Arrival {
            length: length.cast_unsigned().min(buffer.len()),
            outgoing,
            unfinished,
        }))
    }

    /// Sends a whole frame (for a socket of [`Layer::Frame`]).
    pub(crate) fn send_frame(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of `frame`.
        sent(unsafe { libc::send(self.fd(), frame.as_ptr().cast(), frame.len(), 0) })
    }

    /// Sends an IP packet to a neighbour (for a socket of [`Layer::Network`]).
    pub(crate) fn send_packet(&self, packet: &[u8], neighbour: [u8; 6]) -> io::Result<()> {
        let version = packet.first().map_or(0, |byte| byte >> 4);
        let protocol = if version == 6 {
            libc::ETH_P_IPV6
        } else {
            libc::ETH_P_IP
        };
        let to = self.address(u16::try_from(protocol).unwrap_or_default(), Some(neighbour));
        // SAFETY: pointers and lengths are those of `packet` and of the local address.
        sent(unsafe {
            libc::sendto(
                self.fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        })
    }

    /// Packets that were lost because this socket was not read fast enough, since the last call.
    pub(crate) fn lost(&self) -> io::Result<u32> {
        // SAFETY: all-zero is a valid value of this plain C struct.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the option's value is a tpacket_stats; both pointers are to locals.
        let result = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(statistics.tp_drops)
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        set_option(self.fd(), level, name, value)
    }

    fn address(&self, protocol: u16, neighbour: Option<[u8; 6]>) -> libc::sockaddr_ll {
        let mut sll_addr = [0; 8];
        if let Some(neighbour) = neighbour {
            sll_addr[..6].copy_from_slice(&neighbour);
        }
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr,
        }
    }
}

fn sent(result: isize) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
