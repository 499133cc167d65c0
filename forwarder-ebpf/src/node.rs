//! Nodes: which one, how it is reached, and the SYN that opens a connection to it.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use forwarder_common::abi::{
    Address, Flow, FlowKey, HOMES, Hello, NO_HOME, Node, Pool, ReverseKey, balance, client_address,
    is_v4, link, same,
};
use forwarder_common::checksum::Sum;
use forwarder_common::closed::Ended;
use forwarder_common::cookie::{self, CookieOptions};
use forwarder_common::maglev::{TABLE_SIZE, client_hash};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::{flag, syn_option_words};
use forwarder_common::verdict::DropReason;

use crate::bounds::{mask, opaque};
use crate::maps::{FLOWS, MAGLEV, NODES, PATHS, PORT_FLOWS, REVERSE, SETTINGS};
use crate::packet::Packet;
use crate::work::Work;
use crate::{clock, closed, count, hops};

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

/// A connection to a claimed address that is none of the node's homes, as the node sees it.
#[inline(always)]
fn reverse_key(client: &Address, port_be: u16, number: u32) -> ReverseKey {
    ReverseKey {
        client: *client,
        port_be,
        node: number as u16,
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

/// Makes what leads from a node's segments to the connection, if its key does not.
#[inline(always)]
pub fn enter(key: &FlowKey, choice: &Choice, source_port_be: u16) -> Result<(), NotEntered> {
    if choice.client_address != client_address::TRANSPARENT {
        let served = port_slot(source_port_be).and_then(|slot| PORT_FLOWS.get_ptr_mut(slot));
        let Some(served) = served else {
            return Err(NotEntered::Full);
        };
        // SAFETY: a map value; while the port serves a flow, nobody writes here.
        let present = unsafe { *served };
        if present != *key {
            // SAFETY: a map value, read at once.
            if unsafe { FLOWS.get(present) }.is_some_and(|flow| flow.is_served_by(source_port_be)) {
                return Err(NotEntered::Clash);
            }
            // SAFETY: as above; the port came out of the queue for this connection.
            unsafe { *served = *key };
        }
        return Ok(());
    }
    if choice.node.is_home(key.vip) {
        return Ok(());
    }
    let reverse = reverse_key(&key.client, key.port_be, choice.number);
    match REVERSE.insert(&reverse, &u32::from(key.vip), u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(NotEntered::Clash),
        Err(_) => Err(NotEntered::Full),
    }
}

/// Takes back what [`enter`] made for a connection whose node sees the client's address.
#[inline(always)]
pub fn leave(key: &FlowKey, number: u32, node: &Node) {
    if node.is_home(key.vip) {
        return;
    }
    let reverse = reverse_key(&key.client, key.port_be, number);
    // SAFETY: the number is copied at once.
    if unsafe { REVERSE.get(reverse) }.copied() == Some(u32::from(key.vip)) {
        let _ = REVERSE.remove(reverse);
    }
}

/// Whether another connection, to another claimed address, has the same ends at this node. To be asked once more when
/// the flow names the node and all its entries are visible: of two that come at once, one sees the other.
#[inline(always)]
pub fn is_taken(key: &FlowKey, choice: &Choice) -> bool {
    if choice.client_address != client_address::TRANSPARENT {
        return false;
    }
    let number = choice.number;
    let of_another = |vip: u16| {
        let other = FlowKey { vip, ..*key };
        // SAFETY: a map value, of which one number is read at once and the rest does not change.
        vip != key.vip
            && unsafe { FLOWS.get(other) }.is_some_and(|flow| flow.is_seen_by(number as u16))
    };
    for place in 0..HOMES as u32 {
        let vip = home(choice.node, opaque(place));
        if vip != NO_HOME && of_another(vip) {
            return true;
        }
    }
    // SAFETY: the number is copied at once.
    let away = unsafe { REVERSE.get(reverse_key(&key.client, key.port_be, number)) }.copied();
    away.is_some_and(|vip| of_another(vip as u16))
}

/// A home of a node. A loop over them has one verifier state a round.
#[inline(always)]
fn home(node: &Node, place: u32) -> u16 {
    let place = mask::<{ HOMES as i32 - 1 }>(u64::from(place)) as usize;
    // SAFETY: within the array.
    unsafe { core::ptr::read_volatile((&raw const node.homes).cast::<u16>().add(place)) }
}

#[inline(always)]
fn port_slot(port_be: u16) -> Option<u32> {
    Some(SETTINGS.get(0)?.port_slot(port_be))
}

/// The flow that a segment from a node to `peer` is of.
#[inline(always)]
pub fn flow_of(
    number: u32,
    node: &Node,
    peer: &Address,
    port_be: u16,
) -> Option<(FlowKey, &'static mut Flow)> {
    if same(&node.local, peer) {
        let key = *PORT_FLOWS.get(port_slot(port_be)?)?;
        // SAFETY: a map value; its fields have one writer each.
        let flow = unsafe { &mut *FLOWS.get_ptr_mut(key)? };
        // The port too: `PORT_FLOWS` may say already whom it serves next.
        let own = u32::from(flow.node) == number && flow.is_served_by(port_be);
        return own.then_some((key, flow));
    }
    let of = |vip: u16| {
        let key = FlowKey {
            client: *peer,
            port_be,
            vip,
        };
        // SAFETY: as above.
        let flow = unsafe { &mut *FLOWS.get_ptr_mut(key)? };
        flow.is_seen_by(number as u16).then_some((key, flow))
    };
    let found = of(home(node, u32::from(node.first)));
    if found.is_some() {
        return found;
    }
    for place in 0..HOMES as u32 {
        let vip = home(node, opaque(place));
        if vip == NO_HOME {
            continue;
        }
        let found = of(vip);
        if found.is_some() {
            return found;
        }
    }
    // SAFETY: the number is copied at once.
    of(*unsafe { REVERSE.get(reverse_key(peer, port_be, number)) }? as u16)
}

/// What is known of the last connection of the node with these ends, which it sees as the client's. One to a claimed
/// address that was none of the node's homes is not found.
#[inline(always)]
pub fn ended(node: &Node, peer: &Address, port_be: u16, now_ns: u64) -> Ended {
    for place in 0..HOMES as u32 {
        let vip = home(node, opaque(place));
        let key = FlowKey {
            client: *peer,
            port_be,
            vip,
        };
        if vip == NO_HOME {
            continue;
        }
        let ended = closed::last(&key, now_ns);
        if ended != Ended::Unknown {
            return ended;
        }
    }
    Ended::Unknown
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
