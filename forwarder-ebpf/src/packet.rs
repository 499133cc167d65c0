//! The packet: every access to `__sk_buff` and its bytes.
//!
//! Headers are read and patched in place through pointers that were compared with `data_end` just before;
//! anything that may lie beyond the linear part goes through helpers with bounded lengths. A helper that
//! may move the packet makes all pointers into it invalid, so a pointer never outlives the function that
//! made it.
//!
//! **Checksums.** The TCP field may hold a whole checksum, or (veth, virtio, GRO: `CHECKSUM_PARTIAL`) only
//! the pseudo-header's sum. It is therefore never written; it is patched by `bpf_l4_csum_replace` with
//! differences: those of the pseudo-header apply to both forms, those of the segment only to the first.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
};
use forwarder_common::abi::link;
use forwarder_common::checksum::Sum;
use forwarder_common::segment::Headers;

use crate::clock;

/// Length of an Ethernet header.
pub const ETHERNET: u32 = 14;

/// `skb->pkt_type` of what is for this host.
const PACKET_HOST: u32 = 0;
/// The VLAN in a tag.
const VLAN_ID: u32 = 0xfff;

/// IPv4 header (RFC 791 3.1) as it stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_length: u8,
    pub tos: u8,
    pub total_be: u16,
    pub id: u16,
    pub fragment_be: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// IPv6 header (RFC 8200 3) as it stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version_class_label: u32,
    pub payload_be: u16,
    pub next: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// TCP header (RFC 9293 3.1) as it stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub source_be: u16,
    pub destination_be: u16,
    pub seq_be: u32,
    pub ack_be: u32,
    pub offset: u8,
    pub flags: u8,
    pub window_be: u16,
    pub checksum: u16,
    pub urgent: u16,
}

/// What both kinds of programs can do with a packet: read headers and TCP options.
pub trait Access: Copy {
    /// The first bytes, of which at least `end` (a constant) are there.
    fn linear(&self, end: usize) -> Option<*mut u8>;

    /// Bytes from the link-layer header on, as far as this hook knows them.
    fn len(&self) -> u32;

    /// The present: nanoseconds of `CLOCK_MONOTONIC`, as fine as this hook needs it.
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    /// Copies `length` bytes of TCP options; `l3` is the offset of the IP header.
    ///
    /// # Safety
    /// `to` has room for 64 bytes, and `length` is in 1..=64, in ways the verifier sees.
    unsafe fn load_options<const V6: bool>(&self, l3: u32, to: *mut u8, length: u64) -> bool;
}

/// A packet at a traffic-control hook.
#[derive(Clone, Copy)]
pub struct Packet {
    skb: *mut __sk_buff,
}

impl Access for Packet {
    /// Pulled into the linear part if they were not there.
    #[inline(always)]
    fn linear(&self, end: usize) -> Option<*mut u8> {
        // SAFETY: the pointer is handed out only after comparison with data_end.
        unsafe {
            let data = (*self.skb).data as usize;
            if data + end <= (*self.skb).data_end as usize {
                return Some(data as *mut u8);
            }
            if bpf_skb_pull_data(self.skb, end as u32) != 0 {
                return None;
            }
            let data = (*self.skb).data as usize;
            if data + end <= (*self.skb).data_end as usize {
                Some(data as *mut u8)
            } else {
                None
            }
        }
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    unsafe fn load_options<const V6: bool>(&self, l3: u32, to: *mut u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { self.load(l3 + if V6 { 60 } else { 40 }, to, length) }
    }
}

impl Packet {
    #[inline(always)]
    pub const fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    #[inline(always)]
    pub const fn context(&self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }

