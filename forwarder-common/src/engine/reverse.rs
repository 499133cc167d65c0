//! From a node's segment back to its flow.
//!
//! A node that sees our address names a source port of ours, which leads to its flow. A node that sees the client's address
//! names the client: its flow is found under one of the node's reverse VIPs, up to four VIPs of its family that lead to
//! it. Only a flow by a fifth has an entry of its own.

use super::closed;
use super::select::Choice;
use super::store::{NotEntered, Store};
use crate::abi::{Address, FlowKey, HOMES, NO_HOME, Node, ReverseKey, client_address, same};
use crate::closed::Ended;

/// A connection as its node sees it, to a VIP that is none of the node's reverse VIPs.
#[inline(always)]
const fn reverse_key(client: &Address, port_be: u16, number: u32) -> ReverseKey {
    ReverseKey {
        client: *client,
        port_be,
        node: number as u16,
    }
}

/// Makes what leads from a node's segments to the connection, if its key does not.
#[inline(always)]
pub fn enter<S: Store>(
    store: S,
    key: &FlowKey,
    choice: &Choice<S::Node>,
    source_port_be: u16,
) -> Result<(), NotEntered> {
    if choice.client_address != client_address::TRANSPARENT {
        let Some(slot) = port_slot(store, source_port_be) else {
            return Err(NotEntered::Full);
        };
        let Some(present) = store.port_flow(slot) else {
            return Err(NotEntered::Full);
        };
        if present != *key {
            if store
                .flow(&present)
                .is_some_and(|flow| flow.is_served_by(source_port_be))
            {
                return Err(NotEntered::Clash);
            }
            // The port came out of the queue for this connection.
            if !store.set_port_flow(slot, key) {
                return Err(NotEntered::Full);
            }
        }
        return Ok(());
    }
    if choice.node.is_home(key.vip) {
        return Ok(());
    }
    let reverse = reverse_key(&key.client, key.port_be, choice.number);
    store.insert_reverse(&reverse, u32::from(key.vip))
}

/// Takes back what [`enter`] made for a connection whose node sees the client's address.
#[inline(always)]
pub fn leave<S: Store>(store: S, key: &FlowKey, number: u32, node: &Node) {
    if node.is_home(key.vip) {
        return;
    }
    let reverse = reverse_key(&key.client, key.port_be, number);
    if store.reverse(&reverse) == Some(u32::from(key.vip)) {
        store.remove_reverse(&reverse);
    }
}

/// Whether another connection, to another VIP, has the same four-tuple at this node. To be asked once more when
/// the flow names the node and all its entries are visible: of two that come at once, one sees the other.
#[inline(always)]
pub fn is_taken<S: Store>(store: S, key: &FlowKey, choice: &Choice<S::Node>) -> bool {
    if choice.client_address != client_address::TRANSPARENT {
        return false;
    }
    let number = choice.number;
    let of_another = |vip: u16| {
        let other = FlowKey { vip, ..*key };
        vip != key.vip
            && store
                .flow(&other)
                .is_some_and(|flow| flow.is_seen_by(number as u16))
    };
    for place in 0..HOMES as u32 {
        let vip = reverse_vip::<S>(&choice.node, S::black_box(place));
        if vip != NO_HOME && of_another(vip) {
            return true;
        }
    }
    let other = store.reverse(&reverse_key(&key.client, key.port_be, number));
    other.is_some_and(|vip| of_another(vip as u16))
}

/// A reverse VIP of a node. A loop over them has one verifier state a round.
#[inline(always)]
fn reverse_vip<S: Store>(node: &Node, place: u32) -> u16 {
    S::get::<_, 0, { HOMES as i32 - 1 }, HOMES>(&node.homes, S::mask(u64::from(place)))
}

#[inline(always)]
fn port_slot<S: Store>(store: S, port_be: u16) -> Option<u32> {
    Some(store.settings()?.port_slot(port_be))
}

/// The flow that a segment from a node to `peer` is of.
#[inline(always)]
pub fn flow<S: Store>(
    store: S,
    number: u32,
    node: &Node,
    peer: &Address,
    port_be: u16,
) -> Option<(FlowKey, S::Flow)> {
    if same(&node.local, peer) {
        let key = store.port_flow(port_slot(store, port_be)?)?;
        let flow = store.flow(&key)?;
        // The port too: it may say already whom it serves next.
        let own = u32::from(flow.node) == number && flow.is_served_by(port_be);
        return own.then_some((key, flow));
    }
    let of = |vip: u16| {
        let key = FlowKey {
            client: *peer,
            port_be,
            vip,
        };
        let flow = store.flow(&key)?;
        flow.is_seen_by(number as u16).then_some((key, flow))
    };
    let found = of(reverse_vip::<S>(node, u32::from(node.first)));
    if found.is_some() {
        return found;
    }
    for place in 0..HOMES as u32 {
        let vip = reverse_vip::<S>(node, S::black_box(place));
        if vip == NO_HOME {
            continue;
        }
        let found = of(vip);
        if found.is_some() {
            return found;
        }
    }
    of(store.reverse(&reverse_key(peer, port_be, number))? as u16)
}

/// What is known of the last connection of the node with this four-tuple, which it sees as the client's. One to a VIP
/// that was none of the node's reverse VIPs is not found.
#[inline(always)]
pub fn ended<S: Store>(store: S, node: &Node, peer: &Address, port_be: u16, now_ns: u64) -> Ended {
    for place in 0..HOMES as u32 {
        let vip = reverse_vip::<S>(node, S::black_box(place));
        let key = FlowKey {
            client: *peer,
            port_be,
            vip,
        };
        if vip == NO_HOME {
            continue;
        }
        let ended = closed::last(store, &key, now_ns);
        if ended != Ended::Unknown {
            return ended;
        }
    }
    Ended::Unknown
}
