//! A machine between a client and its nodes: packets go in, and where they go comes out.

use forwarder_common::abi::{
    Address, Endpoint, FlowKey, HOMES, NO_HOME, NameEntry, Path, address_v4, address_v6,
    client_address, hello_state, stage,
};
use forwarder_common::checksum::Sum;
use forwarder_common::engine::header::{Header, Kind};
use forwarder_common::engine::store::Store;
use forwarder_common::engine::{buffer, node_answer, public, route, syn, tunnel};
use forwarder_common::hello::{Progress, Reader};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::{DropReason, Verdict};

use crate::hello::{Stream, client_hello};
use crate::host::Host;
use crate::skb::{self, Bytes};

pub const PUBLIC: u32 = 2;
pub const TUNNEL: u32 = 3;
pub const NAME: &[u8] = b"www.example.org";
pub const CLIENT_ISN: u32 = 0xffff_ff00;
pub const NODE_ISN: u32 = 77;
pub const CLIENT_PORT: u16 = 40_000_u16.to_be();

/// Addresses of one family.
pub struct Net {
    pub client: Address,
    pub vip: Endpoint,
    pub other_vip: Endpoint,
    pub node: Endpoint,
    pub local: Address,
}

const fn v4(address: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(address_v4(address), port.to_be())
}

/// In a network whose first four bytes are `net`.
const fn v6([a, b, c, d]: [u8; 4], last: u8, port: u16) -> Endpoint {
    let address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    Endpoint::new(address_v6(address), port.to_be())
}

const IPV4: Net = Net {
    client: v4([198, 51, 100, 9], 0).address,
    vip: v4([203, 0, 113, 7], 443),
    other_vip: v4([203, 0, 113, 8], 443),
    node: v4([10, 0, 0, 2], 8443),
    local: v4([10, 0, 0, 1], 0).address,
};
const IPV6: Net = Net {
    client: v6([0x20, 1, 0xd, 0xb8], 9, 0).address,
    vip: v6([0x20, 1, 0xd, 0xb8], 7, 443),
    other_vip: v6([0x20, 1, 0xd, 0xb8], 8, 443),
    node: v6([0xfd, 0, 0, 0], 2, 8443),
    local: v6([0xfd, 0, 0, 0], 1, 0).address,
};

pub fn header<const V6: bool>(packet: &Bytes) -> Header {
    match Header::read::<_, 0, V6>(packet) {
        Kind::Tcp(header) => header,
        _ => panic!("no TCP"),
    }
}

/// The headers of a packet. Panics if a checksum is wrong.
pub fn right<const V6: bool>(packet: &Bytes) -> Header {
    let header = header::<V6>(packet);
    let bytes = packet.bytes.borrow();
    let segment = &bytes[if V6 { 40 } else { 20 }..];
    let length = segment.len() as u32;
    let (s, d) = (header.source, header.destination);
    let pseudo = if V6 {
        Sum::tcp_pseudo_v6(s, d, length)
    } else {
        assert_eq!(Sum::of_bytes(&bytes[..20]).fold16(), 0xffff);
        Sum::tcp_pseudo_v4([s[3]], [d[3]], length as u16)
    };
    assert_eq!((pseudo + Sum::of_bytes(segment)).fold16(), 0xffff);
    header
}

/// From where to where a segment goes.
pub fn ends(header: &Header) -> [Endpoint; 2] {
    [
        Endpoint::new(header.source, header.source_port_be),
        Endpoint::new(header.destination, header.destination_port_be),
    ]
}

/// What stands behind the fixed headers.
pub fn options_and_payload<const V6: bool>(packet: &Bytes) -> Vec<u8> {
    packet.bytes.borrow()[if V6 { 60 } else { 40 }..].to_vec()
}

/// The packet with one bit of its window turned.
pub fn damaged<const V6: bool>(packet: Bytes) -> Bytes {
    packet.bytes.borrow_mut()[if V6 { 40 } else { 20 } + 15] ^= 4;
    packet
}

/// A machine, and what its programs do with a packet.
pub struct Entrance<const V6: bool> {
    pub host: Host,
    pub net: &'static Net,
    pub mode: u8,
}

/// Runs a test on machines of both families and every mode, whose node has the VIP among its reverse VIPs and has not.
pub fn on_every_machine(v4: impl Fn(Entrance<false>), v6: impl Fn(Entrance<true>)) {
    for mode in [
        client_address::TRANSPARENT,
        client_address::PROXY_V2,
        client_address::MASQUERADE,
    ] {
        for home in [0, NO_HOME] {
            println!("mode {mode}, reverse VIP {home}");
            v4(Entrance::new(mode, home));
            v6(Entrance::new(mode, home));
        }
    }
}

