//! From a node that does not answer, or refuses, to the next one of its pool.

use forwarder_common::abi::{Flow, Hello};

use crate::bounds::barrier;
use crate::count;
use crate::maps::{NODES, POOLS};
use crate::node::{self, Choice};
use crate::work::Work;

/// Nodes passed over because another connection already has the same ends there.
const CLASHES: u32 = 2;

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
    let number = u32::from(flow.node);
    if timed_out {
        count::add!(NODE_STATS, number, syn_timeouts, 1);
    } else {
        count::add!(NODE_STATS, number, syn_resets, 1);
    }
    if flow.is_transparent()
        && let Some(last) = NODES.get(number)
    {
        node::leave(&work.key, number, last);
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
        if node::enter(&work.key, &choice, flow.source_port_be).is_ok() {
            flow.node = choice.number as u16;
            flow.path = choice.path as u16;
            barrier(flow);
            if !node::is_taken(&work.key, &choice) {
                return Next::Node(choice);
            }
            // The same client port, here already by another listener.
            node::leave(&work.key, choice.number, choice.node);
        } else if !flow.is_transparent() {
            return Next::Exhausted;
        }
        hello.attempt = hello.attempt.wrapping_add(1);
    }
    Next::Exhausted
}
