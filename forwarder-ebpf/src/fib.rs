//! Where the host would send a packet.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use forwarder_common::abi::Address;

use crate::maps::{PUBLIC_LINKS, ROUTE};
use crate::packet::Packet;
use crate::work::Work;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Whether the host's routing would send a packet, which came by the interface `work.public_link`, out of a public
/// interface. Where the host does not forward at all, nothing else can have a use for it: then too.
///
/// Linux before 5.12 does not tell the interface of a next hop that was not resolved yet; such a packet passes.
#[inline(always)]
pub fn leaves_in_clear(
    packet: Packet,
    work: &Work,
    source: &Address,
    destination: &Address,
) -> bool {
    let Some(lookup) = ROUTE.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: this CPU's value, made of plain integers, for which zeros are a value.
    let lookup = unsafe {
        core::ptr::write_bytes(lookup, 0, 1);
        &mut *lookup
    };
    lookup.l4_protocol = 6;
    lookup.ifindex = work.public_link;
    let from = lookup.ifindex;
    // SAFETY: the unions hold integers alone.
    unsafe {
        if work.v6 == 0 {
            lookup.family = AF_INET;
            lookup.__bindgen_anon_3.ipv4_src = source[3];
            lookup.__bindgen_anon_4.ipv4_dst = destination[3];
        } else {
            lookup.family = AF_INET6;
            lookup.__bindgen_anon_3.ipv6_src = *source;
            lookup.__bindgen_anon_4.ipv6_dst = *destination;
        }
        let length = size_of::<aya_ebpf::bindings::bpf_fib_lookup>() as i32;
        let found = bpf_fib_lookup(packet.context(), &raw mut *lookup, length, 0);
        match u32::try_from(found) {
            Ok(BPF_FIB_LKUP_RET_FWD_DISABLED) => true,
            Ok(
                BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED,
            ) => lookup.ifindex != from && PUBLIC_LINKS.get(lookup.ifindex).is_some(),
            _ => false,
        }
    }
}
