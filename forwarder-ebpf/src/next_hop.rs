//! The next-hop cache: what the routing table says of a destination, remembered for a second.
//!
//! `bpf_redirect_neigh` asks the routing table for every packet; with the next hop given it asks the neighbour
//! table alone. What `bpf_fib_lookup` does not tell (it needs forwarding to be on for the interface) is left to the
//! redirect, and so is IPv6: `bpf_fib_lookup` passes over rules that ask for the source there (no
//! `RT6_LOOKUP_F_HAS_SADDR`; net/core/filter.c, net/ipv6/fib6_rules.c), which the redirect obeys.

use aya_ebpf::bindings::{BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup as Lookup};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};

use crate::clock;
use crate::maps::NEXT_HOPS;
use crate::packet::Skb;

/// How long an answer counts, ms: a route that changes shows within that time.
const KEPT_MS: u32 = 1_000;
/// Slots of [`NEXT_HOPS`].
pub const SLOTS: u32 = 256;
const AF_INET: u32 = 2;

/// `struct bpf_redir_neigh`.
#[repr(C)]
struct Neighbour {
    family: u32,
    address: [u32; 4],
}

/// What is known of one destination.
#[repr(C)]
pub struct NextHop {
    /// Rules may ask for the source too.
    source: u32,
    destination: u32,
    ifindex: u32,
    asked_ms: u32,
    /// Family 0: the redirect is to ask the routing table itself.
    neighbour: Neighbour,
    /// 0 for a slot that was never used.
    used: u32,
    lookup: Lookup,
}

/// Sends the packet out of an Ethernet interface to the next hop from `source` to `destination`, IPv4 addresses as they
/// stand in the packet; 0 and 0 for IPv6. Returns the action.
#[inline(always)]
pub fn send(packet: Skb, ifindex: u32, source: u32, destination: u32) -> i32 {
    if destination == 0 {
        return ask(ifindex);
    }
    let mixed = (source.rotate_left(16) ^ destination ^ ifindex).wrapping_mul(0x9e37_79b1);
    let Some(hop) = NEXT_HOPS.get_ptr_mut(mixed >> 24) else {
        return ask(ifindex);
    };
    // SAFETY: this CPU's slot, and a packet is worked on without preemption.
    let hop = unsafe { &mut *hop };
    let now = clock::ms(clock::now_ns());
    let known =
        (source ^ hop.source) | (destination ^ hop.destination) | (ifindex ^ hop.ifindex) == 0;
    if !known || hop.used == 0 || now.wrapping_sub(hop.asked_ms) > KEPT_MS {
        hop.source = source;
        hop.destination = destination;
        hop.ifindex = ifindex;
        hop.asked_ms = now;
        hop.used = 1;
        find(packet, hop);
    }
    if hop.neighbour.family == 0 {
        return ask(ifindex);
    }
    let length = size_of::<Neighbour>() as i32;
    // SAFETY: the parameter block is a map value of that length.
    unsafe { bpf_redirect_neigh(ifindex, (&raw mut hop.neighbour).cast(), length, 0) as i32 }
}

#[inline(always)]
fn find(packet: Skb, hop: &mut NextHop) {
    hop.neighbour.family = 0;
    // SAFETY: plain integers, for which zeros are a value.
    hop.lookup = unsafe { core::mem::zeroed() };
    let lookup = &mut hop.lookup;
    lookup.family = AF_INET as u8;
    lookup.ifindex = hop.ifindex;
    // SAFETY: the unions hold integers alone.
    unsafe {
        lookup.__bindgen_anon_3.ipv4_src = hop.source;
        lookup.__bindgen_anon_4.ipv4_dst = hop.destination;
        let length = size_of::<Lookup>() as i32;
        let found = bpf_fib_lookup(
            packet.context(),
            (&raw mut *lookup),
            length,
            BPF_FIB_LOOKUP_OUTPUT,
        );
        if found != 0 || lookup.ifindex != hop.ifindex {
            return;
        }
        if u32::from(lookup.family) == AF_INET {
            hop.neighbour.address = [lookup.__bindgen_anon_4.ipv4_dst, 0, 0, 0];
        } else {
            // An IPv4 route by an IPv6 router (RFC 5549).
            hop.neighbour.address = lookup.__bindgen_anon_4.ipv6_dst;
        }
        hop.neighbour.family = u32::from(lookup.family);
    }
}

#[inline(always)]
fn ask(ifindex: u32) -> i32 {
    // SAFETY: a null parameter block asks for a look-up.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}
