//! The packet, as stages see it.

use super::bounds::{AtMost, Count};
use super::header::{Change, Header, Ipv4, Ipv6, Rewrite, Tcp};
use super::work::Work;
use crate::abi::Address;
use crate::checksum::Sum;
use crate::segment::Headers;

/// What packets of both hooks, TC and XDP, can do: be read.
pub trait Source: Copy {
    /// The present: nanoseconds of `CLOCK_MONOTONIC`, as fine as this hook needs it.
    fn now_ns(&self) -> u64;

    /// Bytes from the link-layer header on, as far as this hook knows them.
    fn len(&self) -> u32;

    /// Whether there are none.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The IPv4 header behind `L3` bytes of link-layer header.
    fn ipv4<const L3: usize>(&self) -> Option<Ipv4>;

    /// The IPv6 header behind `L3` bytes of link-layer header.
    fn ipv6<const L3: usize>(&self) -> Option<Ipv6>;

    /// The TCP header behind those of link layer and IP, which has no options.
    fn tcp<const L3: usize, const V6: bool>(&self) -> Option<Tcp>;

    /// Of an ICMP message behind those of link layer and IP: whether the IP header has no options, and type and code.
    fn icmp<const L3: usize, const V6: bool>(&self) -> Option<(bool, [u8; 2])>;

    /// Copies `length` bytes of TCP options; `l3` is the offset of the IP header.
    fn load_options<const V6: bool>(&self, l3: u32, to: &mut [u8; 64], length: Count<0x3f>)
    -> bool;

    /// Whether the TCP checksum of the segment in `work` is right, if it comes from the client in `work` to the VIP in
    /// `work`. None if this hook cannot tell.
    fn verify<const V6: bool>(&self, work: &mut Work) -> Option<bool>;
}

/// A packet at a traffic-control hook, which may be read, rebuilt and sent.
pub trait Packet: Source {
    /// Memory for sums.
    type Scratch;

    /// The interface it came in by.
    fn ifindex(&self) -> u32;

    /// The same with `L3` bytes of link-layer header, as [`crate::abi::Flow::public_link`] has it.
    fn link<const L3: usize>(&self) -> u32;

    /// How many packets of the wire this one stands for.
    fn wire_packets(&self) -> u64;

    /// Bytes of TCP payload in one packet of the wire, of which this one carries `payload_len` bytes in all.
    fn segment_size(&self, payload_len: u32) -> u32;

    /// `N` bytes from `offset` on.
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// `N` words from `offset` on, as they stand.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Copies `length` bytes from `offset` on to `to[BASE + at..]`; false when they are not there.
    fn load<const BASE: usize, const MAX: i32, const MASK: i32, const N: usize>(
        &self,
        offset: u32,
        to: &mut [u8; N],
        at: AtMost<MAX>,
        length: Count<MASK>,
    ) -> bool;

    /// Copies the first `L` bytes of `from` to `offset`.
    fn put_bytes<const L: usize, const N: usize>(&self, offset: u32, from: &[u8; N]) -> bool;

    /// Copies words to `offset`, as they stand.
    fn put_words<const N: usize>(&self, offset: u32, from: &[u32; N]) -> bool;

    /// Memory for [`Self::sum`].
    fn scratch(&self) -> Option<Self::Scratch>;

    /// The sum of `length` bytes from `offset` on, added to `sum`, folded. Whatever stands at an odd offset of a segment
    /// must be the last piece of it.
    fn sum(
        &self,
        scratch: &mut Self::Scratch,
        offset: u32,
        length: Count<0x1ff>,
        sum: u32,
    ) -> Option<u32>;

    /// Cuts or extends the packet. Linearises it and ends its life as a GSO packet: never for bulk.
    fn resize(&self, length: u32) -> bool;

    /// Makes room for `length` bytes between link-layer and IP header: all that follows moves back.
    fn make_room(&self, length: u32) -> bool;

    /// Makes room for an Ethernet header, zeroed, before a packet that has none.
    fn add_ethernet(&self) -> bool;

    /// Exchanges source and destination of the Ethernet header.
    fn swap_ethernet(&self) -> bool;

    /// Takes off a VLAN tag of VLAN 0, which holds a priority alone.
    fn untag(&self) -> bool;

    /// Patches the TCP or ICMPv6 checksum at `field` for a change of the pseudo-header and one of the segment.
    fn patch_checksum(&self, field: u32, pseudo: Sum, segment: Sum);

    /// Patches a checksum that no pseudo-header is part of.
    fn patch_plain_checksum(&self, field: u32, change: Sum);

    /// Patches the IPv4 header checksum at `field`.
    fn patch_ip_checksum(&self, field: u32, change: Sum);

    /// Writes headers at `l3` and makes their TCP checksum right. `payload` is the sum of what follows.
    fn put_headers<const V6: bool>(&self, l3: u32, headers: &Headers, payload: Sum) -> bool;

    /// Writes new values into the headers, one less into the time to live, and patches the IPv4 header's checksum.
    /// Returns what that means for the TCP checksum.
    fn rewrite<const L3: usize, const V6: bool>(
        &self,
        header: &Header,
        rewrite: &Rewrite,
    ) -> Option<Change>;

    /// Shifts SACK blocks by −`delta`; any other layout of options is overwritten with NOPs, because a block that is not
    /// translated lies. Returns the change of the sum.
    fn shift_selective_acks<const L3: usize, const V6: bool>(
        &self,
        header_len: u32,
        delta: u32,
    ) -> Sum;

    /// Sends a copy out of an interface.
    fn clone_to(&self, ifindex: u32) -> bool;

    /// Whether a socket of this host has the two ends in `work`.
    fn has_socket<const V6: bool>(&self, work: &Work) -> bool;

    /// Whether this host's routing would send the packet, which came by the interface `work.public_link`, out of a public
    /// interface.
    fn leaves_in_clear(&self, work: &Work, source: &Address, destination: &Address) -> bool;
}

/// A frame at the XDP hook, with its Ethernet header.
pub trait Frame: Source {
    /// Whether it is sent to one station, and to this interface, as far as that is known.
    fn is_for_this_host(&self) -> bool;

    /// The TCP destination port behind an IPv4 header of `words` words.
    fn destination_port_be(&self, words: usize) -> Option<u16>;

    /// Makes the frame these headers, for whoever sent it. False, and nothing done, when there is no room.
    fn answer<const V6: bool>(&self, headers: &Headers) -> bool;
}
