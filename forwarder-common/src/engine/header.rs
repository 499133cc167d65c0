//! The headers of a packet, read once; and what becomes of them when the packet is sent on.

use super::packet::Source;
use crate::abi::{Address, V4_MAPPED};
use crate::checksum::Sum;
use crate::segment::pair;

/// TCP in IPv4's protocol and IPv6's next-header field.
pub const TCP: u8 = 6;
/// ICMP in IPv4's protocol field.
pub const ICMP_V4: u8 = 1;
/// ICMPv6 in IPv6's next-header field.
pub const ICMP_V6: u8 = 58;
/// IPv6 extension headers that a stack reads before TCP (RFC 8200 4).
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

/// IPv4 header (RFC 791 3.1) as it stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// Version, and length in words.
    pub version_length: u8,
    /// Type of service.
    pub tos: u8,
    /// Length of header and data.
    pub total_be: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment_be: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of what follows.
    pub protocol: u8,
    /// Of the header.
    pub checksum: u16,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}

/// IPv6 header (RFC 8200 3) as it stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub version_class_label: u32,
    /// Length of what follows.
    pub payload_be: u16,
    /// Kind of the next header.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
}

/// TCP header (RFC 9293 3.1) as it stands.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Source port.
    pub source_be: u16,
    /// Destination port.
    pub destination_be: u16,
    /// Sequence number.
    pub seq_be: u32,
    /// Acknowledgement number.
    pub ack_be: u32,
    /// Length of the header in words, in the upper half.
    pub offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window_be: u16,
    /// Checksum, or the pseudo-header's sum.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

/// What a packet is, as far as the entry points care.
pub enum Kind {
    /// TCP right behind a plain IP header.
    Tcp(Header),
    /// An IP header with options or extension headers, or a piece of a packet: where its TCP header is, if it has one,
    /// is for [`super::extended`] to find.
    Extended,
    /// ICMP or ICMPv6.
    Icmp,
    /// Nothing of ours.
    Other,
}

/// IP and TCP header fields.
pub struct Header {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network order.
    pub source_port_be: u16,
    /// Destination port, network order.
    pub destination_port_be: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// Window, as sent.
    pub window: u16,
    /// Bytes of TCP header, as it claims.
    pub header_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Lengths contradict each other.
    pub malformed: bool,
    /// The ports as one word, as they stand.
    pub ports: u32,
}

/// The new values of a segment's fields.
pub struct Rewrite {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network order.
    pub source_port_be: u16,
    /// Destination port, network order.
    pub destination_port_be: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// As sent.
    pub window: u16,
    /// Where they differ from what they were, the urgent pointer becomes zero.
    pub flags: u8,
}

/// What the changes mean for the TCP checksum.
pub struct Change {
    /// Of the pseudo-header.
    pub pseudo: Sum,
    /// Of the segment.
    pub tcp: Sum,
}

impl Header {
    /// Reads the headers behind `L3` bytes of link-layer header.
    #[inline(always)]
    pub fn read<P: Source, const L3: usize, const V6: bool>(packet: P) -> Kind {
        if V6 {
            read_v6::<P, L3>(packet)
        } else {
            read_v4::<P, L3>(packet)
        }
    }
}

#[inline(always)]
fn read_v4<P: Source, const L3: usize>(packet: P) -> Kind {
    let Some(ip) = packet.ipv4::<L3>() else {
        return Kind::Other;
    };
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
    let Some(tcp) = packet.tcp::<L3, false>() else {
        return Kind::Other;
    };
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
fn read_v6<P: Source, const L3: usize>(packet: P) -> Kind {
    let Some(ip) = packet.ipv6::<L3>() else {
        return Kind::Other;
    };
    let [first, ..] = ip.destination;
    if first == 0 {
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
    let Some(tcp) = packet.tcp::<L3, true>() else {
        return Kind::Other;
    };
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
