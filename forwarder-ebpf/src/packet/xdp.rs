//! The packet as a driver hands it over: every access to `xdp_md` and its bytes.
//!
//! Only the first buffer is read and written, so that a frame in several buffers (Linux 5.18, `xdp.frags`)
//! is treated like one that fits. TCP options are read directly: `bpf_xdp_load_bytes` needs Linux 5.18.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_tail};
use forwarder_common::checksum::Sum;
use forwarder_common::engine::bounds::Count;
use forwarder_common::engine::header::{Ipv4, Ipv6, Tcp};
use forwarder_common::engine::work::Work;
use forwarder_common::engine::{ETHERNET, Frame, Source};
use forwarder_common::segment::Headers;

use crate::clock;
use crate::maps::PUBLIC_LINKS;
use crate::packet::bounds::{clobber, mask, whole};

/// The bit of a hardware address's first two bytes, as they stand, that says it is one of several stations.
const GROUP_BE: u16 = 0x0100_u16.to_be();
/// Pieces of 512 bytes in the longest segment that is summed.
const WHOLE_PIECES: u32 = 3;

/// A frame at an XDP hook, with its Ethernet header.
#[derive(Clone, Copy)]
pub struct XdpFrame {
    xdp: *mut xdp_md,
    /// Whether the kernel is new enough for [`clock::coarse_ns`].
    coarse: bool,
}

impl Source for XdpFrame {
    /// Of the first buffer.
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.xdp).data_end.wrapping_sub((*self.xdp).data) }
    }

    /// Epochs of cookies and the rate of resets do not need it finer, and a flood is spared a third of a hash.
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        if self.coarse {
            clock::coarse_ns()
        } else {
            clock::now_ns()
        }
    }

    #[inline(always)]
    fn icmp<const L3: usize, const V6: bool>(&self) -> Option<(bool, [u8; 2])> {
        let at = L3 + if V6 { 40 } else { 20 };
        let data = self.linear(at + 8)?;
        // SAFETY: `at` + 8 bytes were compared with data_end.
        Some(unsafe { (*data.add(L3) == 0x45, [*data.add(at), *data.add(at + 1)]) })
    }

    #[inline(always)]
    fn load_options<const V6: bool>(
        &self,
        _l3: u32,
        to: &mut [u8; 64],
        length: Count<0x3f>,
    ) -> bool {
        let (to, length) = (to.as_mut_ptr(), length.get());
        let start = ETHERNET as usize + if V6 { 60 } else { 40 };
        for i in 0..10 {
            if 4 * i as u64 >= length {
                break;
            }
            let Some(data) = self.linear(start + 4 * i + 4) else {
                return false;
            };
            // SAFETY: compared with data_end; `to` has 64 bytes.
            unsafe {
                let word = core::ptr::read_volatile(data.add(start + 4 * i).cast::<u32>());
                core::ptr::write_volatile(to.cast::<u32>().add(i), word);
            }
        }
        true
    }

    #[inline(always)]
    fn ipv4<const L3: usize>(&self) -> Option<Ipv4> {
        let data = self.linear(L3 + 20)?;
        // SAFETY: L3 + 20 bytes were compared with data_end.
        Some(unsafe { core::ptr::read(data.add(L3).cast()) })
    }

    #[inline(always)]
    fn ipv6<const L3: usize>(&self) -> Option<Ipv6> {
        let data = self.linear(L3 + 40)?;
        // SAFETY: L3 + 40 bytes were compared with data_end.
        Some(unsafe { core::ptr::read(data.add(L3).cast()) })
    }

    #[inline(always)]
    fn tcp<const L3: usize, const V6: bool>(&self) -> Option<Tcp> {
        let at = L3 + if V6 { 40 } else { 20 };
        let data = self.linear(at + 20)?;
        // SAFETY: `at` + 20 bytes were compared with data_end.
        Some(unsafe { core::ptr::read(data.add(at).cast()) })
    }

    #[inline(always)]
    fn verify<const V6: bool>(&self, work: &mut Work) -> Option<bool> {
        let tcp = ETHERNET as usize + if V6 { 40 } else { 20 };
        let length = work.header_len + work.payload_len;
        let (client, local) = (work.key.client, work.local);
        let pseudo = if V6 {
            Sum::tcp_pseudo_v6(client, local, length)
        } else {
            Sum::tcp_pseudo_v4([client[3]], [local[3]], length as u16)
        };
        let data = self.linear(tcp + 18)?;
        // SAFETY: compared with data_end.
        let field = unsafe { core::ptr::read(data.add(tcp + 16).cast::<u16>()) };
        if field == pseudo.fold16() {
            return Some(true);
        }
        work.sum = pseudo.fold32();
        work.offset = tcp as u32;
        work.left = length;
        for _ in 0..WHOLE_PIECES {
            self.add::<512>(work);
        }
        self.add::<256>(work);
        self.add::<128>(work);
        self.add::<64>(work);
        self.add::<32>(work);
        self.add::<16>(work);
        self.add::<8>(work);
        self.add::<4>(work);
        for place in 0..3 {
            self.add_byte(work, place);
        }
        clobber(work);
        if work.left != 0 {
            return None;
        }
        Some(Sum::ZERO.add_u32_raw(work.sum).fold16() == 0xffff)
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn is_for_this_host(&self) -> bool {
        let Some(data) = self.linear(ETHERNET as usize) else {
            return false;
        };
        // SAFETY: 14 bytes were compared with data_end; the context is valid for the whole program.
        let ([a, b, c], ifindex) = unsafe {
            let mac = core::ptr::read(data.cast::<[u16; 3]>());
            (mac, (*self.xdp).ingress_ifindex)
        };
        // SAFETY: read at once.
        let Some(link) = (unsafe { PUBLIC_LINKS.get(ifindex) }) else {
            return a & GROUP_BE == 0;
        };
        let [g, h, i, j, k, l] = link.mac;
        let other = (u16::from_ne_bytes([g, h]) ^ a)
            | (u16::from_ne_bytes([i, j]) ^ b)
            | (u16::from_ne_bytes([k, l]) ^ c);
        other == 0
    }

    #[inline(always)]
    fn destination_port_be(&self, words: usize) -> Option<u16> {
        let at = ETHERNET as usize + 4 * words;
        let data = self.linear(at + 4)?;
        // SAFETY: four bytes of ports were compared with data_end.
        Some(unsafe { core::ptr::read(data.add(at + 2).cast::<u16>()) })
    }

    #[inline(always)]
    fn answer<const V6: bool>(&self, headers: &Headers) -> bool {
        // Headers with one word of options: ours always have an MSS.
        let words = if V6 { 16 } else { 11 };
        let ports = if V6 { 40 } else { 20 };
        let least = ETHERNET as usize + 4 * words;
        if !self.resize(ETHERNET + headers.len) {
            return false;
        }
        let Some(data) = self.linear(least) else {
            return false;
        };
        // SAFETY: `least` bytes were compared with data_end.
        unsafe {
            let mac = data.cast::<u16>();
            for i in 0..3 {
                let own = core::ptr::read(mac.add(i));
                core::ptr::write(mac.add(i), core::ptr::read(mac.add(i + 3)));
                core::ptr::write(mac.add(i + 3), own);
            }
            let to = data.add(ETHERNET as usize);
            for (i, word) in headers.words.iter().enumerate().take(words) {
                core::ptr::write(to.cast::<u32>().add(i), *word);
            }
            let checksum = (headers.pseudo + headers.tcp).checksum();
            core::ptr::write(to.add(ports + 16).cast::<u16>(), checksum);
        }
        for (i, word) in headers.words.iter().enumerate().skip(words).take(2) {
            let at = ETHERNET as usize + 4 * i;
            if ETHERNET + headers.len < at as u32 + 4 {
                break;
            }
            let Some(data) = self.linear(at + 4) else {
                return false;
            };
            // SAFETY: compared with data_end.
            unsafe { core::ptr::write(data.add(at).cast::<u32>(), *word) };
        }
        true
    }
}

