//! What the kernel programs and the daemon share: map names, keys, values, tail-call slots.
//!
//! Every type is `repr(C)`, made of integers only, without implicit padding, and its size is asserted.
//! A change to any of them raises [`ABI_VERSION`], which is part of the pin path, so that a daemon never
//! reads a map of another layout.
//!
//! Addresses are four 32-bit words as they stand in a packet (network order in memory); IPv4 is held as
//! `::ffff:a.b.c.d` (RFC 4291 2.5.5.2). A field whose name ends in `_be` is in network order.
//! Times named `_ms` are milliseconds of `CLOCK_MONOTONIC`, modulo 2^32.

use crate::cookie::CookieOptions;
use crate::node_options::NodeOptions;
use crate::pace::Pace;
use crate::tcp;

/// Layout of everything below. Part of the pin path: `<bpffs>/v6`.
pub const ABI_VERSION: u32 = 6;

/// An IP address as packet words; see the module's word on IPv4.
pub type Address = [u32; 4];

/// The third word of an IPv4 address in an [`Address`].
pub const V4_MAPPED: u32 = 0xffff_u32.to_be();

/// An [`Address`] from the four bytes of an IPv4 address.
#[must_use]
pub const fn address_v4(octets: [u8; 4]) -> Address {
    [0, 0, V4_MAPPED, u32::from_ne_bytes(octets)]
}

