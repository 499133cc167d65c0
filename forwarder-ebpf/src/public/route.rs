//! The name is known: is it listed, which node takes it, and a SYN goes there.
//!
//! Everything both sides need is written before the entries that publish it: what leads from the node
//! to the flow, then the flow, then the SYN. The packet that completed the hello becomes that SYN.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::lpm_trie;
use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{
    Flow, HELLO_PREFIX, Hello, NAME_KEY_BYTES, NameEntry, Pool, client_address, hello_state, stage,
    state,
};
use forwarder_common::hello::NAME_MAX;
use forwarder_common::name_key;
use forwarder_common::node_options::NodeOptions;
use forwarder_common::pace::Pace;
use forwarder_common::proxy::{self, Header, HeaderBytes};
use forwarder_common::verdict::DropReason;

use crate::bounds::{barrier, forget, mask};
use crate::buffer;
use crate::maps::{FLOWS, NAME_KEY, NAMES, POOLS, SETTINGS, SOURCE_PORTS, WILDCARDS};
use crate::node::{self, Choice, NotEntered};
use crate::packet::Packet;
use crate::public::hello::next_held;
use crate::work::Work;
use crate::{clock, count};

/// Source ports that are tried when one is in use at a node.
const PORT_TRIES: u32 = 3;

/// The stage. The hello is held and complete.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(held) = buffer::held(work.slot) else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: held since an earlier stage.
    let hello = unsafe { &mut *held.hello };
    let listener = u32::from(work.listener);
    let took_ms = hello.touched_ms.wrapping_sub(hello.started_ms);
    count::add!(
        LISTENER_STATS,
        listener,
        hellos,
        1,
        hello_bytes,
        u64::from(hello.reader.position()),
        hello_segments,
        u64::from(hello.segments),
        hello_ms,
        u64::from(took_ms)
    );
    match open(work, hello) {
        Ok((choice, port_be)) => {
            let now = clock::now_ns();
            let action = if work.v6 == 0 {
                node::send_syn::<false>(packet, work, hello, &choice, port_be, now)
            } else {
                node::send_syn::<true>(packet, work, hello, &choice, port_be, now)
            };
            buffer::unlock(held.hello);
            action
        }
        Err(DropReason::HelloBusy) => {
            buffer::unlock(held.hello);
            count::drop(DropReason::HelloBusy)
        }
        Err(reason) => {
            work.reason = reason as u32;
            next_held(context, stage::REFUSE, held)
        }
    }
}

/// Makes the flow. Returns its node and the source port towards it.
#[inline(always)]
fn open(work: &Work, hello: &mut Hello) -> Result<(Choice, u16), DropReason> {
    let v6 = work.v6 != 0;
    let entry = look_up(work, hello).ok_or(DropReason::UnlistedName)?;
    let pool = POOLS.get(u32::from(entry.pool)).ok_or(DropReason::NoNode)?;
    let now = clock::now_ns();
    if now < pool.refuse_until_ns {
        return Err(DropReason::NoNode);
    }
    hello.name = entry.name;
    hello.path_base = u32::from(entry.path_base);
    hello.pool = u32::from(entry.pool);
    hello.attempt = 0;
    hello.node_syns = 0;
    hello.first_ordinal = node::first_ordinal(pool, &work.key.client);
    let opened_ms = clock::ms(now);
    if pool.client_address == client_address::PROXY_V2 {
        put_header(
            work,
            hello,
            u64::from(opened_ms) << 32 | u64::from(hello.entrance_isn),
        );
    }
    let (choice, port_be) = claim(work, hello, pool, v6)?;
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
        path: choice.path as u16,
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
    let made = FLOWS.insert(&work.key, &flow, u64::from(BPF_NOEXIST));
    if let Err(error) = made {
        hello.state = hello_state::COLLECTING;
        give_back(work, &choice, port_be);
        return Err(if error == node::EEXIST {
            DropReason::HelloBusy
        } else {
            DropReason::FlowTableFull
        });
    }
    barrier(hello);
    if node::is_taken(&work.key, &choice) {
        // Made at the same time, for another claimed address. The client's repetition will find another node.
        hello.state = hello_state::COLLECTING;
        if FLOWS.remove(&work.key).is_ok() {
            give_back(work, &choice, port_be);
        }
        return Err(DropReason::HelloBusy);
    }
    count::add!(LISTENER_STATS, u32::from(work.listener), opened, 1);
    Ok((choice, port_be))
}