impl<const V6: bool> Entrance<V6> {
    pub fn new(mode: u8, home: u16) -> Self {
        let net = if V6 { &IPV6 } else { &IPV4 };
        let mut host = Host::new(net.vip, net.node, net.local, mode);
        host.nodes[0].homes = [home, NO_HOME, NO_HOME, NO_HOME];
        let entry = NameEntry {
            name: 5,
            path_base: 0,
            pool: 0,
        };
        host.names.insert(NAME.to_vec(), entry);
        Self { host, net, mode }
    }

    /// Another node of the pool, like the first.
    pub fn add_node(&mut self) {
        let host = &mut self.host;
        let number = host.nodes.len() as u16;
        let mut node = host.nodes[0];
        let last = u32::from_be(node.address[3]) + u32::from(number);
        node.address[3] = last.to_be();
        host.nodes.push(node);
        let target = host.targets[0];
        host.targets.push(Path {
            node: number,
            ..target
        });
        host.pools[0].nodes = number + 1;
    }

    /// The number of the node at this end of a connection.
    pub fn number_of(&self, node: &Endpoint) -> u32 {
        (&self.host).node_number(node).unwrap()
    }

    /// A second VIP of the listener. Gives all nodes these reverse VIPs.
    pub fn add_vip(&mut self, homes: [u16; HOMES]) {
        let mut second = self.host.vips[0];
        second.address = self.net.other_vip.address;
        self.host.vips.push(second);
        for node in &mut self.host.nodes {
            node.homes = homes;
        }
    }

    /// A packet through the programs of its side. Returns where it goes, or why it goes nowhere.
    pub fn run(&self, packet: &Bytes) -> Result<u32, DropReason> {
        let host = &self.host;
        let mut verdict = self.enter(packet);
        loop {
            let next = match verdict {
                Verdict::Redirect(ifindex) | Verdict::Forward { ifindex, .. } => {
                    return Ok(ifindex);
                }
                Verdict::Drop(reason) => return Err(reason),
                Verdict::Pass | Verdict::Counted => panic!("neither sent nor dropped"),
                Verdict::Next(stage) => stage,
                Verdict::NextHeld(stage::REPLAY, held) => {
                    // The stage that sends the hello is not run here.
                    host.unlock(held);
                    return Ok(TUNNEL);
                }
                Verdict::NextHeld(stage, _) => stage,
            };
            let mut work = host.work().unwrap();
            verdict = match next {
                stage::SYN => syn::stage(host, packet, &mut work),
                stage::NODE_ANSWER => node_answer::stage(host, packet, &mut work),
                stage::CLIENT_CONTROL => public::control(host, packet, &mut work),
                stage::NODE_CONTROL => tunnel::control(host, packet, &mut work),
                other => panic!("stage {other}"),
            };
        }
    }

    /// A packet through the entry of its side alone.
    pub fn enter<'a>(&'a self, packet: &'a Bytes) -> Verdict<<&'a Host as Store>::Held> {
        if packet.ifindex == PUBLIC {
            public::ingress::<_, _, 0, V6>(&self.host, packet)
        } else {
            tunnel::ingress::<_, _, 0, V6>(&self.host, packet)
        }
    }

    /// A connection to the first VIP.
    pub const fn connection(&self) -> Connection<'_, V6> {
        Connection {
            entrance: self,
            vip: 0,
            port_be: CLIENT_PORT,
        }
    }
}

/// A connection of the client's.
#[derive(Clone, Copy)]
pub struct Connection<'a, const V6: bool> {
    pub entrance: &'a Entrance<V6>,
    pub vip: u16,
    pub port_be: u16,
}

