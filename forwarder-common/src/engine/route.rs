//! The name is known: is it listed, which node takes it, and a SYN goes there.
//!
//! Everything both sides need is written before the entries that publish it: what leads from the node
//! to the flow, then the flow, then the SYN. The packet that completed the hello becomes that SYN.

use core::marker::PhantomData;

use super::bounds::Bounds;
use super::counters::add;
use super::packet::Packet;
use super::select::{self, Choice};
use super::store::{NotEntered, Store};
use super::work::Work;
use super::{connect, ms, reverse};
use crate::abi::{
    Address, Flow, HELLO_BYTES, HELLO_PREFIX, Hello, Pool, client_address, hello_state, stage,
    state,
};
use crate::node_options::NodeOptions;
use crate::pace::Pace;
use crate::proxy::{self, Header, HeaderBytes};
use crate::source_flows;
use crate::verdict::{DropReason, Verdict};

/// Source ports that are tried when one is in use at a node.
const PORT_TRIES: u32 = 3;

/// The stage. The hello is held and complete.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let Some(mut held) = store.held(work.slot) else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    let hello = &mut *held;
    let listener = u32::from(work.listener);
    let took_ms = hello.touched_ms.wrapping_sub(hello.started_ms);
    let (bytes, segments) = (hello.reader.position(), hello.segments);
    add!(
        store.listener_stats(listener),
        hellos += 1,
        hello_bytes += u64::from(bytes),
        hello_segments += u64::from(segments),
        hello_ms += u64::from(took_ms)
    );
    match open(store, work, hello) {
        Ok((choice, port_be)) => {
            let now = store.now_ns();
            let verdict = connect::send_syn(store, packet, work, hello, &choice, port_be, now);
            store.unlock(held);
            verdict
        }
        Err(DropReason::HelloBusy) => {
            store.unlock(held);
            Verdict::Drop(DropReason::HelloBusy)
        }
        Err(reason) => {
            work.reason = reason as u32;
            Verdict::NextHeld(stage::REFUSE, held)
        }
    }
}

/// Makes the flow. Returns its node and the source port towards it.
#[inline(always)]
fn open<S: Store>(
    store: S,
    work: &Work,
    hello: &mut Hello,
) -> Result<(Choice<S::Node>, u16), DropReason> {
    let v6 = work.v6 != 0;
    let entry = store
        .name(work.table, hello)
        .ok_or(DropReason::UnlistedName)?;
    let pool = store
        .pool(u32::from(entry.pool))
        .ok_or(DropReason::NoNode)?;
    let now = store.now_ns();
    if now < pool.refuse_until_ns {
        return Err(DropReason::NoNode);
    }
    if !has_room(store, &work.key.client) {
        return Err(DropReason::SourceLimit);
    }
    hello.name = entry.name;
    hello.path_base = u32::from(entry.path_base);
    hello.pool = u32::from(entry.pool);
    hello.attempt = 0;
    hello.node_syns = 0;
    hello.first_ordinal = select::first_ordinal(store, &pool, &work.key.client);
    let opened_ms = ms(now);
    if pool.client_address == client_address::PROXY_V2 {
        put_header::<S>(
            work,
            hello,
            u64::from(opened_ms) << 32 | u64::from(hello.entrance_isn),
        );
    }
    let (choice, port_be) = claim(store, work, hello, &pool, v6)?;
    let flow = Flow {
        client_isn: hello.client_isn,
        entrance_isn: hello.entrance_isn,
        delta: 0,
        name: entry.name,
        opened_ms,
        seen_ms: opened_ms,
        client_end: 0,
        node_end: hello.entrance_isn.wrapping_add(1),
        client_acked: 1,
        node_acked: 0,
        public_link: work.public_link,
        node: choice.number as u16,
        path: choice.target as u16,
        source_port_be: port_be,
        client_address: choice.client_address,
        state: state::CONNECTING,
        node_options: NodeOptions::NONE.0,
        client_marks: 0,
        node_marks: 0,
    };
    hello.challenges = 0;
    hello.pace = Pace::START;
    hello.state = hello_state::ROUTED;
    if let Err(failure) = store.insert_flow(&work.key, &flow) {
        hello.state = hello_state::COLLECTING;
        give_back(store, work, &choice, port_be);
        return Err(match failure {
            NotEntered::Clash => DropReason::HelloBusy,
            NotEntered::Full => DropReason::FlowTableFull,
        });
    }
    S::barrier(hello);
    if reverse::is_taken(store, &work.key, &choice) {
        // Made at the same time, for another VIP. The client's repetition will find another node.
        hello.state = hello_state::COLLECTING;
        if store.remove_flow(&work.key) {
            give_back(store, work, &choice, port_be);
        }
        return Err(DropReason::HelloBusy);
    }
    add!(store.listener_stats(u32::from(work.listener)), opened += 1);
    Ok((choice, port_be))
}

