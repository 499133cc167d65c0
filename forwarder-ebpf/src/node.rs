//! Nodes: which one, how it is reached, and the SYN that opens a connection to it.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use forwarder_common::abi::{
    Address, FlowKey, Hello, Node, Pool, ReverseEntry, ReverseKey, balance, client_address,
};
use forwarder_common::abi::{is_v4, link, node_tag};
use forwarder_common::checksum::Sum;
use forwarder_common::cookie::{self, CookieOptions};
use forwarder_common::maglev::{TABLE_SIZE, client_hash};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::{flag, syn_option_words};
use forwarder_common::verdict::DropReason;

use crate::bounds::mask;
use crate::maps::{MAGLEV, NODES, PATHS, PORT_FLOWS, REVERSE, SETTINGS};
use crate::packet::Packet;
use crate::work::Work;
use crate::{clock, count, hops};

/// Nodes that are looked at for one that can take a flow.
const TRIES: u32 = 16;
/// The window of our SYN; the client's real one follows with the hello.
const SYN_WINDOW: u16 = 64_240;

/// A node that can take a flow.
pub struct Choice {
    /// Index of `PATHS`.
    pub path: u32,
    /// Index of `NODES`.
    pub number: u32,
    pub node: &'static Node,
    /// `client_address` of the pool.
    pub client_address: u8,
}

/// The first ordinal of a connection in its pool's table.
#[inline(always)]
pub fn first_ordinal(pool: &Pool, client: &Address) -> u32 {
    let hash = if pool.balance == balance::RANDOM {
        // SAFETY: no argument.
        unsafe { bpf_get_prandom_u32() }
    } else {
        client_hash(client)
    };
    let Some(table) = MAGLEV.get(pool.maglev) else {
        return 0;
    };
    let half = if is_v4(client) { &table.v4 } else { &table.v6 };
    let index = mask::<0x3ff>(u64::from(hash % TABLE_SIZE as u32)) as usize;
    // SAFETY: 1,024 ordinals.
    u32::from(unsafe { core::ptr::read_volatile(half.as_ptr().add(index)) })
}

/// The node at `ordinal`, if it is of the family, has a tunnel and takes new flows.
#[inline(always)]
fn usable(path_base: u32, ordinal: u32, v6: bool) -> Option<Choice> {
    let path = path_base + ordinal;
    let entry = PATHS.get(path)?;
    let number = u32::from(entry.node);
    let node = NODES.get(number)?;
    if node.ifindex == 0 || node.closed != 0 || is_v4(&node.address) == v6 {
        return None;
    }
    Some(Choice {
        path,
        number,
        node,
        client_address: entry.client_address,
    })
}

/// The next node for a hello, from its attempt on; `attempt` then says which it was.
#[inline(always)]
pub fn choose(hello: &mut Hello, pool: &Pool, v6: bool) -> Option<Choice> {
    let nodes = u32::from(pool.nodes);
    for _ in 0..TRIES {
        let attempt = hello.attempt;
        if attempt >= nodes || nodes == 0 {
            return None;
        }
        let ordinal = (hello.first_ordinal + attempt) % nodes;
        if let Some(choice) = usable(hello.path_base, ordinal, v6) {
            return Some(choice);
        }
        hello.attempt = attempt + 1;
    }
    None
}

/// The connection as this node will see it.
#[inline(always)]
pub fn reverse_key(
    key: &FlowKey,
    node: &Node,
    client_address: u8,
    source_port_be: u16,
) -> ReverseKey {
    ReverseKey {
        peer: if client_address == client_address::TRANSPARENT {
            key.client
        } else {
            node.local
        },
        port_be: source_port_be,
        node_tag: node_tag(&node.address, node.port_be),
    }
}

/// Why a connection could not be entered under a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NotEntered {
    /// Another connection of the node has the same ends.
    Clash,
    /// The table is full.
    Full,
}

/// What a map says when a key exists already.
pub const EEXIST: i32 = -17;

