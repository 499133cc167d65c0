//! IP packets and TCP segments as plain values, to look at and to build.
//!
//! Checksums are computed here over the raw bytes (RFC 1071), independently of the code under test:
//! WireGuard marks what it decrypts as verified, so a node's kernel does not notice broken ones.

mod checksum;
mod segment;

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, TransportSlice};

use checksum::{fold, pseudo_sum, sum};
pub use segment::{Flags, Segment};

/// What the checksums of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// All that the packet has are right.
    Good,
    /// The IPv4 header's, TCP's, UDP's or ICMP's is wrong.
    Bad,
    /// The kernel has yet to finish it (offload), or it is a fragment.
    Unknown,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// TCP.
    Tcp(Segment),
    /// ICMP or ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
        /// Bytes 4 to 7 of the header: the MTU, where the type has one.
        rest: u32,
        /// What follows: for errors, the start of the packet they are about.
        body: Vec<u8>,
    },
    /// Anything else, by protocol number.
    Other(u8),
}

/// An IP packet that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Whether it is a fragment of a larger packet.
    pub fragment: bool,
    /// The whole length, IP header included.
    pub length: usize,
    /// What its checksums say.
    pub checksums: Checksums,
    /// What it carries.
    pub content: Content,
}

impl Packet {
    /// Reads an IP packet; `None` for what is not IP or is cut short.
    ///
    /// `unfinished` tells that its checksum has yet to be filled in by hardware.
    #[must_use]
    pub fn parse(bytes: &[u8], unfinished: bool) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let (source, destination, hop_limit, header_sum_good): (IpAddr, IpAddr, u8, bool) =
            match sliced.net.as_ref()? {
                NetSlice::Ipv4(v4) => {
                    let header = v4.header();
                    (
                        header.source_addr().into(),
                        header.destination_addr().into(),
                        header.ttl(),
                        fold(sum(0, header.slice())) == 0xffff,
                    )
                }
                NetSlice::Ipv6(v6) => {
                    let header = v6.header();
                    (
                        header.source_addr().into(),
                        header.destination_addr().into(),
                        header.hop_limit(),
                        true,
                    )
                }
                NetSlice::Arp(_) => return None,
            };
        let payload = sliced.net.as_ref()?.ip_payload_ref()?.clone();
        let fragment = payload.fragmented;
        let pseudo = pseudo_sum(
            source,
            destination,
            payload.ip_number.0,
            payload.payload.len(),
        );
        let body_sum_good = match &sliced.transport {
            Some(TransportSlice::Icmpv4(_)) => fold(sum(0, payload.payload)) == 0xffff,
            Some(_) => fold(sum(pseudo, payload.payload)) == 0xffff,
            None => true,
        };
        let checksums = match (header_sum_good, unfinished || fragment, body_sum_good) {
            (false, _, _) => Checksums::Bad,
            (true, true, _) => Checksums::Unknown,
            (true, false, true) => Checksums::Good,
            (true, false, false) => Checksums::Bad,
        };
        let content = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Content::Tcp(Segment {
                source: SocketAddr::new(source, tcp.source_port()),
                destination: SocketAddr::new(destination, tcp.destination_port()),
                hop_limit,
                seq: tcp.sequence_number(),
                ack: tcp.acknowledgment_number(),
                flags: Flags(tcp.header_slice().get(13).copied()?),
                window: tcp.window_size(),
                urgent: tcp.urgent_pointer(),
                options: tcp.options().to_vec(),
                payload: tcp.payload().to_vec(),
            }),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
                let (header, body) = payload.payload.split_first_chunk::<8>()?;
                let rest = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                Content::Icmp {
                    kind: header[0],
                    code: header[1],
                    rest,
                    body: body.to_vec(),
                }
            }
            _ => Content::Other(payload.ip_number.0),
        };
        Some(Self {
            source,
            destination,
            hop_limit,
            fragment,
            length: bytes.len(),
            checksums,
            content,
        })
    }

    /// The TCP segment, if that is what the packet carries.
    #[must_use]
    pub fn tcp(&self) -> Option<&Segment> {
        match &self.content {
            Content::Tcp(segment) => Some(segment),
            Content::Icmp { .. } | Content::Other(_) => None,
        }
    }
}