/// Whether the client's source may have another flow.
#[inline(always)]
fn has_room<S: Store>(store: S, client: &Address) -> bool {
    let (own, all) = store.source_flows(client);
    match store.settings() {
        Some(settings) => {
            source_flows::has_room(own, all, settings.flows, settings.flows_per_source)
        }
        None => false,
    }
}

/// Finds a node and a source port that no other connection to it uses.
#[inline(always)]
fn claim<S: Store>(
    store: S,
    work: &Work,
    hello: &mut Hello,
    pool: &Pool,
    v6: bool,
) -> Result<(Choice<S::Node>, u16), DropReason> {
    for _ in 0..PORT_TRIES {
        let choice = select::choose(store, hello, pool, v6).ok_or(DropReason::NoNode)?;
        let transparent = choice.client_address == client_address::TRANSPARENT;
        let port_be = if transparent {
            work.key.port_be
        } else {
            match store.pop_port() {
                Some(port) => port.to_be(),
                None => return Err(DropReason::SourcePortsExhausted),
            }
        };
        match reverse::enter(store, &work.key, &choice, port_be) {
            Ok(()) if !reverse::is_taken(store, &work.key, &choice) => {
                return Ok((choice, port_be));
            }
            Ok(()) => give_back(store, work, &choice, port_be),
            Err(failure) => {
                give_back_port(store, &choice, port_be);
                if failure == NotEntered::Full {
                    return Err(DropReason::FlowTableFull);
                }
            }
        }
        if transparent {
            // The same client port leads to this node through another listener.
            hello.attempt += 1;
        }
    }
    Err(DropReason::SourcePortsExhausted)
}

/// Undoes [`claim`].
#[inline(always)]
fn give_back<S: Store>(store: S, work: &Work, choice: &Choice<S::Node>, port_be: u16) {
    if choice.client_address == client_address::TRANSPARENT {
        reverse::leave(store, &work.key, choice.number, &choice.node);
    } else {
        give_back_port(store, choice, port_be);
    }
}

#[inline(always)]
fn give_back_port<S: Store>(store: S, choice: &Choice<S::Node>, port_be: u16) {
    if choice.client_address != client_address::TRANSPARENT {
        store.push_port(u16::from_be(port_be));
    }
}

/// The PROXY header, written right before the hello.
struct Prefix<'a, B> {
    bytes: &'a mut [u8; HELLO_BYTES],
    name: &'a [u8; 256],
    alpn: &'a [u8; 32],
    bounds: PhantomData<B>,
}

impl<B: Bounds> HeaderBytes for Prefix<'_, B> {
    #[inline(always)]
    fn put(&mut self, at: u32, byte: u8) {
        let at = B::mask::<{ HELLO_PREFIX as i32 - 1 }>(u64::from(at));
        B::put(self.bytes, at, byte);
    }

    #[inline(always)]
    fn name(&self, index: u32) -> u8 {
        B::get::<_, 0, 0xff, 256>(self.name, B::mask(u64::from(index)))
    }

    #[inline(always)]
    fn alpn(&self, index: u32) -> u8 {
        B::get::<_, 0, 0x1f, 32>(self.alpn, B::mask(u64::from(index)))
    }
}

#[inline(always)]
fn put_header<B: Bounds>(work: &Work, hello: &mut Hello, unique_id: u64) {
    let header = Header {
        client: work.key.client,
        local: work.local,
        client_port_be: work.key.port_be,
        local_port_be: work.local_port_be,
        name_len: hello.reader.name_len(),
        alpn_len: hello.reader.alpn_len(),
        unique_id,
    };
    let length = proxy::length(work.v6 != 0, header.name_len, header.alpn_len);
    hello.header_len = length;
    let at = (HELLO_PREFIX as u32).wrapping_sub(length);
    let Hello {
        bytes,
        server_name,
        alpn,
        ..
    } = hello;
    let mut bytes = Prefix::<B> {
        bytes,
        name: server_name,
        alpn,
        bounds: PhantomData,
    };
    if work.v6 == 0 {
        header.write::<false>(&mut bytes, at)
    } else {
        header.write::<true>(&mut bytes, at)
    }
}
