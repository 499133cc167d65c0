//! The headers of a packet, read once.

use forwarder_common::abi::{Address, V4_MAPPED};
use forwarder_common::segment::pair;

use crate::packet::{Access, Ipv4, Ipv6, Tcp};

/// TCP in IPv4's protocol and IPv6's next-header field.
pub const TCP: u8 = 6;
const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;
/// IPv6 extension headers that the stack reads before TCP (RFC 8200 4).
pub const HOP_BY_HOP: u8 = 0;
/// See [`HOP_BY_HOP`].
pub const ROUTING: u8 = 43;
/// See [`HOP_BY_HOP`].
pub const FRAGMENT: u8 = 44;
/// See [`HOP_BY_HOP`].
pub const DESTINATION: u8 = 60;
/// More fragments, or an offset.
pub const FRAGMENT_V4: u16 = 0x3fff;
/// The offset of a fragment.
pub const OFFSET_V4: u16 = 0x1fff;

/// What a packet is, as far as the entry points care.
pub enum Kind {
    /// TCP right behind a plain IP header.
    Tcp(Header),
    /// An IP header with options or extension headers, or a piece of a packet: where its TCP header is, if it has one,
    /// is for `extended.rs` to find.
    Extended,
    /// ICMP or ICMPv6.
    Icmp,
    /// Nothing of ours.
    Other,
}

/// IP and TCP header fields.
pub struct Header {
    pub source: Address,
    pub destination: Address,
    pub source_port_be: u16,
    pub destination_port_be: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Bytes of TCP header, as it claims.
    pub header_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    pub ttl: u8,
    /// Lengths contradict each other.
    pub malformed: bool,
    /// The ports as one word, as they stand.
    pub ports: u32,
}

impl Header {
    /// Reads the headers behind `L3` bytes of link-layer header.
    #[inline(always)]
    pub fn read<const L3: usize, const V6: bool>(packet: impl Access) -> Kind {
        if V6 {
            read_v6::<L3>(packet)
        } else {
            read_v4::<L3>(packet)
        }
    }
}

#[inline(always)]
fn read_v4<const L3: usize>(packet: impl Access) -> Kind {
    let Some(data) = packet.linear(L3 + 20) else {
        return Kind::Other;
    };
    // SAFETY: L3 + 20 bytes were compared with data_end.
    let ip = unsafe { core::ptr::read(data.add(L3).cast::<Ipv4>()) };
    let fragment = u16::from_be(ip.fragment_be);
    if ip.protocol != TCP {
        let whole = fragment & OFFSET_V4 == 0;
        return match ip.protocol {
            ICMP_V4 if whole => Kind::Icmp,
            _ => Kind::Other,
        };
    }
    if ip.version_length != 0x45 || fragment & FRAGMENT_V4 != 0 {
        return Kind::Extended;
    }
    let Some(data) = packet.linear(L3 + 40) else {
        return Kind::Other;
    };
    // SAFETY: L3 + 40 bytes were compared with data_end.
    let tcp = unsafe { core::ptr::read(data.add(L3 + 20).cast::<Tcp>()) };
    let total = u32::from(u16::from_be(ip.total_be));
    let mut header = tcp_fields(
        &tcp,
        total.wrapping_sub(20),
        packet.len().wrapping_sub(L3 as u32 + 20),
    );
    header.source = [0, 0, V4_MAPPED, ip.source];
    header.destination = [0, 0, V4_MAPPED, ip.destination];
    header.ttl = ip.ttl;
    Kind::Tcp(header)
}

#[inline(always)]
fn read_v6<const L3: usize>(packet: impl Access) -> Kind {
    let Some(data) = packet.linear(L3 + 40) else {
        return Kind::Other;
    };
    // SAFETY: L3 + 40 bytes were compared with data_end.
    let ip = unsafe { core::ptr::read(data.add(L3).cast::<Ipv6>()) };
    if ip.destination[0] == 0 {
        // IPv4-mapped addresses among others, which would be taken for those of the other family.
        return Kind::Other;
    }
    if ip.next != TCP {
        return match ip.next {
            ICMP_V6 => Kind::Icmp,
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION => Kind::Extended,
            _ => Kind::Other,
        };
    }
    let Some(data) = packet.linear(L3 + 60) else {
        return Kind::Other;
    };
    // SAFETY: L3 + 60 bytes were compared with data_end.
    let tcp = unsafe { core::ptr::read(data.add(L3 + 40).cast::<Tcp>()) };
    let payload = u32::from(u16::from_be(ip.payload_be));
    let there = packet.len().wrapping_sub(L3 as u32 + 40);
    // A super-packet of 64 KiB or more (BIG TCP) has no length in its header.
    let length = if payload == 0 { there } else { payload };
    let mut header = tcp_fields(&tcp, length, there);
    header.source = ip.source;
    header.destination = ip.destination;
    header.ttl = ip.hop_limit;
    Kind::Tcp(header)
}

/// `length` is what the IP header says of the segment, `there` what the packet has.
#[inline(always)]
fn tcp_fields(tcp: &Tcp, length: u32, there: u32) -> Header {
    let header_len = u32::from(tcp.offset >> 4) * 4;
    Header {
        source: [0; 4],
        destination: [0; 4],
        source_port_be: tcp.source_be,
        destination_port_be: tcp.destination_be,
        seq: u32::from_be(tcp.seq_be),
        ack: u32::from_be(tcp.ack_be),
        flags: tcp.flags,
        window: u16::from_be(tcp.window_be),
        header_len,
        payload_len: length.wrapping_sub(header_len),
        ttl: 0,
        malformed: header_len < 20 || header_len > length || length > there,
        ports: pair(tcp.source_be, tcp.destination_be),
    }
}