/// An IP header for a payload of `length` bytes, *don't fragment* set.
///
/// # Panics
/// If the two addresses are of different families, or the length does not fit into a packet.
#[must_use]
pub fn ip_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hop_limit: u8,
    length: usize,
) -> Vec<u8> {
    let length = u16::try_from(length).expect("a payload that fits into an IP packet");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(
                length,
                hop_limit,
                IpNumber(protocol),
                source.octets(),
                destination.octets(),
            )
            .expect("a payload that fits into an IPv4 packet");
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
            payload_length: length,
            next_header: IpNumber(protocol),
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        }
        .to_bytes()
        .to_vec(),
        _ => panic!("{source} and {destination} are of different families"),
    }
}

/// An ICMP *fragmentation needed* (RFC 792, RFC 1191) or ICMPv6 *packet too big* (RFC 4443) about a
/// packet, as a router with address `router` sends it.
#[must_use]
pub fn packet_too_big(router: IpAddr, about: &[u8], mtu: u32) -> Vec<u8> {
    let original = Packet::parse(about, true).expect("an IP packet to complain about");
    let (mut icmp, protocol, quoted) = match router {
        IpAddr::V4(_) => (vec![3, 4, 0, 0], 1, 28 + 8),
        IpAddr::V6(_) => (vec![2, 0, 0, 0], 58, 1_232),
    };
    icmp.extend_from_slice(&mtu.to_be_bytes());
    icmp.extend_from_slice(&about[..about.len().min(quoted)]);
    let pseudo = match router {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => pseudo_sum(router, original.source, 58, icmp.len()),
    };
    let checksum = !fold(sum(pseudo, &icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = ip_header(router, original.source, protocol, 64, icmp.len());
    packet.extend_from_slice(&icmp);
    packet
}

#[cfg(test)]
mod tests {
    use super::{Checksums, Content, Flags, Packet, Segment, packet_too_big};

    fn segment(source: &str, destination: &str) -> Segment {
        let mut segment = Segment::new(
            source.parse().unwrap(),
            destination.parse().unwrap(),
            Flags::SYN,
        );
        segment.seq = 0xfeed_beef;
        segment.options = vec![2, 4, 5, 180, 1, 3, 3, 7, 1, 1, 4, 2];
        segment.payload = b"odd".to_vec();
        segment
    }

    #[test]
    fn built_segments_read_back_with_good_checksums() {
        for (source, destination) in [
            ("192.0.2.1:9", "192.0.2.2:443"),
            ("[2001:db8::1]:9", "[2001:db8::2]:443"),
        ] {
            let segment = segment(source, destination);
            let mut bytes = segment.to_bytes();
            let packet = Packet::parse(&bytes, false).unwrap();
            assert_eq!(packet.checksums, Checksums::Good);
            assert_eq!(packet.tcp(), Some(&segment));
            assert_eq!(segment.mss(), Some(1460));
            assert_eq!(segment.window_scale(), Some(7));
            assert!(segment.sack_permitted());
            *bytes.last_mut().unwrap() ^= 1;
            assert_eq!(
                Packet::parse(&bytes, false).unwrap().checksums,
                Checksums::Bad
            );
        }
    }

    #[test]
    fn etherparse_agrees_on_the_checksum() {
        let bytes = segment("192.0.2.1:9", "192.0.2.2:443").to_bytes();
        let ip = etherparse::Ipv4Slice::from_slice(&bytes).unwrap();
        let tcp = etherparse::TcpSlice::from_slice(ip.payload().payload).unwrap();
        let header = ip.header();
        assert_eq!(
            tcp.calc_checksum_ipv4(header.source(), header.destination())
                .unwrap(),
            tcp.checksum()
        );
    }

    #[test]
    fn packet_too_big_quotes_what_it_is_about() {
        for (source, destination, router) in [
            ("192.0.2.1:9", "192.0.2.2:443", "10.0.0.1"),
            ("[2001:db8::1]:9", "[2001:db8::2]:443", "fd00::1"),
        ] {
            let about = segment(source, destination).to_bytes();
            let bytes = packet_too_big(router.parse().unwrap(), &about, 1280);
            let packet = Packet::parse(&bytes, false).unwrap();
            assert_eq!(packet.checksums, Checksums::Good);
            let Content::Icmp { rest, body, .. } = packet.content else {
                panic!("not ICMP")
            };
            assert_eq!(rest, 1280);
            assert!(about.starts_with(&body[..about.len().min(body.len())]));
        }
    }
}