impl<'a, const V6: bool> Connection<'a, V6> {
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            client: self.entrance.net.client,
            port_be: self.port_be,
            vip: self.vip,
        }
    }

    /// The client's end.
    pub const fn end(&self) -> Endpoint {
        Endpoint::new(self.entrance.net.client, self.port_be)
    }

    /// A bare segment of the client's.
    pub fn bare(&self, flags: u8, seq: u32, ack: u32) -> Segment {
        let vip = &self.entrance.host.vips[usize::from(self.vip)];
        Segment {
            source: self.entrance.net.client,
            destination: vip.address,
            source_port_be: self.port_be,
            destination_port_be: vip.port_be,
            seq,
            ack,
            flags,
            window: 1_000,
            options: [0; 3],
            option_words: 0,
            payload_len: 0,
        }
    }

    pub fn packet(&self, segment: &Segment, payload: &[u8]) -> Bytes {
        let bytes = skb::segment::<V6>(segment, payload);
        Bytes::new(&self.entrance.host, PUBLIC, bytes)
    }

    pub fn client(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Bytes {
        self.packet(&self.bare(flags, seq, ack), payload)
    }

    pub fn syn(&self) -> Bytes {
        self.client(flag::SYN, CLIENT_ISN, 0, b"")
    }

    /// The answer to a SYN.
    pub fn cookie(&self) -> u32 {
        let syn = self.syn();
        assert_eq!(self.entrance.run(&syn), Ok(PUBLIC));
        header::<V6>(&syn).seq
    }

    /// Runs the stage that opens a connection on a hello that was read. Returns the SYN, or why the hello is refused;
    /// the stage that then answers is not run, and the buffer goes back as that gives it back.
    pub fn judged(&self, cookie: u32, name: &[u8]) -> Result<Asked<'a, V6>, DropReason> {
        let host = &self.entrance.host;
        let hello = client_hello(name);
        let (seq, ack) = (CLIENT_ISN.wrapping_add(1), cookie.wrapping_add(1));
        let packet = self.client(flag::ACK | flag::PSH, seq, ack, &hello);
        let verdict = self.entrance.enter(&packet);
        assert!(matches!(verdict, Verdict::Next(stage::HELLO)));
        let slot = host.take_hello(&self.key(), |kept| {
            kept.client_isn = CLIENT_ISN;
            kept.entrance_isn = cookie;
            kept.state = hello_state::COLLECTING;
            kept.stored = hello.len() as u32;
            kept.segments = 1;
            kept.reader = Reader::START;
            let mut stream = Stream {
                bytes: &hello,
                name: &mut kept.server_name,
            };
            loop {
                match kept.reader.step(&mut stream, hello.len() as u32) {
                    Progress::Continue => {}
                    progress => break assert_eq!(progress, Progress::Complete),
                }
            }
        });
        let mut work = host.work().unwrap();
        work.slot = slot;
        match route::stage(host, &packet, &mut work) {
            Verdict::Redirect(TUNNEL) => Ok(Asked {
                connection: *self,
                cookie,
                hello_len: hello.len() as u32,
                syn: right::<V6>(&packet),
                options: options_and_payload::<V6>(&packet),
            }),
            Verdict::NextHeld(stage::REFUSE, held) => {
                buffer::release(host, &self.key(), held);
                Err(DropReason::from_number(work.reason as u8).unwrap())
            }
            _ => panic!("neither asked nor refused"),
        }
    }

    /// A connection whose node is asked.
    pub fn asked(&self) -> Asked<'a, V6> {
        match self.judged(self.cookie(), NAME) {
            Ok(asked) => asked,
            Err(reason) => panic!("refused: {reason:?}"),
        }
    }
}

/// A connection whose node was sent a SYN.
pub struct Asked<'a, const V6: bool> {
    pub connection: Connection<'a, V6>,
    pub cookie: u32,
    pub hello_len: u32,
    pub syn: Header,
    pub options: Vec<u8>,
}

impl<const V6: bool> Asked<'_, V6> {
    /// The client's sequence number behind its hello.
    pub const fn up(&self) -> u32 {
        CLIENT_ISN.wrapping_add(1 + self.hello_len)
    }

    /// A segment of the node's.
    pub fn node(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Bytes {
        let segment = Segment {
            source: self.syn.destination,
            destination: self.syn.source,
            source_port_be: self.syn.destination_port_be,
            destination_port_be: self.syn.source_port_be,
            seq,
            ack,
            flags,
            window: 2_000,
            options: [0; 3],
            option_words: 0,
            payload_len: 0,
        };
        let bytes = skb::segment::<V6>(&segment, payload);
        Bytes::new(&self.connection.entrance.host, TUNNEL, bytes)
    }

    /// The node's answer to the SYN, with these flags beside ACK.
    pub fn answer(&self, flags: u8) -> Bytes {
        self.node(
            flag::ACK | flags,
            NODE_ISN,
            self.syn.seq.wrapping_add(1),
            b"",
        )
    }

    /// The node takes the connection.
    pub fn accept(&self) {
        let answer = self.answer(flag::SYN);
        assert_eq!(self.connection.entrance.run(&answer), Ok(TUNNEL));
    }

    /// The node refuses the connection, and there is no other node.
    pub fn refuse(&self) {
        let answer = self.answer(flag::RST);
        assert_eq!(self.connection.entrance.run(&answer), Ok(PUBLIC));
    }

    /// The node acknowledges the hello.
    pub fn acknowledge(&self) {
        let ack = self.node(flag::ACK, NODE_ISN + 1, self.up(), b"");
        assert_eq!(self.connection.entrance.run(&ack), Ok(PUBLIC));
    }
}
