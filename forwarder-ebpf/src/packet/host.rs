//! What this host would do with a packet: its sockets and its routes.

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_sock_tuple,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_release, bpf_skc_lookup_tcp};
use forwarder_common::abi::Address;
use forwarder_common::engine::work::Work;

use crate::maps::{PUBLIC_LINKS, ROUTE};
use crate::packet::Skb;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Whether the host's routing would send a packet, which came by the interface `work.public_link`, out of a public
/// interface. Where the host does not forward at all, nothing else can have a use for it: then too.
///
/// Linux before 5.12 does not tell the interface of a next hop that was not resolved yet; such a packet passes.
#[inline(always)]
pub fn leaves_in_clear(packet: Skb, work: &Work, source: &Address, destination: &Address) -> bool {
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

/// Whether a socket of this host has these ends.
#[inline(always)]
pub fn has_socket<const V6: bool>(packet: Skb, work: &Work) -> bool {
    // SAFETY: a tuple of plain integers, of which the family's part is read.
    unsafe {
        let mut tuple: bpf_sock_tuple = core::mem::zeroed();
        let length = if V6 {
            let ends = &mut tuple.__bindgen_anon_1.ipv6;
            ends.saddr = work.key.client;
            ends.daddr = work.local;
            ends.sport = work.key.port_be;
            ends.dport = work.local_port_be;
            36
        } else {
            let ends = &mut tuple.__bindgen_anon_1.ipv4;
            ends.saddr = work.key.client[3];
            ends.daddr = work.local[3];
            ends.sport = work.key.port_be;
            ends.dport = work.local_port_be;
            12
        };
        let socket = bpf_skc_lookup_tcp(
            packet.context(),
            &raw mut tuple,
            length,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        );
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