/// Enters the connection under a node.
#[inline(always)]
pub fn enter(
    key: &FlowKey,
    choice: &Choice,
    source_port_be: u16,
    public_link: u32,
) -> Result<(), NotEntered> {
    let reverse = reverse_key(key, choice.node, choice.client_address, source_port_be);
    let masked = choice.client_address != client_address::TRANSPARENT;
    if masked {
        let owner = port_slot(source_port_be).and_then(|slot| PORT_FLOWS.get_ptr_mut(slot));
        let Some(owner) = owner else {
            return Err(NotEntered::Full);
        };
        // SAFETY: a map value; the port is this connection's alone.
        unsafe { *owner = *key };
    }
    let entry = ReverseEntry {
        public_link,
        vip: key.vip,
        masked: u16::from(masked),
    };
    match REVERSE.insert(&reverse, &entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(NotEntered::Clash),
        Err(_) => Err(NotEntered::Full),
    }
}

#[inline(always)]
fn port_slot(port_be: u16) -> Option<u32> {
    Some(SETTINGS.get(0)?.port_slot(port_be))
}

/// The flow that an entry is of.
#[inline(always)]
pub fn flow_of(reverse: &ReverseKey, entry: &ReverseEntry) -> Option<FlowKey> {
    match reverse.flow(entry) {
        None => PORT_FLOWS.get(port_slot(reverse.port_be)?).copied(),
        flow => flow,
    }
}

/// The node-side initial sequence number: the PROXY header comes before the client's first byte, so that
/// the client's sequence numbers need no change.
#[inline(always)]
pub fn node_side_isn(hello: &Hello) -> u32 {
    hello.client_isn.wrapping_sub(hello.header_len)
}

/// Rebuilds the packet, whatever it was, as the SYN to a node and sends it. Returns the action.
#[inline(always)]
pub fn send_syn<const V6: bool>(
    packet: Packet,
    work: &Work,
    hello: &mut Hello,
    choice: &Choice,
    source_port_be: u16,
    now_ns: u64,
) -> i32 {
    let node = choice.node;
    let offered = CookieOptions::of_cookie(hello.entrance_isn);
    let client_mss = cookie::mss_of(offered.mss_index);
    let mss = if client_mss < node.mss {
        client_mss
    } else {
        node.mss
    };
    let (options, option_words) = syn_option_words(
        u32::from(mss),
        offered.sack,
        u32::from(offered.window_scale),
    );
    let transparent = choice.client_address == client_address::TRANSPARENT;
    let segment = Segment {
        source: if transparent {
            work.key.client
        } else {
            node.local
        },
        destination: node.address,
        source_port_be,
        destination_port_be: node.port_be,
        seq: node_side_isn(hello),
        ack: 0,
        flags: flag::SYN,
        window: SYN_WINDOW,
        options,
        option_words,
        payload_len: 0,
    };
    hello.syn_us = clock::us(now_ns);
    hello.syns = hello.syns.wrapping_add(1);
    hello.node_syns = hello.node_syns.wrapping_add(1);
    count::add!(NODE_STATS, choice.number, syns, 1);
    let headers = segment.headers::<V6>();
    let longest = work.l3 + if V6 { 72 } else { 52 };
    let length = work.l3 + headers.len;
    if !packet.resize(longest) || !packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO) {
        return count::drop(DropReason::KernelRefused);
    }
    if length != longest && !packet.resize(length) {
        return count::drop(DropReason::KernelRefused);
    }
    send_to(packet, node, &segment.source, work.l3 != 0)
}

/// Sends the finished packet, which comes from `source`, towards a node. Returns the action.
#[inline(always)]
pub fn send_to(packet: Packet, node: &Node, source: &Address, has_ethernet: bool) -> i32 {
    if node.ifindex == 0 {
        return count::drop(DropReason::LinkDown);
    }
    if node.link == link::L3 {
        return packet.redirect(node.ifindex);
    }
    if !has_ethernet && !packet.add_ethernet() {
        return count::drop(DropReason::KernelRefused);
    }
    hops::send(packet, node.ifindex, source, &node.address)
}

/// Sends the finished packet from a claimed address towards a client. Returns the action.
#[inline(always)]
pub fn send_to_client(
    packet: Packet,
    public_link: u32,
    local: &Address,
    client: &Address,
    has_ethernet: bool,
) -> i32 {
    if public_link & link::NO_HEADER != 0 {
        return packet.redirect(public_link & !link::NO_HEADER);
    }
    if !has_ethernet && !packet.add_ethernet() {
        return count::drop(DropReason::KernelRefused);
    }
    hops::send(packet, public_link, local, client)
}
