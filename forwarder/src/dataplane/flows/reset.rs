//! Segments of our own: resets towards both ends of a flow that is ended by order, so that neither has to speak
//! first to learn it, and the question to a node whether it still has a connection.
//!
//! They leave by raw sockets (`raw(7)`), which need CAP_NET_RAW. Without that right nothing is sent, and an
//! end learns of it from the reset that its next packet draws. A reset carries the number that the other
//! side's last acknowledgement named, so it is exact (RFC 5961 3.2) unless bytes are on their way; then the
//! acknowledgement of those draws another.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use forwarder_common::abi::{Address, Flow, FlowKey, Hello, Node, Vip, is_v4, link, state};
use forwarder_common::segment::{Headers, Segment, ip_len, pair};
use forwarder_common::tcp::flag;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dataplane::address::{address, ip};

/// `IPPROTO_RAW`: the packet comes with its IP header.
const RAW: i32 = 255;

/// One segment, and the interface it leaves by.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    segment: Segment,
    ifindex: u32,
}

impl Own {
    /// A reset to the client that connected to `local`, by the interface that its packets came in by.
    pub fn reset_client(key: &FlowKey, flow: &Flow, local: SocketAddr) -> Self {
        Self {
            segment: Segment {
                source: address(local.ip()),
                destination: key.client,
                source_port_be: local.port().to_be(),
                destination_port_be: key.port_be,
                ..bare(flow.node_expected())
            },
            ifindex: flow.public_link & !link::NO_HEADER,
        }
    }

    /// A reset to a client whose hello took too long, which has got nothing from us but acknowledgements. It leaves by
    /// whichever interface leads there.
    pub fn reset_hello(key: &FlowKey, hello: &Hello, vip: &Vip) -> Self {
        Self {
            segment: Segment {
                source: vip.address,
                destination: key.client,
                source_port_be: vip.port_be,
                destination_port_be: key.port_be,
                ..bare(hello.entrance_isn.wrapping_add(1))
            },
            ifindex: 0,
        }
    }

    /// A reset to the node. One that has not answered yet has nothing to be reset: `None`.
    pub fn reset_node(key: &FlowKey, flow: &Flow, node: &Node) -> Option<Self> {
        Self::to_node(key, flow, node, bare(flow.client_expected()))
    }

    /// The question to a node whether it still has a connection ([`Flow::probe`]). One that has not acknowledged the
    /// whole hello cannot be asked: `None`.
    pub fn ask_node(key: &FlowKey, flow: &Flow, node: &Node) -> Option<Self> {
        if flow.state != state::SPLICED || node.ifindex == 0 {
            return None;
        }
        Some(Self {
            segment: flow.probe(&key.client, node),
            ifindex: node.ifindex,
        })
    }

    /// To the node, as coming from the one it talks to.
    fn to_node(key: &FlowKey, flow: &Flow, node: &Node, segment: Segment) -> Option<Self> {
        if flow.state == state::CONNECTING || node.ifindex == 0 {
            return None;
        }
        let segment = Segment {
            source: if flow.is_transparent() {
                key.client
            } else {
                node.local
            },
            destination: node.address,
            source_port_be: flow.source_port_be,
            destination_port_be: node.port_be,
            ..segment
        };
        Some(Self {
            segment,
            ifindex: node.ifindex,
        })
    }

    /// The packet, IP header first.
    fn packet(&self) -> Vec<u8> {
        if is_v4(&self.segment.destination) {
            bytes::<false>(&self.segment)
        } else {
            bytes::<true>(&self.segment)
        }
    }
}

fn bare(seq: u32) -> Segment {
    let nowhere: Address = [0; 4];
    Segment {
        source: nowhere,
        destination: nowhere,
        source_port_be: 0,
        destination_port_be: 0,
        seq,
        ack: 0,
        flags: flag::RST,
        window: 0,
        options: [0; 3],
        option_words: 0,
        payload_len: 0,
    }
}

fn bytes<const V6: bool>(segment: &Segment) -> Vec<u8> {
    let headers: &Headers = &segment.headers::<V6>();
    let payload_len = segment.payload_len;
    let mut words = headers.words;
    // The checksum is the first half of the fifth word of the TCP header.
    words[ip_len::<V6>() as usize / 4 + 4] = pair((headers.pseudo + headers.tcp).checksum(), 0);
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(headers.len as usize);
    // The payload, which the sums counted as it is: zeros.
    bytes.resize(headers.len as usize + payload_len as usize, 0);
    bytes
}

/// Sends them.
#[derive(Debug)]
pub struct Sender {
    v4: Raw,
    v6: Raw,
}

impl Sender {
    /// Opens its sockets.
    ///
    /// # Errors
    /// Mostly `EPERM`: the right CAP_NET_RAW is missing.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            v4: Raw::open(Domain::IPV4)?,
            v6: Raw::open(Domain::IPV6)?,
        })
    }

    /// Sends one.
    ///
    /// # Errors
    /// The interface is gone, or no route leads to the other end.
    pub fn send(&mut self, own: &Own) -> io::Result<()> {
        let to = ip(&own.segment.destination);
        let socket = if to.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        };
        socket.send(&own.packet(), to, own.ifindex)
    }
}

#[derive(Debug)]
struct Raw {
    socket: Socket,
    /// The interface that packets leave by, 0 for any.
    bound: u32,
}

