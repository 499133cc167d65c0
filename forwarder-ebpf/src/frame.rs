//! The packet as a driver hands it over: every access to `xdp_md` and its bytes.
//!
//! Only the first buffer is read and written, so that a frame in several buffers (Linux 5.18, `xdp.frags`)
//! is treated like one that fits. TCP options are read directly: `bpf_xdp_load_bytes` needs Linux 5.18.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_tail;
use forwarder_common::segment::Headers;

use crate::clock;
use crate::packet::{Access, ETHERNET};

/// A frame at an XDP hook, with its Ethernet header.
#[derive(Clone, Copy)]
pub struct Frame {
    xdp: *mut xdp_md,
    /// Whether the kernel is new enough for [`clock::coarse_ns`].
    coarse: bool,
}

impl Access for Frame {
    #[inline(always)]
    fn linear(&self, end: usize) -> Option<*mut u8> {
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
    unsafe fn load_options<const V6: bool>(&self, _l3: u32, to: *mut u8, length: u64) -> bool {
        let start = ETHERNET as usize + if V6 { 60 } else { 40 };
        for i in 0..10 {
            if 4 * i as u64 >= length {
                break;
            }
            let Some(data) = self.linear(start + 4 * i + 4) else {
                return false;
            };
            // SAFETY: compared with data_end; `to` has 64 bytes, by the caller.
            unsafe {
                let word = core::ptr::read_volatile(data.add(start + 4 * i).cast::<u32>());
                core::ptr::write_volatile(to.cast::<u32>().add(i), word);
            }
        }
        true
    }
}

impl Frame {
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

    /// Makes the frame these headers, for whoever sent it. False when there is no room.
    #[inline(always)]
    pub fn answer<const V6: bool>(&self, headers: &Headers) -> bool {
        let words = if V6 { 18 } else { 13 };
        let ports = if V6 { 40 } else { 20 };
        let longest = ETHERNET as usize + 4 * words;
        if !self.resize(longest as u32) {
            return false;
        }
        let Some(data) = self.linear(longest) else {
            return false;
        };
        // SAFETY: `longest` bytes were compared with data_end.
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
        self.resize(ETHERNET + headers.len)
    }

    #[inline(always)]
    fn resize(&self, length: u32) -> bool {
        let change = length.wrapping_sub(self.len()).cast_signed();
        // SAFETY: only the context is passed.
        change == 0 || unsafe { bpf_xdp_adjust_tail(self.xdp, change) == 0 }
    }
}