/// Finds a node and a source port that no other connection to it uses.
#[inline(always)]
fn claim(
    work: &Work,
    hello: &mut Hello,
    pool: &Pool,
    v6: bool,
) -> Result<(Choice, u16), DropReason> {
    for _ in 0..PORT_TRIES {
        let choice = node::choose(hello, pool, v6).ok_or(DropReason::NoNode)?;
        let transparent = choice.client_address == client_address::TRANSPARENT;
        let port_be = if transparent {
            work.key.port_be
        } else {
            match SOURCE_PORTS.pop() {
                Ok(Some(port)) => (port as u16).to_be(),
                _ => return Err(DropReason::SourcePortsExhausted),
            }
        };
        match node::enter(&work.key, &choice, port_be) {
            Ok(()) if !node::is_taken(&work.key, &choice) => return Ok((choice, port_be)),
            Ok(()) => give_back(work, &choice, port_be),
            Err(failure) => {
                give_back_port(&choice, port_be);
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
fn give_back(work: &Work, choice: &Choice, port_be: u16) {
    if choice.client_address == client_address::TRANSPARENT {
        node::leave(&work.key, choice.number, choice.node);
    } else {
        give_back_port(choice, port_be);
    }
}

#[inline(always)]
fn give_back_port(choice: &Choice, port_be: u16) {
    if choice.client_address != client_address::TRANSPARENT {
        let _ = SOURCE_PORTS.push(u32::from(u16::from_be(port_be)), 0);
    }
}

/// The name itself, then the longest match of the reversed name among wildcards.
#[inline(always)]
fn look_up(work: &Work, hello: &Hello) -> Option<NameEntry> {
    let key = NAME_KEY.get_ptr_mut(0)?;
    let length = hello.reader.name_len();
    // SAFETY: this CPU's key; every offset is masked to its 256 bytes, and the name's to its 256.
    unsafe {
        let bytes = (&raw mut (*key).bytes).cast::<u8>();
        let name = (&raw const hello.server_name).cast::<u8>();
        let [high, low] = work.table.to_be_bytes();
        core::ptr::write_volatile(bytes, high);
        core::ptr::write_volatile(bytes.add(1), low);
        for i in 0..NAME_MAX {
            forget(key);
            if i >= length {
                break;
            }
            let from = mask::<0xff>(u64::from(length - 1 - i)) as usize;
            let byte = core::ptr::read_volatile(name.add(from));
            core::ptr::write_volatile(bytes.add(mask::<0xff>(u64::from(i + 2)) as usize), byte);
        }
        core::ptr::write_volatile(bytes.add(mask::<0xff>(u64::from(length + 2)) as usize), 0);
        (*key).bits = 8 * (length + 3);
        let secret = SETTINGS.get(0)?.name_secret;
        let exact = name_key::of_words(secret, work.table, length + 2, |at| {
            forget(key);
            let at = mask::<0x1f>(u64::from(at)) as usize;
            u64::from_le(core::ptr::read_volatile(bytes.cast::<u64>().add(at)))
        });
        if let Some(entry) = NAMES.get(&exact) {
            return Some(*entry);
        }
        let key = &*(&raw const (*key).bits).cast::<lpm_trie::Key<[u8; NAME_KEY_BYTES]>>();
        WILDCARDS.get(key).copied()
    }
}

/// The PROXY header, written right before the hello.
struct Prefix(*mut Hello);

impl HeaderBytes for Prefix {
    #[inline(always)]
    fn put(&mut self, at: u32, byte: u8) {
        let at = mask::<{ HELLO_PREFIX as i32 - 1 }>(u64::from(at)) as usize;
        // SAFETY: within the prefix; held.
        unsafe { core::ptr::write_volatile((&raw mut (*self.0).bytes).cast::<u8>().add(at), byte) };
    }

    #[inline(always)]
    fn name(&self, index: u32) -> u8 {
        let index = mask::<0xff>(u64::from(index)) as usize;
        // SAFETY: 256 bytes; held.
        unsafe {
            core::ptr::read_volatile((&raw const (*self.0).server_name).cast::<u8>().add(index))
        }
    }

    #[inline(always)]
    fn alpn(&self, index: u32) -> u8 {
        let index = mask::<0x1f>(u64::from(index)) as usize;
        // SAFETY: 32 bytes; held.
        unsafe { core::ptr::read_volatile((&raw const (*self.0).alpn).cast::<u8>().add(index)) }
    }
}

#[inline(always)]
fn put_header(work: &Work, hello: &mut Hello, unique_id: u64) {
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
    let mut bytes = Prefix(hello);
    if work.v6 == 0 {
        header.write::<false>(&mut bytes, at)
    } else {
        header.write::<true>(&mut bytes, at)
    }
}