impl XdpFrame {
    /// The first bytes, of which at least `end` (a constant) are there.
    #[inline(always)]
    pub fn linear(&self, end: usize) -> Option<*mut u8> {
        // SAFETY: the context is valid for the whole program; the pointer is handed out only after
        // comparison with data_end.
        unsafe {
            let data = (*self.xdp).data as usize;
            if data + end <= (*self.xdp).data_end as usize {
                Some(data as *mut u8)
            } else {
                None
            }
        }
    }

    #[inline(always)]
    pub const fn new(xdp: *mut xdp_md, coarse: bool) -> Self {
        Self { xdp, coarse }
    }

    /// EtherType, network order; 0 for a frame too short to have one.
    #[inline(always)]
    pub fn protocol_be(&self) -> u16 {
        match self.linear(ETHERNET as usize) {
            // SAFETY: 14 bytes were compared with data_end.
            Some(data) => unsafe { core::ptr::read(data.add(12).cast::<u16>()) },
            None => 0,
        }
    }

    /// Adds the next `N` bytes, a multiple of four, if so many are left.
    #[inline(always)]
    fn add<const N: usize>(&self, work: &mut Work) {
        clobber(work);
        if work.left < N as u32 {
            return;
        }
        let Some(at) = self.at::<N>(work.offset) else {
            return;
        };
        // SAFETY: N bytes from there on were compared with data_end.
        let part = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, at.cast(), N as u32, 0) };
        work.sum = Sum::ZERO
            .add_u32_raw(work.sum)
            .add_u32_raw(part as u32)
            .fold32();
        work.offset += N as u32;
        work.left -= N as u32;
    }

    /// Adds one of the last three bytes, of which the first stands at an even place.
    #[inline(always)]
    fn add_byte(&self, work: &mut Work, place: u32) {
        clobber(work);
        if work.left == 0 {
            return;
        }
        let Some(at) = self.at::<1>(work.offset) else {
            return;
        };
        // SAFETY: compared with data_end.
        let byte = unsafe { core::ptr::read_volatile(at) };
        let pair = if place & 1 == 0 { [byte, 0] } else { [0, byte] };
        work.sum = Sum::ZERO
            .add_u32_raw(work.sum)
            .add_u16_raw(u16::from_ne_bytes(pair))
            .fold32();
        work.offset += 1;
        work.left -= 1;
    }

    /// The `N` bytes from an offset of at most 4,095 on, if they are there.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<*mut u8> {
        // SAFETY: the context is valid for the whole program; the pointer is handed out only after comparison.
        unsafe {
            let data = (*self.xdp).data as usize;
            let at = whole(data + mask::<0xfff>(u64::from(offset)) as usize);
            if at + N <= (*self.xdp).data_end as usize {
                Some(at as *mut u8)
            } else {
                None
            }
        }
    }

    #[inline(always)]
    fn resize(&self, length: u32) -> bool {
        let change = length.wrapping_sub(self.len()).cast_signed();
        // SAFETY: only the context is passed.
        change == 0 || unsafe { bpf_xdp_adjust_tail(self.xdp, change) == 0 }
    }
}
