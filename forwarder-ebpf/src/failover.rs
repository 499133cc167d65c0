//! From a node that does not answer, or refuses, to the next one of its pool.

use forwarder_common::abi::{Flow, Hello, client_address};

use crate::count;
use crate::maps::{NODES, PATHS, POOLS, REVERSE};
use crate::node::{self, Choice};
use crate::work::Work;

/// Nodes passed over because another connection already has the same ends there.
const CLASHES: u32 = 4;

/// Where the SYN goes.
pub enum Next {
    /// To this node.
    Node(Choice),
    /// No node is left.
    Exhausted,
}

/// The present node once more; or the next one, if the tunnel to it has gone meanwhile.
#[inline(always)]
pub fn again(work: &Work, flow: &mut Flow, hello: &mut Hello) -> Next {
    let Some(pool) = POOLS.get(hello.pool) else {
        return Next::Exhausted;
    };
    let attempt = hello.attempt;
    match node::choose(hello, pool, work.v6 != 0) {
        Some(choice) if choice.path == u32::from(flow.path) => Next::Node(choice),
        _ => {
            hello.attempt = attempt;
            next(work, flow, hello, true)
        }
    }
}

/// The next node; the flow is entered under it and no longer under the last. The hello is held.
#[inline(always)]
pub fn next(work: &Work, flow: &mut Flow, hello: &mut Hello, timed_out: bool) -> Next {
    let Some(pool) = POOLS.get(hello.pool) else {
        return Next::Exhausted;
    };
    let mut public_link = work.public_link;
    if let Some(path) = PATHS.get(u32::from(flow.path)) {
        let number = u32::from(path.node);
        if timed_out {
            count::add!(NODE_STATS, number, syn_timeouts, 1);
        } else {
            count::add!(NODE_STATS, number, syn_resets, 1);
        }
        if let Some(last) = NODES.get(number) {
            let reverse =
                node::reverse_key(&work.key, last, path.client_address, flow.source_port_be);
            // SAFETY: copied at once.
            if let Some(entry) = unsafe { REVERSE.get(reverse) } {
                public_link = entry.public_link;
            }
            let _ = REVERSE.remove(reverse);
        }
    }
    hello.node_syns = 0;
    hello.attempt = hello.attempt.wrapping_add(1);
    for _ in 0..CLASHES {
        let choice = match node::choose(hello, pool, work.v6 != 0) {
            Some(choice) => choice,
            // All were silent, which loss alone can do: begin again, until the client or the sweeper gives
            // up. A node that refused has been asked, and says so again at once.
            None if timed_out => {
                hello.attempt = 0;
                match node::choose(hello, pool, work.v6 != 0) {
                    Some(choice) => choice,
                    None => return Next::Exhausted,
                }
            }
            None => return Next::Exhausted,
        };
        if node::enter(&work.key, &choice, flow.source_port_be, public_link).is_ok() {
            flow.path = choice.path as u16;
            return Next::Node(choice);
        }
        if choice.client_address != client_address::TRANSPARENT {
            // The port is ours alone: only an entry that was left behind can be in the way.
            return Next::Exhausted;
        }
        hello.attempt = hello.attempt.wrapping_add(1);
    }
    Next::Exhausted
}
