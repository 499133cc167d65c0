//! The packet at a traffic-control hook: every access to `__sk_buff` and its bytes.
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
    bpf_clone_redirect, bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
};
use forwarder_common::abi::{Address, link};
use forwarder_common::checksum::Sum;
use forwarder_common::engine::bounds::{AtMost, Count};
use forwarder_common::engine::header::{Change, Header, Ipv4, Ipv6, Rewrite, Tcp};
use forwarder_common::engine::work::Work;
use forwarder_common::engine::{ETHERNET, Packet, Source, verify};
use forwarder_common::segment::Headers;

use crate::clock;
use crate::maps::{CHUNK, Chunk};
use crate::packet::{bounds, host, rewrite};
use crate::store::Maps;

/// `skb->pkt_type` of what is for this host.
const PACKET_HOST: u32 = 0;
/// The VLAN in a tag.
const VLAN_ID: u32 = 0xfff;

/// A packet at a traffic-control hook.
#[derive(Clone, Copy)]
pub struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
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

    /// Whether it is for this host, and not for another station or for several, and for this interface, and not for one
    /// of its VLANs. Of an interface with Ethernet headers only.
    #[inline(always)]
    pub fn is_for_this_host(&self) -> bool {
        // SAFETY: the context is valid for the whole program.
        unsafe {
            (*self.skb).pkt_type == PACKET_HOST
                && ((*self.skb).vlan_present == 0 || (*self.skb).vlan_tci & VLAN_ID == 0)
        }
    }

    /// Sends the packet out of an interface as it is; a link-layer header that the interface has no use for
    /// is removed by the kernel. Returns the action.
    #[inline(always)]
    pub fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: no memory is passed.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Copies `length` bytes from `offset`; false when they are not there.
    ///
    /// # Safety
    /// `to` has room for `length` bytes in a way the verifier sees.
    #[inline(always)]
    pub unsafe fn load_raw(&self, offset: u32, to: *mut u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to.cast(), length as u32) == 0 }
    }

    /// Copies `length` bytes to `offset`.
    ///
    /// # Safety
    /// `from` has `length` bytes in a way the verifier sees.
    #[inline(always)]
    pub unsafe fn store_raw(&self, offset: u32, from: *const u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { bpf_skb_store_bytes(self.skb, offset, from.cast(), length as u32, 0) == 0 }
    }

    /// The first bytes, of which at least `end` (a constant) are there. Pulled into the linear part if they were not.
    #[inline(always)]
    pub fn linear(&self, end: usize) -> Option<*mut u8> {
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
}

impl Source for Skb {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.skb).len }
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
    fn icmp<const L3: usize, const V6: bool>(&self) -> Option<(bool, [u8; 2])> {
        let at = L3 + if V6 { 40 } else { 20 };
        let data = self.linear(at + 8)?;
        // SAFETY: `at` + 8 bytes were compared with data_end.
        Some(unsafe { (*data.add(L3) == 0x45, [*data.add(at), *data.add(at + 1)]) })
    }

    #[inline(always)]
    fn load_options<const V6: bool>(
        &self,
        l3: u32,
        to: &mut [u8; 64],
        length: Count<0x3f>,
    ) -> bool {
        let at = l3 + if V6 { 60 } else { 40 };
        Packet::load::<0, 0, 0x3f, 64>(self, at, to, AtMost::ZERO, length)
    }

    #[inline(always)]
    fn verify<const V6: bool>(&self, work: &mut Work) -> Option<bool> {
        let (client, local) = (work.key.client, work.local);
        Some(verify::checksum::<Maps, Self, V6>(
            *self, work, client, local,
        ))
    }
}

impl Packet for Skb {
    type Scratch = *mut Chunk;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the whole program.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn link<const L3: usize>(&self) -> u32 {
        self.ifindex() | if L3 == 0 { link::NO_HEADER } else { 0 }
    }

    #[inline(always)]
    fn wire_packets(&self) -> u64 {
        // SAFETY: the context is valid for the whole program.
        let segments = unsafe { (*self.skb).gso_segs };
        if segments == 0 {
            1
        } else {
            u64::from(segments)
        }
    }

    #[inline(always)]
    fn segment_size(&self, payload_len: u32) -> u32 {
        // SAFETY: the context is valid for the whole program.
        let size = unsafe { (*self.skb).gso_size };
        if size == 0 { payload_len } else { size }
    }