    /// EtherType, network order.
    #[inline(always)]
    pub fn protocol_be(&self) -> u16 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.skb).protocol as u16 }
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    /// The interface it came in by, with `L3` bytes of link-layer header, as a flow remembers it.
    #[inline(always)]
    pub fn link<const L3: usize>(&self) -> u32 {
        self.ifindex() | if L3 == 0 { link::NO_HEADER } else { 0 }
    }

    /// Whether it is for this host, and not for another station or for several, and for this interface, and not for one
    /// of its VLANs. Of an interface with Ethernet headers only.
    #[inline(always)]
    pub fn is_for_this_host(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            (*self.skb).pkt_type == PACKET_HOST
                && ((*self.skb).vlan_present == 0 || (*self.skb).vlan_tci & VLAN_ID == 0)
        }
    }

    /// Takes off a tag that the interface has received: here, one of VLAN 0, which holds a priority alone (802.1p). It
    /// would be put into the packet where that leaves by a tunnel.
    #[inline(always)]
    pub fn untag(&self) -> bool {
        // SAFETY: as above; only the context is passed.
        unsafe { (*self.skb).vlan_present == 0 || bpf_skb_vlan_pop(self.skb) == 0 }
    }

    /// How many packets of the wire this one stands for.
    #[inline(always)]
    pub fn wire_packets(&self) -> u64 {
        // SAFETY: as above.
        let segments = unsafe { (*self.skb).gso_segs };
        if segments == 0 {
            1
        } else {
            u64::from(segments)
        }
    }

    /// Bytes of TCP payload in one packet of the wire, of which this one carries `payload_len` bytes in all.
    #[inline(always)]
    pub fn segment_size(&self, payload_len: u32) -> u32 {
        // SAFETY: as above.
        let size = unsafe { (*self.skb).gso_size };
        if size == 0 { payload_len } else { size }
    }

    /// Copies `length` bytes from `offset`; false when they are not there.
    ///
    /// # Safety
    /// `to` has room for `length` bytes in a way the verifier sees.
    #[inline(always)]
    pub unsafe fn load(&self, offset: u32, to: *mut u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to.cast(), length as u32) == 0 }
    }

    /// Copies `length` bytes to `offset`.
    ///
    /// # Safety
    /// `from` has `length` bytes in a way the verifier sees.
    #[inline(always)]
    pub unsafe fn store(&self, offset: u32, from: *const u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { bpf_skb_store_bytes(self.skb, offset, from.cast(), length as u32, 0) == 0 }
    }

    /// Cuts or extends the packet. Linearises it and ends its life as a GSO packet: never for bulk.
    #[inline(always)]
    pub fn resize(&self, length: u32) -> bool {
        // SAFETY: only the context is passed.
        unsafe { bpf_skb_change_tail(self.skb, length, 0) == 0 }
    }

    /// Makes room for `length` bytes between link-layer and IP header: all that follows moves back, and with it the
    /// place from which on a device may be asked to sum up.
    #[inline(always)]
    pub fn make_room(&self, length: u32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(self.skb, length.cast_signed(), BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    /// Makes room for an Ethernet header, zeroed, before a packet that has none.
    #[inline(always)]
    pub fn add_ethernet(&self) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_change_head(self.skb, ETHERNET, 0) == 0 }
    }

    /// Patches the TCP checksum at `field` for a change of the pseudo-header and one of the segment.
    #[inline(always)]
    pub fn patch_checksum(&self, field: u32, pseudo: Sum, segment: Sum) {
        // SAFETY: as above.
        unsafe {
            bpf_l4_csum_replace(
                self.skb,
                field,
                0,
                u64::from(pseudo.fold32()),
                u64::from(BPF_F_PSEUDO_HDR),
            );
            bpf_l4_csum_replace(self.skb, field, 0, u64::from(segment.fold32()), 0);
        }
    }

    /// Patches a checksum that no pseudo-header is part of.
    #[inline(always)]
    pub fn patch_plain_checksum(&self, field: u32, change: Sum) {
        // SAFETY: as above.
        unsafe { bpf_l4_csum_replace(self.skb, field, 0, u64::from(change.fold32()), 0) };
    }

    /// Patches the IPv4 header checksum at `field`.
    #[inline(always)]
    pub fn patch_ip_checksum(&self, field: u32, change: Sum) {
        // SAFETY: as above.
        unsafe { bpf_l3_csum_replace(self.skb, field, 0, u64::from(change.fold32()), 0) };
    }

    /// Writes headers at `l3` and makes their TCP checksum right. `payload` is the sum of what follows.
    #[inline(always)]
    pub fn put_headers<const V6: bool>(&self, l3: u32, headers: &Headers, payload: Sum) -> bool {
        let longest = if V6 { 72 } else { 52 };
        let shortest = if V6 { 60 } else { 40 };
        let length = if headers.len == shortest {
            shortest
        } else {
            longest
        };
        // SAFETY: `words` has 72 bytes.
        if !unsafe { self.store(l3, headers.words.as_ptr().cast(), u64::from(length)) } {
            return false;
        }
        let field = l3 + if V6 { 56 } else { 36 };
        self.patch_checksum(field, headers.pseudo, headers.tcp + payload);
        true
    }

    /// Exchanges source and destination of the Ethernet header.
    #[inline(always)]
    pub fn swap_ethernet(&self) -> bool {
        let Some(data) = self.linear(ETHERNET as usize) else {
            return false;
        };
        let mac = data.cast::<u16>();
        // SAFETY: 14 bytes were compared with data_end.
        unsafe {
            for i in 0..3 {
                let own = *mac.add(i);
                *mac.add(i) = *mac.add(i + 3);
                *mac.add(i + 3) = own;
            }
        }
        true
    }

    /// Sends the packet out of an interface as it is; a link-layer header that the interface has no use for
    /// is removed by the kernel. Returns the action.
    #[inline(always)]
    pub fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Sends a copy.
    #[inline(always)]
    pub fn clone_to(&self, ifindex: u32) -> bool {
        // SAFETY: only the context is passed.
        unsafe { bpf_clone_redirect(self.skb, ifindex, 0) == 0 }
    }
}
