//! A bench: programs, filled maps and interfaces, to which packets are handed one by one.
//!
//! What must hold of every answer is checked here once: a packet that is let through is untouched, one
//! that is sent on has right checksums and lengths and exactly the link-layer header its way needs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use forwarder_common::abi::{
    Address, Flow, FlowKey, Hello, NO_HOME, NameEntry, Node, PublicLink, SourceRule, link, map,
};
use forwarder_common::source_flows;
use forwarder_common::verdict::{DropReason, REASONS};

use super::blank::AnyMap;
use super::entrance::{self, NODES, address, fill, node_address, vip_number};
use super::kernel::{Context, Entry, KernelError, Outcome};
use super::lease::Lease;
use super::maps::Maps;
use super::seen::{Seen, Verdict, sound};
use super::shape::{Link, Mode, Refusal, Shape};
use crate::command;
use crate::link_socket::{LARGEST, Layer, LinkSocket};
use crate::packet::{Packet, Segment};

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT` (Linux `include/uapi/linux/pkt_cls.h`).
const ACTIONS: [(i32, Verdict); 3] = [
    (-1, Verdict::Pass),
    (2, Verdict::Drop),
    (7, Verdict::Redirect),
];
/// `XDP_DROP`, `XDP_PASS`, `XDP_TX` (Linux `include/uapi/linux/bpf.h`).
const XDP_ACTIONS: [(i32, Verdict); 3] = [
    (1, Verdict::Drop),
    (2, Verdict::Pass),
    (3, Verdict::Redirect),
];
const ETHERNET: usize = 14;
/// The hardware address of both interfaces.
pub const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LOOPBACK: u32 = 1;
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];

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
    /// Set, the armour stands in front of public Ethernet interfaces.
    pub armoured: bool,
    kernel: Lease,
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
            (map::WILDCARDS, 64),
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
        let kernel = Lease::take(&all).unwrap_or_else(|error| panic!("{error:?}"));
        let mut maps = Maps::open(&kernel).expect("the maps of the ABI");
        fill(
            &mut maps,
            of(map::FLOWS),
            of(map::HELLOS),
            of(map::SOURCE_PORTS),
        );
        let link = PublicLink { mac: OURS, pad: 0 };
        // A test run of the XDP program has come by the loopback interface.
        for ifindex in [LOOPBACK, public] {
            maps.public_links
                .insert(ifindex, link, 0)
                .expect("PUBLIC_LINKS");
        }
        let drops = maps.drops();
        let mut bench = Self {
            maps,
            shape: Shape::COMMON,
            public,
            tunnel,
            lenient: false,
            armoured: false,
            kernel,
            sniffer,
            drops,
            port: 40_000,
        };
        bench.reshape(Shape::COMMON);
        bench
    }

    /// Counts a flow of a source less, for a test that has removed one by itself.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn uncount(&mut self, client: &Address) {
        let digest = source_flows::digest(entrance::NAME_SECRET, client);
        let cells = (0..source_flows::ROWS).map(|row| source_flows::cell(digest, row));
        for at in cells.chain([source_flows::ALL]) {
            let cells = &mut self.maps.source_flows;
            let less = cells
                .get(&at, 0)
                .expect("a cell")
                .wrapping_add(source_flows::LESS);
            cells.set(at, less, 0).expect("a cell");
        }
    }

    /// That the flows of each source are counted as many as there are.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn assert_counted(&self) {
        let mut counted = vec![0_u32; source_flows::CELLS as usize];
        for key in self.maps.flows.keys() {
            let client = key.expect("a flow").client;
            let digest = source_flows::digest(entrance::NAME_SECRET, &client);
            for row in 0..source_flows::ROWS {
                counted[source_flows::cell(digest, row) as usize] += 1;
            }
            counted[source_flows::ALL as usize] += 1;
        }
        for (at, (cell, counted)) in self.maps.source_flows.iter().zip(counted).enumerate() {
            let cell = cell.expect("a cell");
            assert_eq!(cell as u32, counted, "flows in cell {at} of SOURCE_FLOWS");
        }
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
            local: address(entrance::local(v6)),
            port_be: at.port().to_be(),
            mss: if v6 { 1_360 } else { 1_380 },
            ifindex: self.tunnel,
            link: match self.shape.tunnel {
                Link::L2 => link::L2,
                Link::L3 => link::L3,
            },
            closed: 0,
            first: 0,
            transparent: 1,
            mtu: 1_420,
            homes: if self.shape.home {
                [NO_HOME, vip_number(v6, Refusal::Alert), NO_HOME, NO_HOME]
            } else {
                [NO_HOME; 4]
            },
        };
        change(&mut node);
        self.maps.nodes.set(number, node, 0).expect("NODES");
    }

    /// Makes a rule for a prefix of sources, of an address and a length in bits.
    ///
    /// # Panics
    /// When the map cannot be written.
    pub fn source_rule(&mut self, ip: IpAddr, bits: u32, kind: u32) {
        let bits = bits + if ip.is_ipv4() { 96 } else { 0 };
        let rule = SourceRule { kind, pad: 0 };
        let key = Key::new(bits, address(ip));
        self.maps
            .source_rules
            .insert(&key, rule, 0)
            .expect("SOURCE_RULES");
    }

    /// Lists a name or a wildcard in a table, under a number; it leads to the pool that shows clients' addresses.
    ///
    /// # Panics
    /// When the maps cannot be written.
    pub fn list(&mut self, table: u16, text: &str, number: u32) {
        let entry = NameEntry {
            name: number,
            path_base: 0,
            pool: u16::from(Mode::Transparent.number()),
        };
        entrance::name_in(&mut self.maps, table, text, entry);
    }

    /// The number of the first, second or third node of the shape's family.
    #[must_use]
    pub fn node_number(&self, ordinal: u32) -> u32 {
        ordinal + if self.shape.v6 { NODES } else { 0 }
    }

    /// How many reverse entries a connection of this mode has.
    #[must_use]
    pub fn reverse_entries(&self, mode: Mode) -> usize {
        usize::from(mode == Mode::Transparent && !self.shape.home)
    }

    /// Its address.
    #[must_use]
    pub fn node_address(&self, ordinal: u32) -> SocketAddr {
        node_address(self.node_number(ordinal))
    }

    /// The entrance's address in the tunnel.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        entrance::local(self.shape.v6)
    }

    /// The claimed address of a listener.
    #[must_use]
    pub fn vip(&self, refusal: Refusal) -> SocketAddr {
        entrance::vip(self.shape.v6, refusal)
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
        let armoured = public && own == Link::L2 && self.armoured;
        let at_driver = armoured.then(|| self.at_driver(&frame)).flatten();
        let (verdict, outcome) = at_driver.unwrap_or_else(|| {
            let outcome = self.raw(public, &frame, context);
            judged(&ACTIONS, outcome)
        });
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
            verdict,
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

    /// Hands a stage of the public side a frame, as if an entry had handed it on with what the last packet on this
    /// processor left.
    pub fn stage(&self, name: &str, frame: &[u8]) -> Result<Outcome, KernelError> {
        let context = Context {
            ifindex: self.public,
            ..Context::default()
        };
        self.kernel.run_program(name, frame, context)
    }

    /// Hands a frame to the armour. Nothing if it lets it through, which then is as it was.
    #[track_caller]
    pub fn at_driver(&self, frame: &[u8]) -> Option<(Verdict, Outcome)> {
        let (verdict, outcome) = judged(&XDP_ACTIONS, self.kernel.run_armour(frame));
        if verdict == Verdict::Pass {
            assert_eq!(outcome.bytes, frame, "let through, but changed");
            return None;
        }
        Some((verdict, outcome))
    }

    /// Every map of the programs, whatever it holds.
    pub fn any_maps(&self) -> Result<Vec<AnyMap>, KernelError> {
        self.kernel.maps()
    }

    /// What the programs took since the last call; see [`super::kernel::Kernel::spent`].
    pub fn spent(&self, idle: [Duration; 2]) -> Duration {
        self.kernel.spent(idle)
    }

    /// Passes over what was sent and counted since the last packet, for those that were handed in by [`Self::raw`].
    pub fn forget(&mut self) {
        self.sent();
        self.counted();
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

/// What an action means.
#[track_caller]
fn judged(actions: &[(i32, Verdict)], outcome: Result<Outcome, KernelError>) -> (Verdict, Outcome) {
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:?}"));
    let verdict = actions.iter().find(|(number, _)| *number == outcome.action);
    let Some((_, verdict)) = verdict else {
        panic!("action {}", outcome.action)
    };
    (*verdict, outcome)
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
    let lines = ["pub0", "tun0"].map(|name| {
        format!(
            "link add {name} address 02:00:00:00:00:01 type veth peer name {name}-peer\n\
             link set {name} up\nlink set {name}-peer up\n"
        )
    });
    let mut ip = command::command("ip").expect("the ip program");
    command::run_with_input(ip.args(["-batch", "-"]), &lines.concat()).expect("interfaces");
    let index = |name: &str| {
        let name = std::ffi::CString::new(name).expect("a name");
        // SAFETY: a C string that outlives the call.
        unsafe { libc::if_nametoindex(name.as_ptr()) }
    };
    let (public, tunnel) = (index("pub0"), index("tun0"));
    let sniffer = LinkSocket::open("tun0", Layer::Frame).expect("a packet socket");
    (public, tunnel, sniffer)
}

impl Drop for Bench {
    /// Whatever a test was about: no way of making or removing a flow forgets to count it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_counted();
        }
    }
}
