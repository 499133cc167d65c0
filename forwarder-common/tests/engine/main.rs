//! The stages of the engine on the host: what the kernel programs run, over hash maps and byte vectors.

mod host;
mod skb;

use forwarder_common::abi::{
    Address, Endpoint, FlowKey, NameEntry, address_v4, address_v6, client_address, close_reason,
    hello_state, stage, state,
};
use forwarder_common::checksum::Sum;
use forwarder_common::engine::header::{Header, Kind};
use forwarder_common::engine::store::Store;
use forwarder_common::engine::xdp_filter::{Filtered, filter};
use forwarder_common::engine::{node_answer, public, route, syn, tunnel};
use forwarder_common::hello::{self, Progress, Reader};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::{DropReason, Verdict};
use host::Host;
use skb::Bytes;

const PUBLIC: u32 = 2;
const TUNNEL: u32 = 3;
const NAME: &[u8] = b"www.example.org";
const CLIENT_ISN: u32 = 0xffff_ff00;
const NODE_ISN: u32 = 77;

/// Addresses of one family.
struct Net {
    client: Address,
    vip: Endpoint,
    node: Endpoint,
    local: Address,
}

const V4: Net = Net {
    client: address_v4([198, 51, 100, 9]),
    vip: Endpoint::new(address_v4([203, 0, 113, 7]), 443_u16.to_be()),
    node: Endpoint::new(address_v4([10, 0, 0, 2]), 8443_u16.to_be()),
    local: address_v4([10, 0, 0, 1]),
};
const V6: Net = Net {
    client: address_v6([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
    vip: Endpoint::new(
        address_v6([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
        443_u16.to_be(),
    ),
    node: Endpoint::new(
        address_v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
        8443_u16.to_be(),
    ),
    local: address_v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
};
const CLIENT_PORT: u16 = 40_000_u16.to_be();

fn from_client(net: &Net, flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        source: net.client,
        destination: net.vip.address,
        source_port_be: CLIENT_PORT,
        destination_port_be: net.vip.port_be,
        seq,
        ack,
        flags,
        window: 1_000,
        options: [0; 3],
        option_words: 0,
        payload_len: 0,
    }
}

fn header<const V6: bool>(packet: &Bytes) -> Header {
    match Header::read::<_, 0, V6>(packet) {
        Kind::Tcp(header) => header,
        _ => panic!("no TCP"),
    }
}

/// Panics if the TCP checksum of a packet is wrong.
fn assert_right<const V6: bool>(packet: &Bytes) {
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
}

/// A machine, and what its programs do with a packet.
struct Entrance {
    host: Host,
    net: &'static Net,
}

impl Entrance {
    fn new(net: &'static Net, mode: u8) -> Self {
        let mut host = Host::new(net.vip, net.node, net.local, mode);
        let entry = NameEntry {
            name: 5,
            path_base: 0,
            pool: 0,
        };
        host.names.insert(NAME.to_vec(), entry);
        Self { host, net }
    }

    const fn key(&self) -> FlowKey {
        FlowKey {
            client: self.net.client,
            port_be: CLIENT_PORT,
            vip: 0,
        }
    }

    /// A packet through the programs of its side. Returns where it goes, or why it goes nowhere.
    fn run<const V6: bool>(&self, packet: &Bytes) -> Result<u32, DropReason> {
        let host = &self.host;
        let mut verdict = if packet.ifindex == PUBLIC {
            public::ingress::<_, _, 0, V6>(host, packet)
        } else {
            tunnel::ingress::<_, _, 0, V6>(host, packet)
        };
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
                stage::ROUTE => route::stage(host, packet, &mut work),
                stage::NODE_ANSWER => node_answer::stage(host, packet, &mut work),
                stage::CLIENT_CONTROL => public::control(host, packet, &mut work),
                stage::NODE_CONTROL => tunnel::control(host, packet, &mut work),
                other => panic!("stage {other}"),
            };
        }
    }

    fn client<const V6: bool>(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Bytes {
        let segment = from_client(self.net, flags, seq, ack);
        Bytes::new(&self.host, PUBLIC, skb::segment::<V6>(&segment, payload))
    }

    fn node<const V6: bool>(
        &self,
        to: &Header,
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) -> Bytes {
        let segment = Segment {
            source: to.destination,
            destination: to.source,
            source_port_be: to.destination_port_be,
            destination_port_be: to.source_port_be,
            seq,
            ack,
            flags,
            window: 2_000,
            options: [0; 3],
            option_words: 0,
            payload_len: 0,
        };
        Bytes::new(&self.host, TUNNEL, skb::segment::<V6>(&segment, payload))
    }
}

fn a_syn_is_answered_alike_at_both_hooks<const V6: bool>(net: &'static Net) {
    let entrance = Entrance::new(net, client_address::TRANSPARENT);
    let at_tc = entrance.client::<V6>(flag::SYN, CLIENT_ISN, 0, b"");
    let mut frame = vec![0; 14];
    frame.extend_from_slice(&at_tc.bytes.borrow());
    let at_xdp = Bytes::new(&entrance.host, PUBLIC, frame);

    assert_eq!(entrance.run::<V6>(&at_tc), Ok(PUBLIC));
    assert!(matches!(
        filter::<_, _, V6>(&entrance.host, &at_xdp),
        Filtered::Answer
    ));
    assert_eq!(at_tc.bytes.borrow()[..], at_xdp.bytes.borrow()[14..]);
    assert_right::<V6>(&at_tc);
    let answer = header::<V6>(&at_tc);
    assert_eq!(answer.flags, flag::SYN | flag::ACK);
    assert_eq!(answer.ack, CLIENT_ISN.wrapping_add(1));
    assert!(entrance.host.is_clean());
}

#[test]
fn a_syn_is_answered_alike_at_both_hooks_of_either_family() {
    a_syn_is_answered_alike_at_both_hooks::<false>(&V4);
    a_syn_is_answered_alike_at_both_hooks::<true>(&V6);
}

#[test]
fn a_damaged_syn_is_dropped_at_both_hooks() {
    let entrance = Entrance::new(&V4, client_address::TRANSPARENT);
    let at_tc = entrance.client::<false>(flag::SYN, CLIENT_ISN, 0, b"");
    at_tc.bytes.borrow_mut()[26] ^= 1;
    let mut frame = vec![0; 14];
    frame.extend_from_slice(&at_tc.bytes.borrow());
    let at_xdp = Bytes::new(&entrance.host, PUBLIC, frame);
    assert_eq!(entrance.run::<false>(&at_tc), Err(DropReason::BadChecksum));
    assert!(matches!(
        filter::<_, _, false>(&entrance.host, &at_xdp),
        Filtered::Drop(DropReason::BadChecksum)
    ));
}

/// From the hello on: a node is asked and answers, data passes both ways, both ends close, and nothing is left.
fn a_flow_from_route_to_close<const V6: bool>(net: &'static Net, mode: u8) {
    let entrance = Entrance::new(net, mode);
    let host = &entrance.host;
    let syn = entrance.client::<V6>(flag::SYN, CLIENT_ISN, 0, b"");
    entrance.run::<V6>(&syn).unwrap();
    let cookie = header::<V6>(&syn).seq;

    let hello = client_hello(NAME);
    let first = entrance.client::<V6>(
        flag::ACK | flag::PSH,
        CLIENT_ISN.wrapping_add(1),
        cookie.wrapping_add(1),
        &hello,
    );
    let syn = entrance.route::<V6>(&first, cookie, &hello);
    assert_eq!(syn.flags, flag::SYN);
    assert_eq!(syn.destination, net.node.address);
    let transparent = mode == client_address::TRANSPARENT;
    assert_eq!(syn.source, if transparent { net.client } else { net.local });
    assert_eq!(host.only_flow().unwrap().state, state::CONNECTING);

    let header_len = CLIENT_ISN.wrapping_sub(syn.seq);
    assert_eq!(header_len != 0, mode == client_address::PROXY_V2);
    let accepted = syn.seq.wrapping_add(1);
    let answer = entrance.node::<V6>(&syn, flag::SYN | flag::ACK, NODE_ISN, accepted, b"");
    assert_eq!(entrance.run::<V6>(&answer), Ok(TUNNEL));
    assert_eq!(host.only_flow().unwrap().state, state::REPLAYING);

    // The node acknowledges all that we answered for.
    let up = CLIENT_ISN.wrapping_add(1 + hello.len() as u32);
    let down = NODE_ISN + 1;
    let ack = entrance.node::<V6>(&syn, flag::ACK, down, up, b"hello back");
    assert_eq!(entrance.run::<V6>(&ack), Ok(PUBLIC));
    assert_eq!(host.only_flow().unwrap().state, state::SPLICED);
    assert_right::<V6>(&ack);
    let passed = header::<V6>(&ack);
    assert_eq!(passed.source, net.vip.address);
    assert_eq!(passed.destination, net.client);
    assert_eq!(passed.seq, cookie.wrapping_add(1));

    // Both close, the client first.
    let theirs = cookie.wrapping_add(11);
    let fin = entrance.client::<V6>(flag::FIN | flag::ACK, up, theirs, b"bye");
    assert_eq!(entrance.run::<V6>(&fin), Ok(TUNNEL));
    assert_right::<V6>(&fin);
    let passed = header::<V6>(&fin);
    assert_eq!((passed.seq, passed.ack), (up, down + 10));
    let end = up.wrapping_add(4);
    let fin = entrance.node::<V6>(&syn, flag::FIN | flag::ACK, down + 10, end, b"");
    assert_eq!(entrance.run::<V6>(&fin), Ok(PUBLIC));
    assert!(host.only_flow().is_some());
    let last = entrance.client::<V6>(flag::ACK, end, theirs.wrapping_add(1), b"");
    assert_eq!(entrance.run::<V6>(&last), Ok(TUNNEL));
    assert_eq!(*host.ended.borrow(), [close_reason::FINISHED]);
    assert!(host.is_clean());
}

/// A ClientHello with a server name and nothing else.
fn client_hello(name: &[u8]) -> Vec<u8> {
    let long = |length: usize| (length as u16).to_be_bytes();
    let mut entry = vec![0];
    entry.extend(long(name.len()));
    entry.extend(name);
    let mut list = long(entry.len()).to_vec();
    list.extend(entry);
    let mut extensions = vec![0, 0];
    extensions.extend(long(list.len()));
    extensions.extend(list);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(extensions.len()));
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend(long(body.len() + 4));
    record.extend([1, 0]);
    record.extend(long(body.len()));
    record.extend(body);
    record
}

/// A stream that is read into a buffer.
struct Stream<'a> {
    bytes: &'a [u8],
    name: &'a mut [u8; 256],
}

