//! A bench: programs, filled maps and interfaces, to which packets are handed one by one.
//!
//! What must hold of every answer is checked here once: a packet that is let through is untouched, one
//! that is sent on has right checksums and lengths and exactly the link-layer header its way needs.

use std::net::{IpAddr, SocketAddr};

use aya::maps::lpm_trie::Key;
use forwarder_common::abi::{
    Address, Endpoint, Flow, FlowKey, Hello, MaglevTable, NameEntry, Node, Path, Pool, Settings,
    Vip, address_v4, address_v6, balance, client_address, events, link, map, on_refuse,
};
use forwarder_common::name::Pattern;
use forwarder_common::verdict::{DropReason, REASONS};

use super::kernel::{Context, Entry, Kernel, KernelError, Outcome};
use super::maps::Maps;
use crate::command;
use crate::link_socket::{LARGEST, Layer, LinkSocket};
use crate::packet::{Checksums, Packet, Segment};

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT` (Linux `include/uapi/linux/pkt_cls.h`).
const ACTIONS: [(i32, Verdict); 3] = [
    (-1, Verdict::Pass),
    (2, Verdict::Drop),
    (7, Verdict::Redirect),
];
const ETHERNET: usize = 14;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NAME_TABLE: u16 = 7;
/// Paths of each route: as many as there are nodes, rounded up.
pub const PATHS_PER_ROUTE: u32 = 8;
/// Nodes of each address family.
pub const NODES: u32 = 3;
/// Keys of the cookies, slot by slot.
pub const COOKIE_KEYS: [[u64; 2]; 4] = [[11, 12], [21, 22], [31, 32], [41, 42]];
/// The first source port of the tunnel side.
pub const FIRST_SOURCE_PORT: u32 = 2_000;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Others may have it.
    Pass,
    /// It is gone.
    Drop,
    /// It was sent on, or back.
    Redirect,
}

/// Whether an interface has Ethernet headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It has.
    L2,
    /// It has not.
    L3,
}

/// The shape of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// The public interface.
    pub public: Link,
    /// The tunnel.
    pub tunnel: Link,
}

impl Shape {
    /// IPv4, Ethernet outside, a tunnel without.
    pub const COMMON: Self = Self {
        v6: false,
        public: Link::L2,
        tunnel: Link::L3,
    };

    /// Every shape.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let links = [Link::L2, Link::L3];
        let mut shapes = Vec::new();
        for v6 in [false, true] {
            for public in links {
                for tunnel in links {
                    shapes.push(Self { v6, public, tunnel });
                }
            }
        }
        shapes
    }
}

/// How a pool tells its nodes the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As source of the packets.
    Transparent,
    /// In a PROXY v2 header.
    ProxyV2,
    /// Not at all.
    Masquerade,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Transparent, Self::ProxyV2, Self::Masquerade];

    /// A name that leads to a pool of this mode.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transparent => "transparent.example.org",
            Self::ProxyV2 => "proxy.example.org",
            Self::Masquerade => "masquerade.example.org",
        }
    }

    /// The first path of that name.
    #[must_use]
    pub fn path_base(self) -> u32 {
        u32::from(self.number()) * PATHS_PER_ROUTE
    }

    fn number(self) -> u8 {
        match self {
            Self::Transparent => client_address::TRANSPARENT,
            Self::ProxyV2 => client_address::PROXY_V2,
            Self::Masquerade => client_address::MASQUERADE,
        }
    }
}

/// What a listener does with what it refuses; each has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// TLS alert and FIN: port 443.
    Alert,
    /// Reset: port 444.
    Reset,
    /// Silence: port 445.
    Drop,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 3] = [Self::Alert, Self::Reset, Self::Drop];

    /// The number of its listener.
    #[must_use]
    pub fn listener(self) -> u16 {
        match self {
            Self::Alert => 0,
            Self::Reset => 1,
            Self::Drop => 2,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Alert => on_refuse::ALERT,
            Self::Reset => on_refuse::RESET,
            Self::Drop => on_refuse::DROP,
        }
    }
}

/// What a program did with a packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet from its IP header on, if it was sent on or back.
    pub bytes: Option<Vec<u8>>,
    /// Copies that were sent into the tunnel, from their IP headers on.
    pub clones: Vec<Vec<u8>>,
    /// Reasons that were counted.
    pub reasons: Vec<DropReason>,
}

impl Seen {
    /// The segment that was sent on or back.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    #[track_caller]
    pub fn segment(&self) -> Segment {
        let Some(bytes) = &self.bytes else {
            panic!("nothing was sent: {:?} {:?}", self.verdict, self.reasons)
        };
        tcp(bytes)
    }

    /// That exactly this was sent, byte for byte, and nothing counted but these reasons.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn expect(&self, segment: &Segment, reasons: &[DropReason]) {
        let seen = self.segment();
        assert_eq!(&seen, segment);
        assert_eq!(
            self.bytes.as_ref(),
            Some(&segment.to_bytes()),
            "IP header of {seen:?}"
        );
        assert_eq!(self.reasons, reasons, "{seen:?}");
    }

    /// That the packet was dropped for this reason, without a word.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn dropped(&self, reason: DropReason) {
        assert_eq!(
            (self.verdict, &self.reasons[..]),
            (Verdict::Drop, &[reason][..])
        );
        assert!(self.clones.is_empty());
    }

    /// That the packet was let through and nothing counted.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn passed(&self) {
        assert_eq!((self.verdict, &self.reasons[..]), (Verdict::Pass, &[][..]));
        assert!(self.clones.is_empty());
    }

    /// Everything that was sent: the copies, then the packet.
    ///
    /// # Panics
    /// When something is not TCP.
    #[must_use]
    #[track_caller]
    pub fn all(&self) -> Vec<Segment> {
        self.clones
            .iter()
            .chain(&self.bytes)
            .map(|b| tcp(b))
            .collect()
    }
}

#[track_caller]
fn tcp(bytes: &[u8]) -> Segment {
    let packet = Packet::parse(bytes, false).expect("an IP packet");
    packet.tcp().expect("a TCP segment").clone()
}

/// Programs at work.
pub struct Bench {
    /// Their maps.
    pub maps: Maps,
    /// The shape in use.
    pub shape: Shape,
    /// Index of the public interface.
    pub public: u32,
    /// Index of the tunnel interface.
    pub tunnel: u32,
    /// Set, answers may have wrong checksums: for packets that had them.
    pub lenient: bool,
    kernel: Kernel,
    sniffer: LinkSocket,
    drops: [u64; REASONS],
    port: u16,
}

impl Bench {
    /// A bench of the common shape. The calling thread gets a network namespace of its own.
    ///
    /// # Panics
    /// When the kernel does not play along.
    #[must_use]
    pub fn new() -> Self {
        Self::sized(&[])
    }

    /// As [`Bench::new`], with other sizes for some maps.
    ///
    /// # Panics
    /// When the kernel does not play along.
    #[must_use]
    pub fn sized(sizes: &[(&'static str, u32)]) -> Self {
        crate::require_root().expect("the kernel programs can be run");
        let (public, tunnel, sniffer) = interfaces();
        let mut all = vec![
            (map::FLOWS, 4_096),
            (map::REVERSE, 4_096),
            (map::HELLOS, 256),
            (map::HELLO_INDEX, 256),
            (map::HELLO_FREE, 256),
            (map::SOURCE_PORTS, 1_024),
            (map::NAMES, 64),
            (map::PATHS, 64),
            (map::PATH_STATS, 64),
        ];
        for (name, size) in sizes {
            all.retain(|(known, _)| known != name);
            all.push((name, *size));
        }
        let of = |wanted| {
            let found = all.iter().find(|(name, _)| *name == wanted);
            found.map_or(0, |(_, size)| *size)
        };
        let mut kernel = Kernel::load(&all).unwrap_or_else(|error| panic!("{error:?}"));
        let mut maps = Maps::take(&mut kernel).expect("the maps of the ABI");
        fill(&mut maps, of(map::HELLOS), of(map::SOURCE_PORTS));
        let drops = maps.drops();
        let mut bench = Self {
            maps,
            shape: Shape::COMMON,
            public,
            tunnel,
            lenient: false,
            kernel,
            sniffer,
            drops,
            port: 40_000,
        };
        bench.reshape(Shape::COMMON);
        bench
    }

    /// Changes the shape. Flows of another shape can no longer be used.
    pub fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        for number in 0..2 * NODES {
            self.node(number, |_| {});
        }
    }

    /// Writes a node anew, changed.
    ///
    /// # Panics
    /// When the map cannot be written.
    pub fn node(&mut self, number: u32, change: impl FnOnce(&mut Node)) {
        let v6 = number >= NODES;
        let at = node_address(number);
        let mut node = Node {
            address: address(at.ip()),
            local: address(local(v6)),
            port_be: at.port().to_be(),
            mss: if v6 { 1_360 } else { 1_380 },
            ifindex: self.tunnel,
            link: match self.shape.tunnel {
                Link::L2 => link::L2,
                Link::L3 => link::L3,
            },
            pad: [0; 3],
            mtu: 1_420,
            pad2: 0,
        };
        change(&mut node);
        self.maps.nodes.set(number, node, 0).expect("NODES");
    }

    /// The number of the first, second or third node of the shape's family.
    #[must_use]
    pub fn node_number(&self, ordinal: u32) -> u32 {
        ordinal + if self.shape.v6 { NODES } else { 0 }
    }

    /// Its address.
    #[must_use]
    pub fn node_address(&self, ordinal: u32) -> SocketAddr {
        node_address(self.node_number(ordinal))
    }

    /// The entrance's address in the tunnel.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        local(self.shape.v6)
    }

    /// The claimed address of a listener.
    #[must_use]
    pub fn vip(&self, refusal: Refusal) -> SocketAddr {
        vip(self.shape.v6, refusal)
    }

    /// A client that was not used before.
    pub fn client_address(&mut self) -> SocketAddr {
        self.port += 1;
        SocketAddr::new(self.client_ip(), self.port)
    }

    fn client_ip(&self) -> IpAddr {
        let text = if self.shape.v6 {
            "2001:db8:86dd::9"
        } else {
            "8.0.0.9"
        };
        text.parse().expect("an address")
    }

    /// The key of a connection.
    #[must_use]
    pub fn flow_key(&self, client: SocketAddr, refusal: Refusal) -> FlowKey {
        FlowKey {
            client: address(client.ip()),
            port_be: client.port().to_be(),
            vip: vip_number(self.shape.v6, refusal),
        }
    }

    /// The buffer that a connection's hello is kept in, and its number.
    #[must_use]
    pub fn hello(&self, client: SocketAddr, refusal: Refusal) -> Option<(u32, Box<Hello>)> {
        let slot = self
            .maps
            .hello_index
            .get(&self.flow_key(client, refusal), 0)
            .ok()?;
        Some((slot, Box::new(self.maps.hellos.get(&slot, 0).ok()?)))
    }

    /// The flow of a connection.
    #[must_use]
    pub fn flow(&self, client: SocketAddr, refusal: Refusal) -> Option<Flow> {
        self.maps.flows.get(&self.flow_key(client, refusal), 0).ok()
    }

    /// Hands the public side a segment.
    #[track_caller]
    pub fn from_client(&mut self, segment: &Segment) -> Seen {
        self.public_packet(&segment.to_bytes())
    }

    /// Hands the tunnel side a segment.
    #[track_caller]
    pub fn from_node(&mut self, segment: &Segment) -> Seen {
        self.tunnel_packet(&segment.to_bytes())
    }

    /// Hands the public side an IP packet.
    #[track_caller]
    pub fn public_packet(&mut self, packet: &[u8]) -> Seen {
        let context = Context {
            ifindex: self.public,
            ..Context::default()
        };
        self.run(true, packet, context)
    }

    /// Hands the tunnel side an IP packet.
    #[track_caller]
    pub fn tunnel_packet(&mut self, packet: &[u8]) -> Seen {
        let context = Context {
            ifindex: self.tunnel,
            ..Context::default()
        };
        self.run(false, packet, context)
    }

    /// Hands a side an IP packet, and checks what must hold of any answer.
    ///
    /// # Panics
    /// When that does not hold.
    #[track_caller]
    pub fn run(&mut self, public: bool, packet: &[u8], context: Context) -> Seen {
        let own = if public {
            self.shape.public
        } else {
            self.shape.tunnel
        };
        let frame = if own == Link::L2 {
            [&ethernet(packet), packet].concat()
        } else {
            packet.to_vec()
        };
        let outcome = self
            .raw(public, &frame, context)
            .unwrap_or_else(|error| panic!("{error:?}"));
        let verdict = ACTIONS.iter().find(|(number, _)| *number == outcome.action);
        let Some((_, verdict)) = verdict else {
            panic!("action {}", outcome.action)
        };
        let clones = self
            .sent()
            .iter()
            .map(|frame| {
                let bytes = self.strip(frame, own, self.shape.tunnel);
                if self.shape.tunnel == Link::L2 {
                    // Nobody resolves a copy's neighbour: it must be there already.
                    assert_eq!(frame[..6], THEIRS, "addressed to the node");
                }
                sound(&bytes);
                bytes
            })
            .collect();
        let bytes = match verdict {
            Verdict::Pass => {
                assert_eq!(outcome.bytes, frame, "let through, but changed");
                None
            }
            Verdict::Drop => None,
            Verdict::Redirect => {
                let to = destination(&outcome.bytes);
                let back = to.is_some() && to == source(packet);
                let way = if back {
                    own
                } else if to == Some(self.client_ip()) {
                    self.shape.public
                } else {
                    self.shape.tunnel
                };
                let bytes = self.strip(&outcome.bytes, own, way);
                if back && own == Link::L2 {
                    assert_eq!(outcome.bytes[..6], THEIRS, "addressed to the sender");
                    assert_eq!(outcome.bytes[6..12], OURS);
                }
                if !self.lenient {
                    sound(&bytes);
                }
                Some(bytes)
            }
        };
        Seen {
            verdict: *verdict,
            bytes,
            clones,
            reasons: self.counted(),
        }
    }

    /// Whether a test run takes a packet: the kernel expects an Ethernet header before the IP header's
    /// whole length, whether there is one or not.
    #[must_use]
    pub fn takes(&self, public: bool, packet: &[u8]) -> bool {
        let link = if public {
            self.shape.public
        } else {
            self.shape.tunnel
        };
        let ip = if self.shape.v6 { 40 } else { 20 };
        link == Link::L2 && packet.len() >= ip || packet.len() >= ETHERNET + ip
    }

    /// Hands a side a frame, as the interface would have it, and checks nothing.
    pub fn raw(
        &self,
        public: bool,
        frame: &[u8],
        context: Context,
    ) -> Result<Outcome, KernelError> {
        let entry = match (public, self.shape.public, self.shape.tunnel) {
            (true, Link::L2, _) => Entry::PublicL2,
            (true, Link::L3, _) => Entry::PublicL3,
            (false, _, Link::L2) => Entry::TunnelL2,
            (false, _, Link::L3) => Entry::TunnelL3,
        };
        self.kernel.run(entry, frame, context)
    }

    /// Reasons counted since the last packet.
    fn counted(&mut self) -> Vec<DropReason> {
        let now = self.maps.drops();
        let reasons = DropReason::ALL
            .iter()
            .zip(now.iter().zip(&self.drops))
            .flat_map(|(reason, (now, before))| {
                std::iter::repeat_n(*reason, usize::try_from(now - before).unwrap_or_default())
            })
            .collect();
        self.drops = now;
        reasons
    }

    /// Frames that went into the tunnel since the last call.
    fn sent(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; LARGEST];
        let mut frames = Vec::new();
        while let Some(arrival) = self
            .sniffer
            .receive(&mut buffer)
            .expect("the tunnel's frames")
        {
            assert!(arrival.outgoing);
            frames.push(buffer[..arrival.length].to_vec());
        }
        frames
    }

    /// Takes the Ethernet header off. There must be one if the packet came with one, or leaves where one
    /// is needed: what came with one and leaves where none is used loses it in the kernel.
    #[track_caller]
    fn strip(&self, frame: &[u8], own: Link, way: Link) -> Vec<u8> {
        let has = own == Link::L2 || way == Link::L2;
        let at = if has { ETHERNET } else { 0 };
        let version = if self.shape.v6 { 6 } else { 4 };
        assert!(
            frame.len() > at && frame[at] >> 4 == version,
            "an IPv{version} packet at {at} of {frame:02x?}"
        );
        frame[at..].to_vec()
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a packet is to go, behind an Ethernet header or without one.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let ip = match frame.first() {
        Some(0x45 | 0x60) => frame,
        _ => frame.get(ETHERNET..)?,
    };
    Packet::parse(ip, true).map(|packet| packet.destination)
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    Packet::parse(packet, true).map(|packet| packet.source)
}

/// That a packet has right checksums, and as many bytes as it says.
#[track_caller]
fn sound(bytes: &[u8]) {
    let packet = Packet::parse(bytes, false);
    let Some(packet) = packet else {
        panic!("not a whole packet: {bytes:02x?}")
    };
    assert_eq!(packet.checksums, Checksums::Good, "{packet:?}");
    let length = match packet.destination {
        IpAddr::V4(_) => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        IpAddr::V6(_) => 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
    };
    assert_eq!(length, bytes.len(), "{packet:?}");
}

/// The Ethernet header that a packet arrives with.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = match packet.first().map(|byte| byte >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [8, 0],
    };
    [&OURS[..], &THEIRS, &kind].concat()
}

/// Two interfaces in a namespace of this thread's own, each with nobody at its other end.
fn interfaces() -> (u32, u32, LinkSocket) {
    // SAFETY: no pointers; only this thread changes its namespace.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(unshared, 0, "unshare: {}", std::io::Error::last_os_error());
    // Below /proc/sys/net a thread sees its own namespace: no packet but ours is to leave.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("a quiet namespace");
    let ip = |words: &str| {
        let mut command = command::command("ip").expect("the ip program");
        command::run(command.args(words.split(' '))).expect("an interface");
    };
    let index = |name: &str| {
        ip(&format!("link add {name} type veth peer name {name}-peer"));
        ip(&format!("link set {name} up"));
        ip(&format!("link set {name}-peer up"));
        let name = std::ffi::CString::new(name).expect("a name");
        // SAFETY: a C string that outlives the call.
        unsafe { libc::if_nametoindex(name.as_ptr()) }
    };
    let (public, tunnel) = (index("pub0"), index("tun0"));
    let sniffer = LinkSocket::open("tun0", Layer::Frame).expect("a packet socket");
    (public, tunnel, sniffer)
}

/// An address as the maps hold it.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => address_v4(ip.octets()),
        IpAddr::V6(ip) => address_v6(ip.octets()),
    }
}

fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint::new(address(at.ip()), at.port().to_be())
}

fn vip(v6: bool, refusal: Refusal) -> SocketAddr {
    let ip = if v6 {
        "2001:db8:ffff::7"
    } else {
        "203.0.113.7"
    };
    SocketAddr::new(ip.parse().expect("an address"), 443 + refusal.listener())
}

fn vip_number(v6: bool, refusal: Refusal) -> u16 {
    2 * refusal.listener() + u16::from(v6)
}

fn node_address(number: u32) -> SocketAddr {
    let text = if number < NODES {
        format!("8.0.10.{}:8443", number + 1)
    } else {
        format!("[fd00:0:86dd::{}]:8443", number - NODES + 1)
    };
    text.parse().expect("an address")
}

fn local(v6: bool) -> IpAddr {
    let text = if v6 { "fd00:0:86dd::99" } else { "8.0.10.99" };
    text.parse().expect("an address")
}

/// Three listeners that share names, a pool for each mode, and three nodes of each family in all of them.
fn fill(maps: &mut Maps, hellos: u32, ports: u32) {
    for refusal in Refusal::ALL {
        for v6 in [false, true] {
            let (at, number) = (vip(v6, refusal), vip_number(v6, refusal));
            let entry = Vip {
                address: address(at.ip()),
                port_be: at.port().to_be(),
                listener: refusal.listener(),
                table: NAME_TABLE,
                on_refuse: refusal.number(),
                pad: 0,
                mss: if v6 { 1_360 } else { 1_380 },
                pad2: [0; 3],
                ifindex: 0,
                pad3: 0,
            };
            maps.vips.set(u32::from(number), entry, 0).expect("VIPS");
            let key = endpoint(at);
            maps.vip_index
                .insert(key, u32::from(number), 0)
                .expect("VIP_INDEX");
        }
    }
    let half = |first| {
        let mut half = [0; 1_024];
        half[..forwarder_common::maglev::TABLE_SIZE].fill(first);
        half
    };
    let table = MaglevTable {
        v4: half(0),
        v6: half(NODES as u16),
    };
    maps.maglev.set(0, table, 0).expect("MAGLEV");
    for number in 0..2 * NODES {
        let key = endpoint(node_address(number));
        maps.node_index.insert(key, number, 0).expect("NODE_INDEX");
    }
    for mode in Mode::ALL {
        let number = u16::from(mode.number());
        pool(maps, number, 2 * NODES as u16, mode);
        name(maps, mode.name(), number, number);
    }
    // A pool without nodes, and a wildcard.
    pool(maps, 3, 0, Mode::Transparent);
    name(maps, "empty.example.org", 3, 3);
    name(maps, "*.wild.example.org", 0, 0);
    for (slot, key) in (0..).zip(COOKIE_KEYS) {
        maps.cookie_keys.set(slot, key, 0).expect("COOKIE_KEYS");
    }
    for slot in 0..hellos {
        maps.hello_free.push(slot, 0).expect("HELLO_FREE");
    }
    for port in 0..ports {
        maps.source_ports
            .push(FIRST_SOURCE_PORT + port, 0)
            .expect("SOURCE_PORTS");
    }
    let settings = Settings {
        reset_interval_ns: 0,
        reset_fill_ns: 0,
        syn_interval_us: 60_000_000,
        syns_per_node: 2,
        hello_steal_ms: 60_000,
        events: events::FLOWS | events::REFUSALS,
        hellos,
        pad: 0,
    };
    maps.settings.set(0, settings, 0).expect("SETTINGS");
}

fn pool(maps: &mut Maps, number: u16, nodes: u16, mode: Mode) {
    let pool = Pool {
        maglev: 0,
        nodes,
        client_address: mode.number(),
        balance: balance::SOURCE,
        pad: 0,
    };
    maps.pools.set(u32::from(number), pool, 0).expect("POOLS");
    for node in 0..nodes {
        let path = Path {
            listener: 0,
            route: number,
            pool: number,
            node,
            client_address: mode.number(),
            pad: [0; 7],
        };
        let index = u32::from(number) * PATHS_PER_ROUTE + u32::from(node);
        maps.paths.set(index, path, 0).expect("PATHS");
    }
}

fn name(maps: &mut Maps, text: &str, pool: u16, route: u16) {
    let entry = NameEntry {
        name: 100 + u32::from(route),
        path_base: route * PATHS_PER_ROUTE as u16,
        pool,
    };
    let (bits, key) = Pattern::parse(text).expect("a pattern").key(NAME_TABLE);
    maps.names
        .insert(&Key::new(bits, key), entry, 0)
        .expect("NAMES");
}