    #[inline(always)]
    fn resize(&self, length: u32) -> bool {
        // SAFETY: only the context is passed.
        unsafe { bpf_skb_change_tail(self.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn make_room(&self, length: u32) -> bool {
        // SAFETY: the context is valid for the whole program.
        unsafe { bpf_skb_adjust_room(self.skb, length.cast_signed(), BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    #[inline(always)]
    fn add_ethernet(&self) -> bool {
        // SAFETY: the context is valid for the whole program.
        unsafe { bpf_skb_change_head(self.skb, ETHERNET, 0) == 0 }
    }

    #[inline(always)]
    fn swap_ethernet(&self) -> bool {
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

    #[inline(always)]
    fn untag(&self) -> bool {
        // SAFETY: as above; only the context is passed.
        unsafe { (*self.skb).vlan_present == 0 || bpf_skb_vlan_pop(self.skb) == 0 }
    }

    #[inline(always)]
    fn patch_checksum(&self, field: u32, pseudo: Sum, segment: Sum) {
        // SAFETY: the context is valid for the whole program.
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

    #[inline(always)]
    fn patch_plain_checksum(&self, field: u32, change: Sum) {
        // SAFETY: the context is valid for the whole program.
        unsafe { bpf_l4_csum_replace(self.skb, field, 0, u64::from(change.fold32()), 0) };
    }

    #[inline(always)]
    fn patch_ip_checksum(&self, field: u32, change: Sum) {
        // SAFETY: the context is valid for the whole program.
        unsafe { bpf_l3_csum_replace(self.skb, field, 0, u64::from(change.fold32()), 0) };
    }

    #[inline(always)]
    fn put_headers<const V6: bool>(&self, l3: u32, headers: &Headers, payload: Sum) -> bool {
        let longest = if V6 { 72 } else { 52 };
        let shortest = if V6 { 60 } else { 40 };
        let length = if headers.len == shortest {
            shortest
        } else {
            longest
        };
        // SAFETY: `words` has 72 bytes.
        if !unsafe { self.store_raw(l3, headers.words.as_ptr().cast(), u64::from(length)) } {
            return false;
        }
        let field = l3 + if V6 { 56 } else { 36 };
        self.patch_checksum(field, headers.pseudo, headers.tcp + payload);
        true
    }

    #[inline(always)]
    fn clone_to(&self, ifindex: u32) -> bool {
        // SAFETY: only the context is passed.
        unsafe { bpf_clone_redirect(self.skb, ifindex, 0) == 0 }
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: N bytes.
        unsafe { self.load_raw(offset, bytes.as_mut_ptr(), N as u64) }.then_some(bytes)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        // SAFETY: N words.
        unsafe { self.load_raw(offset, words.as_mut_ptr().cast(), 4 * N as u64) }.then_some(words)
    }

    #[inline(always)]
    fn load<const BASE: usize, const MAX: i32, const MASK: i32, const N: usize>(
        &self,
        offset: u32,
        to: &mut [u8; N],
        at: AtMost<MAX>,
        length: Count<MASK>,
    ) -> bool {
        const { assert!(BASE + (MAX as usize) + (MASK as usize) < N) };
        // SAFETY: asserted.
        unsafe {
            let to = to.as_mut_ptr().add(BASE).add(at.get() as usize);
            self.load_raw(offset, to, length.get())
        }
    }

    #[inline(always)]
    fn put_bytes<const L: usize, const N: usize>(&self, offset: u32, from: &[u8; N]) -> bool {
        const { assert!(L <= N) };
        // SAFETY: asserted.
        unsafe { self.store_raw(offset, from.as_ptr(), L as u64) }
    }

    #[inline(always)]
    fn put_words<const N: usize>(&self, offset: u32, from: &[u32; N]) -> bool {
        // SAFETY: N words.
        unsafe { self.store_raw(offset, from.as_ptr().cast(), 4 * N as u64) }
    }

    #[inline(always)]
    fn scratch(&self) -> Option<*mut Chunk> {
        CHUNK.get_ptr_mut(0)
    }

    #[inline(always)]
    fn sum(
        &self,
        scratch: &mut *mut Chunk,
        offset: u32,
        length: Count<0x1ff>,
        sum: u32,
    ) -> Option<u32> {
        let chunk = scratch.cast::<u8>();
        let taken = length.get();
        // SAFETY: `taken` is 1..=512 and the chunk has 528 bytes, so four zeros fit behind it.
        unsafe {
            if !self.load_raw(offset, chunk, taken) {
                return None;
            }
            let behind = chunk.add(taken as usize);
            for i in 0..4 {
                core::ptr::write_volatile(behind.add(i), 0);
            }
            let words = bounds::mask::<0x3fc>(taken + 3);
            let part = bpf_csum_diff(core::ptr::null_mut(), 0, chunk.cast(), words as u32, 0);
            Some(Sum::ZERO.add_u32_raw(sum).add_u32_raw(part as u32).fold32())
        }
    }

    #[inline(always)]
    fn rewrite<const L3: usize, const V6: bool>(
        &self,
        header: &Header,
        to: &Rewrite,
    ) -> Option<Change> {
        rewrite::in_place::<L3, V6>(*self, header, to)
    }

    #[inline(always)]
    fn shift_selective_acks<const L3: usize, const V6: bool>(
        &self,
        header_len: u32,
        delta: u32,
    ) -> Sum {
        rewrite::selective_acks::<L3, V6>(*self, header_len, delta)
    }

    #[inline(always)]
    fn has_socket<const V6: bool>(&self, work: &Work) -> bool {
        host::has_socket::<V6>(*self, work)
    }

    #[inline(always)]
    fn leaves_in_clear(&self, work: &Work, source: &Address, destination: &Address) -> bool {
        host::leaves_in_clear(*self, work, source, destination)
    }
}