impl hello::Bytes for Stream<'_> {
    fn byte(&self, at: u32) -> u8 {
        self.bytes[at as usize]
    }

    fn word(&self, at: u32) -> u32 {
        let place = |i: u32| self.bytes.get((at + i) as usize).copied().unwrap_or(0);
        u32::from_be_bytes([0, 1, 2, 3].map(place))
    }

    fn put_name(&mut self, index: u32, byte: u8) {
        self.name[index as usize] = byte;
    }

    fn put_alpn(&mut self, _: u32, _: u8) {}
}

impl Entrance {
    /// Runs the stage that opens a connection on a hello that was read. Returns the SYN.
    fn route<const V6: bool>(&self, packet: &Bytes, cookie: u32, bytes: &[u8]) -> Header {
        let host = &self.host;
        let verdict = public::ingress::<_, _, 0, V6>(host, packet);
        assert!(matches!(verdict, Verdict::Next(stage::HELLO)));
        let slot = host.take_hello(&self.key(), |hello| {
            hello.client_isn = CLIENT_ISN;
            hello.entrance_isn = cookie;
            hello.state = hello_state::COLLECTING;
            hello.stored = bytes.len() as u32;
            hello.reader = Reader::START;
            let mut stream = Stream {
                bytes,
                name: &mut hello.server_name,
            };
            loop {
                match hello.reader.step(&mut stream, bytes.len() as u32) {
                    Progress::Continue => {}
                    progress => break assert_eq!(progress, Progress::Complete),
                }
            }
        });
        let mut work = host.work().unwrap();
        work.slot = slot;
        assert!(matches!(
            route::stage(host, packet, &mut work),
            Verdict::Redirect(TUNNEL)
        ));
        assert_right::<V6>(packet);
        header::<V6>(packet)
    }
}

#[test]
fn a_flow_of_each_mode_and_family() {
    for mode in [
        client_address::TRANSPARENT,
        client_address::PROXY_V2,
        client_address::MASQUERADE,
    ] {
        a_flow_from_route_to_close::<false>(&V4, mode);
        a_flow_from_route_to_close::<true>(&V6, mode);
    }
}