/// An [`Address`] from the sixteen bytes of an IPv6 address.
#[must_use]
pub const fn address_v6(o: [u8; 16]) -> Address {
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

/// Whether an [`Address`] is an IPv4 one.
#[must_use]
#[inline(always)]
pub const fn is_v4(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == V4_MAPPED
}

/// Map names, as they are pinned.
pub mod map {
    /// `HASH` [`super::Endpoint`] → `u32`: the claimed addresses and ports; value is an index of [`VIPS`].
    pub const VIP_INDEX: &str = "VIP_INDEX";
    /// `ARRAY` of `u32`, indexed by [`super::slot::of`]: what [`VIP_INDEX`] would say, for most packets.
    pub const VIP_SLOTS: &str = "VIP_SLOTS";
    /// `ARRAY` of [`super::Vip`].
    pub const VIPS: &str = "VIPS";
    /// `HASH` [`super::NameKey`] → [`super::NameEntry`]: the listed names that are no wildcards.
    pub const NAMES: &str = "NAMES";
    /// `LPM_TRIE` [`super::NAME_KEY_BYTES`] → [`super::NameEntry`]: the listed wildcards.
    pub const WILDCARDS: &str = "WILDCARDS";
    /// `ARRAY` of [`super::Pool`].
    pub const POOLS: &str = "POOLS";
    /// `ARRAY` of [`super::MaglevTable`].
    pub const MAGLEV: &str = "MAGLEV";
    /// `ARRAY` of [`super::Path`].
    pub const PATHS: &str = "PATHS";
    /// `HASH` [`super::Endpoint`] → `u32`: node address and port; value is an index of [`NODES`].
    pub const NODE_INDEX: &str = "NODE_INDEX";
    /// `ARRAY` of `u32`, indexed by [`super::slot::of`]: what [`NODE_INDEX`] would say, for most packets.
    pub const NODE_SLOTS: &str = "NODE_SLOTS";
    /// `ARRAY` of [`super::Node`].
    pub const NODES: &str = "NODES";
    /// `HASH` [`super::FlowKey`] → [`super::Flow`]: every connection that was spliced or is about to be.
    pub const FLOWS: &str = "FLOWS";
    /// `HASH` [`super::ReverseKey`] → `u32`, an index of [`VIPS`]: which claimed address the client of a transparent
    /// connection used, where that is none of [`super::Node::homes`].
    pub const REVERSE: &str = "REVERSE";
    /// `ARRAY` of [`super::ClosedSet`], indexed by `closed::set_of`: connections that have ended lately.
    pub const CLOSED: &str = "CLOSED";
    /// `ARRAY` of [`super::Hello`]: buffers for hellos that no node has acknowledged yet.
    pub const HELLOS: &str = "HELLOS";
    /// `HASH` [`super::FlowKey`] → `u32`: which buffer of [`HELLOS`] a connection uses.
    pub const HELLO_INDEX: &str = "HELLO_INDEX";
    /// `QUEUE` of `u32`: free buffers of [`HELLOS`]. Filled by the daemon when the map is made.
    pub const HELLO_FREE: &str = "HELLO_FREE";
    /// `LRU_HASH` [`super::FlowKey`] → `u32`, the cookie: connections whose hello lost its buffer, so that their next
    /// segment is answered with a reset.
    pub const HELLO_LOST: &str = "HELLO_LOST";
    /// `QUEUE` of `u32`: free source ports (host order) of the tunnel side, oldest first. Filled by the daemon.
    pub const SOURCE_PORTS: &str = "SOURCE_PORTS";
    /// `ARRAY` of [`super::FlowKey`], from [`super::Settings::first_port`] on: the flow that a source port serves, or
    /// served last.
    pub const PORT_FLOWS: &str = "PORT_FLOWS";
    /// `ARRAY(4)` of `[u64; 2]`: SipHash keys of the SYN cookies; see `cookie::key_slot`.
    pub const COOKIE_KEYS: &str = "COOKIE_KEYS";
    /// `LPM_TRIE` [`super::Address`] → [`super::SourceRule`]: what holds for connections from an address. IPv4 prefixes
    /// are 96 bits longer than they look.
    pub const SOURCE_RULES: &str = "SOURCE_RULES";
    /// `HASH` interface index → [`super::PublicLink`]: the public interfaces.
    pub const PUBLIC_LINKS: &str = "PUBLIC_LINKS";
    /// `ARRAY(1)` of [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// `PERCPU_ARRAY` of `u64`, indexed by `DropReason`.
    pub const DROPS: &str = "DROPS";
    /// `PERCPU_ARRAY` of [`super::PathStats`], indexed like [`PATHS`].
    pub const PATH_STATS: &str = "PATH_STATS";
    /// `PERCPU_ARRAY` of [`super::NodeStats`], indexed like [`NODES`].
    pub const NODE_STATS: &str = "NODE_STATS";
    /// `PERCPU_ARRAY` of [`super::ListenerStats`], indexed by listener number.
    pub const LISTENER_STATS: &str = "LISTENER_STATS";
    /// `RINGBUF` of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// `PERCPU_ARRAY` of `u64`, indexed by [`super::tally`].
    pub const TALLIES: &str = "TALLIES";
    /// `ARRAY` of [`crate::node_options::LeastMss`], indexed like [`VIPS`]: the smallest segments that the nodes behind
    /// it offered lately.
    pub const VIP_MSS: &str = "VIP_MSS";
    /// `PROG_ARRAY`: the stages of the slow path, indexed by [`super::stage`].
    pub const STAGES: &str = "STAGES";
}

/// Slots of [`map::VIP_SLOTS`] and [`map::NODE_SLOTS`]: which entry of an array an address and port belong to, without
/// a look-up in a hash table.
pub mod slot {
    use super::Address;

    /// How many, a power of two.
    pub const COUNT: u32 = 256;
    /// Nothing belongs into this slot.
    pub const NOTHING: u32 = 0;
    /// More than one does: the index by hash knows. Any other value is an index of the array, plus one, and nothing
    /// else belongs there.
    pub const SEVERAL: u32 = u32::MAX;

    /// The slot of an address and a port in network order.
    #[must_use]
    #[inline(always)]
    pub const fn of(address: &Address, port_be: u16) -> u32 {
        let [a, b, c, d] = *address;
        let word = a ^ b ^ c ^ d ^ port_be as u32;
        let half = word ^ word >> 16;
        (half ^ half >> 8) & (COUNT - 1)
    }

    /// What a slot says that said `slot`, once this index belongs there too.
    #[must_use]
    pub const fn with(slot: u32, index: u32) -> u32 {
        match slot {
            NOTHING => index + 1,
            _ => SEVERAL,
        }
    }
}

/// Slots of `STAGES`, and the names of the programs that belong there.
pub mod stage {
    /// Slot and program of each stage.
    pub const ALL: &[(u32, &str)] = &[
        (SYN, "stage_syn"),
        (HELLO, "stage_hello"),
        (PARSE, "stage_parse"),
        (ROUTE, "stage_route"),
        (REFUSE, "stage_refuse"),
        (PENDING, "stage_pending"),
        (NODE_ANSWER, "stage_node_answer"),
        (REPLAY, "stage_replay"),
        (ICMP, "stage_icmp"),
        (STORE, "stage_store"),
        (TOO_BIG, "stage_too_big"),
        (PROBE, "stage_probe"),
        (EXTENDED, "stage_extended"),
        (CLIENT_CONTROL, "stage_client_control"),
        (NODE_CONTROL, "stage_node_control"),
        (STRAY, "stage_stray"),
    ];
    /// Answers a SYN with a cookie.
    pub const SYN: u32 = 0;
    /// A segment of a connection without a flow.
    pub const HELLO: u32 = 1;
    /// Reads it, a bounded number of steps a call.
    pub const PARSE: u32 = 2;
    /// Finds route, pool and node, and opens the connection to it.
    pub const ROUTE: u32 = 3;
    /// Answers what is not forwarded.
    pub const REFUSE: u32 = 4;
    /// A client segment while the node has not answered, or has not acknowledged the hello.
    pub const PENDING: u32 = 5;
    /// The node's answer to our SYN.
    pub const NODE_ANSWER: u32 = 6;
    /// Sends PROXY header and hello to the node.
    pub const REPLAY: u32 = 7;
    /// Translates ICMP errors.
    pub const ICMP: u32 = 8;
    /// Keeps a segment of a hello.
    pub const STORE: u32 = 9;
    /// Tells a client that its segment is too big for the node.
    pub const TOO_BIG: u32 = 10;
    /// Asks the node of a flow whether it still has the connection.
    pub const PROBE: u32 = 11;
    /// A TCP header that does not follow a plain IP header: options, extension headers, fragments.
    pub const EXTENDED: u32 = 12;
    /// A client's SYN, FIN or reset of a flow.
    pub const CLIENT_CONTROL: u32 = 13;
    /// A node's FIN or reset of a flow.
    pub const NODE_CONTROL: u32 = 14;
    /// A node's segment of no flow.
    pub const STRAY: u32 = 15;
    /// Size of `STAGES`.
    pub const COUNT: u32 = 16;
}

/// Programs that are attached: ingress of a public or a tunnel interface, with or without an Ethernet header.
pub mod program {
    /// Ingress of a public Ethernet interface.
    pub const PUBLIC_L2: &str = "public_l2";
    /// Ingress of a public interface without link-layer header (ppp, venet, tun).
    pub const PUBLIC_L3: &str = "public_l3";
    /// Ingress of an Ethernet-like tunnel (veth, vxlan, gretap).
    pub const TUNNEL_L2: &str = "tunnel_l2";
    /// Ingress of a tunnel without link-layer header (wg, tailscale, tun).
    pub const TUNNEL_L3: &str = "tunnel_l3";
    /// XDP on a public Ethernet interface, while it is flooded.
    pub const ARMOUR: &str = "armour";
    /// The same for drivers that hand over frames in several buffers (Linux 5.18).
    pub const ARMOUR_FRAGS: &str = "armour_frags";
}

/// Slots of [`map::TALLIES`].
pub mod tally {
    /// Events that did not fit into the ring.
    pub const EVENTS_LOST: u32 = 0;
    /// Armour: not of a claimed address, or not TCP; left to the next hook.
    pub const XDP_FOREIGN: u32 = 1;
    /// Armour: of an open flow; left to the next hook.
    pub const XDP_FLOW: u32 = 2;
    /// Armour: a hello, or what needs a closer look; left to the next hook.
    pub const XDP_HANDED_ON: u32 = 3;
    /// Armour: SYNs answered with a cookie.
    pub const XDP_ANSWERED: u32 = 4;
    /// Armour: dropped, with a count under its reason.
    pub const XDP_DROPPED: u32 = 5;
    /// Slots and labels of what the armour did with a frame.
    pub const XDP: &[(u32, &str)] = &[
        (XDP_FOREIGN, "foreign"),
        (XDP_FLOW, "flow"),
        (XDP_HANDED_ON, "handed_on"),
        (XDP_ANSWERED, "answered"),
        (XDP_DROPPED, "dropped"),
    ];
    /// Size of the map.
    pub const COUNT: u32 = 8;
}

macro_rules! abi {
    ($($(#[$meta:meta])* $size:literal struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty,)+ }

            const _: () = assert!(size_of::<$name>() == $size);
            const _: () = assert!($(size_of::<$ty>() +)+ 0 == $size, "implicit padding");

            // SAFETY: integers and arrays of integers only, no padding (asserted above): any bytes are valid.
            #[cfg(feature = "user")]
            #[allow(clippy::undocumented_unsafe_blocks, reason = "documented above")]
            unsafe impl aya::Pod for $name {}
        )+
    };
}

abi! {
    /// An address and a port: the key of claimed addresses and of nodes.
    24 struct Endpoint {
        /// The address.
        address: Address,
        /// The port, network order.
        port_be: u16,
        /// Zero.
        pad: [u16; 3],
    }

    /// One claimed address and port. Its index is stable while flows use it.
    40 struct Vip {
        /// The address clients use.
        address: Address,
        /// The port clients use, network order.
        port_be: u16,
        /// Number of the listener it belongs to.
        listener: u16,
        /// Name table of the listener: part of each name's key.
        table: u16,
        /// What to do with what is not forwarded: [`on_refuse`].
        on_refuse: u8,
        /// Not 0: it is no longer configured, and takes no new connection. Its open flows go on; everything else is
        /// the host's.
        closed: u8,
        /// MSS that is advertised to clients: the smallest of the tunnels behind this listener.
        mss: u16,
        /// Zero.
        pad2: [u16; 3],
        /// Interface the address belongs to; 0 when unknown. Not used to match packets.
        ifindex: u32,
        /// Zero.
        pad3: u32,
    }

    /// A listed name in a table, by its digest: see `name_key`.
    16 struct NameKey {
        /// The first 64 bits of the digest.
        digest: u64,
        /// 48 further bits of the digest, and in the low 16 the table.
        more_and_table: u64,
    }

    /// What a listed name leads to.
    8 struct NameEntry {
        /// Number of the listed name or pattern, for events and `status`.
        name: u32,
        /// First [`Path`] of (this listener, this route); the node's ordinal is added.
        path_base: u16,
        /// Index of [`map::POOLS`].
        pool: u16,
    }

    /// A set of nodes. Its ordinals are positions behind `path_base`.
    16 struct Pool {
        /// Index of [`map::MAGLEV`]: written last, so that a new table is seen whole.
        maglev: u32,
        /// How many nodes.
        nodes: u16,
        /// [`client_address`].
        client_address: u8,
        /// [`balance`].
        balance: u8,
        /// Until then, ns of `CLOCK_MONOTONIC`, new connections are refused because no node is left. It is
        /// renewed while that holds, so that it ends by itself when nobody renews it.
        refuse_until_ns: u64,
    }

    /// Maglev look-up tables of one pool, a half for each address family: node ordinals. Only the first
    /// `maglev::TABLE_SIZE` of a half are used.
    4096 struct MaglevTable {
        /// Ordinals of the nodes with an IPv4 address.
        v4: [u16; 1024],
        /// Ordinals of the nodes with an IPv6 address.
        v6: [u16; 1024],
    }

    /// A listener, route and node: what one flow's counters are kept under.
    16 struct Path {
        /// Listener number.
        listener: u16,
        /// Route number.
        route: u16,
        /// Index of [`map::POOLS`].
        pool: u16,
        /// Index of [`map::NODES`].
        node: u16,
        /// [`client_address`] of the pool.
        client_address: u8,
        /// Zero.
        pad: [u8; 7],
    }

    /// A node: where and how it is reached.
    56 struct Node {
        /// Its address.
        address: Address,
        /// Source address towards it, for `proxy-v2` and `masquerade`.
        local: Address,
        /// Its port, network order.
        port_be: u16,
        /// MSS of the path to it: the MTU of tunnel or public interface, less 40 (IPv4) or 60 (IPv6).
        mss: u16,
        /// Interface that leads to it; 0 while there is none.
        ifindex: u32,
        /// [`link`]: whether that interface has an Ethernet header.
        link: u8,
        /// Not 0: it takes no new flow. Its open ones go on.
        closed: u8,
        /// Which of its `homes` is looked at first. Any will do.
        first: u8,
        /// Not 0: it sees the addresses of clients in some of its connections.
        transparent: u8,
        /// MTU of that interface.
        mtu: u32,
        /// Indices of [`map::VIPS`], or [`NO_HOME`]: what clients of its transparent connections connect to. One goes
        /// only when no connection is left that it tells apart.
        homes: [u16; HOMES],
    }

    /// What holds for connections from a prefix of addresses; the longest prefix decides.
    8 struct SourceRule {
        /// [`source_rule`].
        kind: u32,
        /// Zero.
        pad: u32,
    }

    /// A public interface.
    8 struct PublicLink {
        /// Its hardware address; zeros if it has none.
        mac: [u8; 6],
        /// Zero.
        pad: u16,
    }

    /// A connection as the client sees it.
    20 struct FlowKey {
        /// The client's address.
        client: Address,
        /// The client's port, network order.
        port_be: u16,
        /// Index of [`map::VIPS`].
        vip: u16,
    }

    /// A connection as its node sees it, which sees the client's address.
    20 struct ReverseKey {
        /// The client's address.
        client: Address,
        /// The client's port, network order.
        port_be: u16,
        /// Index of [`map::NODES`].
        node: u16,
    }

    /// One connection. Each field has one writer, named in brackets; `(once)` fields are written before
    /// the state that publishes them.
    64 struct Flow {
        /// [public, once] The client's initial sequence number.
        client_isn: u32,
        /// [public, once] Ours towards the client: the SYN cookie, with the client's options in its low byte.
        entrance_isn: u32,
        /// [tunnel, once] What is added to the node's sequence numbers: `entrance_isn − node_isn`.
        delta: u32,
        /// [public, once] Number of the listed name.
        name: u32,
        /// [public, once] When the flow was made, ms. With `entrance_isn` it makes the flow's unique id.
        opened_ms: u32,
        /// [both] When a segment last passed, ms. Either side writes the present, so a lost write is harmless.
        seen_ms: u32,
        /// [public] Sequence number that follows the client's FIN.
        client_end: u32,
        /// [tunnel; made by public] Sequence number that follows all that the node has sent, its SYN and FIN included,
        /// in the client's view. The client can have acknowledged no more.
        node_end: u32,
        /// [public] Bytes of the node's that the client has acknowledged; low half + `entrance_isn` = its ACK.
        client_acked: u64,
        /// [tunnel] Bytes of the client's that the node has acknowledged; low half + `client_isn` = its ACK.
        node_acked: u64,
        /// [public] Public interface that the client's last segment came in by; [`link::NO_HEADER`] is set when that has
        /// no Ethernet header.
        public_link: u32,
        /// [under the hello's lock] Index of [`map::NODES`]: the node that was asked last, and answered.
        node: u16,
        /// [under the hello's lock] Index of [`map::PATHS`] with that node.
        path: u16,
        /// [public, once] Source port towards the node, network order.
        source_port_be: u16,
        /// [public, once] [`client_address`] of the pool.
        client_address: u8,
        /// [tunnel] [`state`]; made by public.
        state: u8,
        /// [tunnel, once] What the node offered: [`NodeOptions`].
        node_options: u16,
        /// [public] [`mark`] bits of what the client sent.
        client_marks: u8,
        /// [tunnel] [`mark`] bits of what the node sent.
        node_marks: u8,
    }

    /// A connection that has ended.
    16 struct Closed {
        /// `closed::digest` of its [`FlowKey`]; in the lowest bit, whether FINs of both ends ended it.
        digest: u64,
        /// Its cookie, ours towards the client.
        entrance_isn: u32,
        /// When it ended, ms.
        closed_ms: u32,
    }

    /// Connections that have ended, of which a place is the next one's when it is the oldest.
    64 struct ClosedSet {
        /// They stand in no order.
        ways: [Closed; 4],
    }

    /// A hello that is being collected or that no node has acknowledged yet. Guarded by `users`.
    20_476 struct Hello {
        /// Try-lock: incremented on entry; whoever then reads 1 is alone.
        users: u32,
        /// The client's initial sequence number.
        client_isn: u32,
        /// Our cookie.
        entrance_isn: u32,
        /// [`hello_state`].
        state: u32,
        /// Bytes kept, in order from the first byte of the stream; early data included.
        stored: u32,
        /// When the buffer was taken, ms.
        started_ms: u32,
        /// When a segment last changed it, ms.
        touched_ms: u32,
        /// When the last SYN went to a node, µs modulo 2^32.
        syn_us: u32,
        /// SYNs sent, over all nodes.
        syns: u32,
        /// SYNs sent to the present node.
        node_syns: u32,
        /// Nodes tried, the present one included.
        attempt: u32,
        /// Ordinal of the first node chosen.
        first_ordinal: u32,
        /// Client segments that carried the hello.
        segments: u32,
        /// The client's last window, as sent (not scaled).
        window: u32,
        /// Length of the PROXY header that stands right before the hello.
        header_len: u32,
        /// First path of the route, and the pool (as in [`NameEntry`]).
        path_base: u32,
        /// Index of [`map::POOLS`].
        pool: u32,
        /// Number of the listed name.
        name: u32,
        /// `DropReason` of a refusal.
        refused: u32,
        /// The longest piece of it that its node takes.
        piece: u32,
        /// Challenges of the node that were answered since the client last moved things on.
        challenges: u32,
        /// How often it was sent to the node.
        pace: Pace,
        /// The connection this buffer belongs to, so that another may take it over.
        owner: FlowKey,
        /// The reader's state.
        reader: crate::hello::Reader,
        /// The server name, lower case.
        server_name: [u8; 256],
        /// The first ALPN protocol offered, GREASE left out.
        alpn: [u8; 32],
        /// PROXY header (right-aligned in the first [`HELLO_PREFIX`] bytes), then the stream, then slack.
        bytes: [u8; HELLO_BYTES],
    }

    /// Knobs of the data path.
    64 struct Settings {
        /// SipHash key of [`NameKey`]: random, made with the maps, and the same for as long as they exist.
        name_secret: [u64; 2],
        /// Resets for unknown flows, per CPU: ns that one of them costs (`token_bucket::Limit`).
        reset_interval_ns: u64,
        /// The same bucket's depth, ns.
        reset_fill_ns: u64,
        /// Least time between two SYNs to nodes for one flow, and until a hello is sent again ([`Pace`]), µs.
        syn_interval_us: u32,
        /// SYNs to one node before the next is tried.
        syns_per_node: u32,
        /// Age from which on an incomplete hello may lose its buffer to any other, ms.
        hello_steal_ms: u32,
        /// How long a hello may take from its first byte on, ms.
        hello_timeout_ms: u32,
        /// [`events`] bits.
        events: u32,
        /// Number of entries of [`map::HELLOS`].
        hellos: u32,
        /// The first source port towards nodes: the one that [`map::PORT_FLOWS`] begins with.
        first_port: u32,
        /// Not 0: programs of an earlier layout are attached behind these. What these do not know is theirs.
        predecessor: u32,
    }

    /// Counters of a path. Bytes are of whole packets from the IP header on.
    72 struct PathStats {
        /// Packets client → node.
        up_packets: u64,
        /// Bytes client → node.
        up_bytes: u64,
        /// Packets node → client.
        down_packets: u64,
        /// Bytes node → client.
        down_bytes: u64,
        /// Flows the node accepted.
        opened: u64,
        /// Flows that ended by FIN both ways.
        closed: u64,
        /// Flows that ended by a reset.
        reset: u64,
        /// Flows that no node accepted.
        failed: u64,
        /// Times a hello or part of it was sent again to the node.
        replays: u64,
    }

    /// Counters of a node.
    176 struct NodeStats {
        /// SYNs sent to it.
        syns: u64,
        /// SYNs it left unanswered so that another node was tried.
        syn_timeouts: u64,
        /// SYNs it answered with a reset.
        syn_resets: u64,
        /// Flows it accepted.
        accepted: u64,
        /// Sum of the times from SYN to SYN-ACK, µs.
        connect_us: u64,
        /// Flows by that time: bucket `i` counts those of at most 2^i × 250 µs; the last has no bound.
        connect_buckets: [u64; 16],
        /// Its segments that belonged to no flow of its own.
        strays: u64,
    }

    /// Counters of a listener.
    96 struct ListenerStats {
        /// SYNs seen.
        syns: u64,
        /// Cookies sent.
        cookies: u64,
        /// Connections whose first data carried a valid cookie.
        cookies_valid: u64,
        /// Segments of unknown connections without a valid cookie.
        cookies_invalid: u64,
        /// ClientHellos read to the end.
        hellos: u64,
        /// Their bytes.
        hello_bytes: u64,
        /// Their segments.
        hello_segments: u64,
        /// Sum of the times from first to last segment of a hello, ms.
        hello_ms: u64,
        /// Flows made.
        opened: u64,
        /// Connections refused.
        refused: u64,
        /// Packets seen on the claimed address and port.
        packets: u64,
        /// Their bytes.
        bytes: u64,
    }

    /// A record of the event ring; `name_len` bytes of `name` are set.
    384 struct Event {
        /// [`event_kind`].
        kind: u32,
        /// `DropReason` of a refusal, [`close_reason`] of an end.
        reason: u32,
        /// When, ns of `CLOCK_MONOTONIC`.
        time_ns: u64,
        /// The connection.
        flow: FlowKey,
        /// Number of the listed name; `u32::MAX` when none matched.
        name_id: u32,
        /// [`map::PATHS`] index; `u32::MAX` when none was chosen.
        path: u32,
        /// Opened: from SYN to the node to its answer, µs. Closed: how long it was open, ms.
        duration: u32,
        /// Opened: from first to last segment of the hello, ms.
        hello_ms: u32,
        /// Length of `name`.
        name_len: u32,
        /// Bytes client → node, acknowledged; opened and refused: bytes of the hello, early data included.
        up_bytes: u64,
        /// Bytes node → client, acknowledged.
        down_bytes: u64,
        /// Segments of the hello.
        hello_segments: u32,
        /// SYNs it took.
        syns: u32,
        /// `Flow::unique_id`; 0 for a refusal.
        unique_id: u64,
        /// The server name the client sent, lower case.
        name: [u8; 256],
        /// Zero.
        pad: [u64; 5],
    }
}

/// Bytes before the stream in [`Hello::bytes`], for the PROXY header.
pub const HELLO_PREFIX: usize = 512;
/// The longest stream that is kept: a record of 2^14 bytes with its header, and room for one more segment, so that a
/// sender with the last part of it is not told a window smaller than that. A multiple of the unit of our windows.
pub const HELLO_CAP: usize = 17_920;
/// Size of [`Hello::bytes`]: prefix, stream, and slack, because the verifier sees offset and length apart.
pub const HELLO_BYTES: usize = HELLO_PREFIX + HELLO_CAP + 1_584;
/// Size of a wildcard's key without its prefix length: the most an LPM trie takes.
pub const NAME_KEY_BYTES: usize = 256;

/// [`Flow::state`].
pub mod state {
    /// The node has not answered yet; client data is held back.
    pub const CONNECTING: u8 = 0;
    /// The node answered; the hello was sent to it and is kept until it acknowledges it.
    pub const REPLAYING: u8 = 1;
    /// The node has everything we held: both ends talk to each other.
    pub const SPLICED: u8 = 2;
}

/// [`Flow::client_marks`] and [`Flow::node_marks`].
pub mod mark {
    /// A FIN was seen, and `client_end`/`node_end` follows it.
    pub const FIN: u8 = 1;
    /// A reset was seen that did not match exactly. Cleared when the sender goes on.
    pub const RESET: u8 = 2;
    /// The node was heard after a SYN in the client's name: it has the connection.
    pub const ALIVE: u8 = 4;
    /// A SYN came in the client's name. Cleared when the client goes on.
    pub const SYN: u8 = 8;
    /// In `client_marks`, with [`SYN`]: the bits from here on are the tick in which the node was last asked
    /// (`Flow::client_syn`).
    pub const TICK_SHIFT: u32 = 5;
    /// With [`RESET`]: once the other side expects just `client_end`/`node_end`, that reset is exact for it.
    pub const RESET_AT_END: u8 = 16;
}

/// [`Hello::state`].
pub mod hello_state {
    /// More of it is expected.
    pub const COLLECTING: u32 = 0;
    /// It was judged and a flow exists.
    pub const ROUTED: u32 = 1;
    /// It was judged and refused.
    pub const REFUSED: u32 = 2;
    /// As [`ROUTED`], and its node has answered.
    pub const ANSWERED: u32 = 3;
}

/// [`Vip::on_refuse`].
pub mod on_refuse {
    /// TLS alert `unrecognized_name` (RFC 6066 3), then FIN.
    pub const ALERT: u8 = 0;
    /// TCP reset.
    pub const RESET: u8 = 1;
    /// Silence.
    pub const DROP: u8 = 2;
}

/// [`Pool::client_address`].
pub mod client_address {
    /// The node sees the client's address as source.
    pub const TRANSPARENT: u8 = 0;
    /// The node sees our tunnel address, and a PROXY protocol v2 header first.
    pub const PROXY_V2: u8 = 1;
    /// The node sees our tunnel address.
    pub const MASQUERADE: u8 = 2;
}

/// [`Pool::balance`].
pub mod balance {
    /// By the client's address: the same client meets the same node.
    pub const SOURCE: u8 = 0;
    /// By chance.
    pub const RANDOM: u8 = 1;
}

/// [`Node::link`].
pub mod link {
    /// No link-layer header.
    pub const L3: u8 = 0;
    /// An Ethernet header.
    pub const L2: u8 = 1;
    /// In [`super::Flow::public_link`]: the interface has no Ethernet header.
    pub const NO_HEADER: u32 = 1 << 31;
}

/// [`SourceRule::kind`].
pub mod source_rule {
    /// Somebody out there: may connect.
    pub const ELSEWHERE: u32 = 0;
    /// An address of this machine, or one that is claimed, or a broadcast address of its networks.
    pub const OWN: u32 = 1;
    /// A node.
    pub const NODE: u32 = 2;
    /// Reached by a tunnel.
    pub const TUNNEL: u32 = 3;
}

/// [`Event::kind`].
pub mod event_kind {
    /// A node accepted a flow.
    pub const OPENED: u32 = 1;
    /// A flow ended.
    pub const CLOSED: u32 = 2;
    /// A connection was refused.
    pub const REFUSED: u32 = 3;
}

/// [`Event::reason`] of a closed flow.
pub mod close_reason {
    /// FIN both ways, both acknowledged.
    pub const FINISHED: u32 = 0;
    /// The client reset it.
    pub const CLIENT_RESET: u32 = 1;
    /// The node reset it.
    pub const NODE_RESET: u32 = 2;
    /// No node accepted it.
    pub const NO_NODE: u32 = 3;
    /// The sweeper removed it: idle too long.
    pub const IDLE: u32 = 4;
    /// The node accepted it, did not acknowledge the hello, and the hello is no longer kept.
    pub const UNCONFIRMED: u32 = 6;
}

/// [`Settings::events`].
pub mod events {
    /// Flows that open and close.
    pub const FLOWS: u32 = 1;
    /// Connections that are refused.
    pub const REFUSALS: u32 = 2;
    /// Bytes in [`super::map::EVENTS`] from which on its reader is woken; until then it looks by itself.
    pub const WAKE_BYTES: u64 = 128 << 10;
}

/// "No name" and "no path" in an [`Event`].
pub const NONE: u32 = u32::MAX;

/// How many [`Node::homes`] there are.
pub const HOMES: usize = 4;
/// A place of [`Node::homes`] that is free.
pub const NO_HOME: u16 = u16::MAX;

/// Whether two addresses are one, without a branch for each word.
#[must_use]
#[inline(always)]
pub const fn same(one: &Address, other: &Address) -> bool {
    let [a, b, c, d] = *one;
    let [e, f, g, h] = *other;
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

impl Node {
    /// Whether the claimed address is one of its homes.
    #[must_use]
    #[inline(always)]
    pub const fn is_home(&self, vip: u16) -> bool {
        let [a, b, c, d] = self.homes;
        vip == a || vip == b || vip == c || vip == d
    }
}

impl Flow {
    /// Whether both are one connection, at whatever time.
    #[must_use]
    #[inline(always)]
    pub const fn is_same(&self, other: &Self) -> bool {
        self.client_isn == other.client_isn
            && self.entrance_isn == other.entrance_isn
            && self.opened_ms == other.opened_ms
    }

    /// What the node offered in its SYN-ACK.
    #[inline(always)]
    pub const fn node_options(&self) -> NodeOptions {
        NodeOptions(self.node_options)
    }

    /// The window scale that the client offered, or [`tcp::NO_SCALE`].
    #[must_use]
    #[inline(always)]
    pub const fn client_scale(&self) -> u32 {
        CookieOptions::of_cookie(self.entrance_isn).window_scale as u32
    }

    /// A window of the client's as its node is to read it: the node was offered the client's own scale, so that nothing
    /// changes unless the node took none.
    #[must_use]
    #[inline(always)]
    pub const fn window_for_node(&self, window: u16) -> u16 {
        if self.node_options().scale() == tcp::NO_SCALE {
            tcp::rescale(window, self.client_scale(), tcp::NO_SCALE)
        } else {
            window
        }
    }

    /// A window of the node's as the client is to read it, which was told [`tcp::ENTRANCE_SCALE`] if it offered one.
    #[must_use]
    #[inline(always)]
    pub const fn window_for_client(&self, window: u16) -> u16 {
        let told = if self.client_scale() == tcp::NO_SCALE {
            tcp::NO_SCALE
        } else {
            tcp::ENTRANCE_SCALE
        };
        tcp::rescale(window, self.node_options().scale(), told)
    }

    /// Whether the node sees the client's address.
    #[must_use]
    #[inline(always)]
    pub const fn is_transparent(&self) -> bool {
        self.client_address == client_address::TRANSPARENT
    }

    /// Whether this is a flow whose node sees our address, and this source port.
    #[must_use]
    #[inline(always)]
    pub const fn is_served_by(&self, source_port_be: u16) -> bool {
        self.source_port_be == source_port_be && !self.is_transparent()
    }

    /// Whether this is a flow to that node, which sees the client's address.
    #[must_use]
    #[inline(always)]
    pub const fn is_seen_by(&self, node: u16) -> bool {
        self.node == node && self.is_transparent()
    }
}

impl Settings {
    /// The index of a source port in [`map::PORT_FLOWS`].
    #[must_use]
    #[inline(always)]
    pub const fn port_slot(&self, port_be: u16) -> u32 {
        (u16::from_be(port_be) as u32).wrapping_sub(self.first_port)
    }
}

impl Endpoint {
    /// An endpoint.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: Address, port_be: u16) -> Self {
        Self {
            address,
            port_be,
            pad: [0; 3],
        }
    }
}