impl Raw {
    fn open(domain: Domain) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        if domain == Domain::IPV6 {
            socket.set_header_included_v6(true)?;
        } else {
            socket.set_header_included_v4(true)?;
        }
        // A tunnel that nobody reads from any more must not hold up whoever sends.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, bound: 0 })
    }

    fn send(&mut self, packet: &[u8], to: IpAddr, ifindex: u32) -> io::Result<()> {
        if self.bound != ifindex {
            let index = NonZeroU32::new(ifindex);
            // One option for both families: SO_BINDTOIFINDEX.
            self.socket.bind_device_by_index_v4(index)?;
            self.bound = ifindex;
        }
        // A raw socket of IPv6 takes the port for a protocol; 0 leaves it at its own.
        let to = SocketAddr::new(to, 0);
        self.socket.send_to(packet, &to.into()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use forwarder_common::abi::client_address::{MASQUERADE, TRANSPARENT};

    use super::*;

    const LOCAL: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)), 443);

    fn flow(state: u8, client_address: u8) -> Flow {
        Flow {
            client_isn: 1_000,
            entrance_isn: 5_000,
            delta: 700,
            name: 0,
            opened_ms: 0,
            seen_ms: 0,
            client_end: 0,
            node_end: 0,
            client_acked: 11,
            node_acked: 301,
            public_link: 2,
            node: 0,
            path: 0,
            source_port_be: 40_000_u16.to_be(),
            client_address,
            state,
            node_options: forwarder_common::node_options::NodeOptions::NONE.0,
            client_marks: 0,
            node_marks: 0,
        }
    }

    fn node(ip: IpAddr) -> Node {
        Node {
            address: address(ip),
            local: address("10.0.0.1".parse().unwrap()),
            port_be: 8_443_u16.to_be(),
            mss: 0,
            ifindex: 9,
            link: 0,
            closed: 0,
            first: 0,
            transparent: 0,
            mtu: 0,
            homes: [0; 4],
        }
    }

    /// Big-endian number at a place of a packet.
    fn number<const N: usize>(packet: &[u8], at: usize) -> u64 {
        let part = &packet[at..at + N];
        part.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn folded(bytes: &[u8]) -> u64 {
        let words = bytes.chunks(2).map(|pair| number::<2>(pair, 0));
        let sum: u64 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) + (sum >> 16)
    }

    #[test]
    fn the_client_gets_what_it_expects_next() {
        let key = FlowKey {
            client: address("198.51.100.4".parse().unwrap()),
            port_be: 50_000_u16.to_be(),
            vip: 0,
        };
        let packet = Own::reset_client(&key, &flow(state::SPLICED, TRANSPARENT), LOCAL).packet();
        assert_eq!(packet.len(), 40);
        assert_eq!(packet[12..16], [203, 0, 113, 7]);
        assert_eq!(packet[16..20], [198, 51, 100, 4]);
        assert_eq!(number::<2>(&packet, 20), 443);
        assert_eq!(number::<2>(&packet, 22), 50_000);
        assert_eq!(number::<4>(&packet, 24), 5_011);
        assert_eq!(packet[33], flag::RST);
        assert_eq!(folded(&packet[..20]), 0xffff, "IP checksum");
        let pseudo = [&packet[12..20], &[0, 6, 0, 20], &packet[20..]].concat();
        assert_eq!(folded(&pseudo), 0xffff, "TCP checksum");
    }

    #[test]
    fn the_node_gets_its_own_numbers_from_whom_it_talks_to() {
        let key = FlowKey {
            client: address("2001:db8::4".parse().unwrap()),
            port_be: 50_000_u16.to_be(),
            vip: 0,
        };
        let node = node("fd00::2".parse().unwrap());
        let reset = Own::reset_node(&key, &flow(state::SPLICED, TRANSPARENT), &node).unwrap();
        let packet = reset.packet();
        assert_eq!((packet.len(), reset.ifindex), (60, 9));
        assert_eq!(ip(&reset.segment.source), ip(&key.client));
        assert_eq!(number::<2>(&packet, 40), 40_000);
        assert_eq!(number::<2>(&packet, 42), 8_443);
        assert_eq!(number::<4>(&packet, 44), 1_301);
        let pseudo = [&packet[8..40], &[0, 0, 0, 20, 0, 0, 0, 6], &packet[40..]].concat();
        assert_eq!(folded(&pseudo), 0xffff, "TCP checksum");

        let reset = Own::reset_node(&key, &flow(state::SPLICED, MASQUERADE), &node).unwrap();
        assert_eq!(reset.segment.source, node.local);
        let question = Own::ask_node(&key, &flow(state::SPLICED, TRANSPARENT), &node).unwrap();
        let packet = question.packet();
        assert_eq!(number::<4>(&packet, 44), 1_300, "one byte that it has");
        assert_eq!(number::<4>(&packet, 48), 5_011 - 700, "in its own numbers");
        assert_eq!(packet[53], flag::ACK);
        assert_eq!(
            (packet.len(), packet[60]),
            (61, 0),
            "with it, or a node may say nothing"
        );
        let pseudo = [
            &packet[8..40],
            &[0, 0, 0, 21, 0, 0, 0, 6],
            &packet[40..],
            &[0],
        ]
        .concat();
        assert_eq!(folded(&pseudo), 0xffff, "TCP checksum");
        let owed = flow(state::REPLAYING, TRANSPARENT);
        assert!(
            Own::ask_node(&key, &owed, &node).is_none(),
            "that byte may be missing yet"
        );
        assert!(Own::reset_node(&key, &flow(state::CONNECTING, MASQUERADE), &node).is_none());
    }
}
