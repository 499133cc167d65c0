//! From a node that does not answer, or refuses, to the next one of its pool.

use super::counters::add;
use super::reverse;
use super::select::{self, Choice};
use super::store::Store;
use super::work::Work;
use crate::abi::Hello;

/// Nodes passed over because another connection already has the same four-tuple there.
const CLASHES: u32 = 2;

/// Where the SYN goes.
pub enum Next<N> {
    /// To this node.
    Node(Choice<N>),
    /// No node is left.
    Exhausted,
}

/// The present node once more; or the next one, if the tunnel to it has gone meanwhile.
#[inline(always)]
pub fn again<S: Store>(
    store: S,
    work: &Work,
    flow: &mut S::Flow,
    hello: &mut Hello,
) -> Next<S::Node> {
    let Some(pool) = store.pool(hello.pool) else {
        return Next::Exhausted;
    };
    let attempt = hello.attempt;
    match select::choose(store, hello, &pool, work.v6 != 0) {
        Some(choice) if choice.target == u32::from(flow.path) => Next::Node(choice),
        _ => {
            hello.attempt = attempt;
            next(store, work, flow, hello, true)
        }
    }
}

/// The next node; the flow is entered under it and no longer under the last. The hello is held.
#[inline(always)]
pub fn next<S: Store>(
    store: S,
    work: &Work,
    flow: &mut S::Flow,
    hello: &mut Hello,
    timed_out: bool,
) -> Next<S::Node> {
    let Some(pool) = store.pool(hello.pool) else {
        return Next::Exhausted;
    };
    let number = u32::from(flow.node);
    if timed_out {
        add!(store.node_stats(number), syn_timeouts += 1);
    } else {
        add!(store.node_stats(number), syn_resets += 1);
    }
    if flow.is_transparent()
        && let Some(last) = store.node(number)
    {
        reverse::leave(store, &work.key, number, &last);
    }
    hello.node_syns = 0;
    hello.attempt = hello.attempt.wrapping_add(1);
    for _ in 0..CLASHES {
        let choice = match select::choose(store, hello, &pool, work.v6 != 0) {
            Some(choice) => choice,
            // All were silent, which loss alone can do: begin again, until the client or the sweeper gives
            // up. A node that refused has been asked, and says so again at once.
            None if timed_out => {
                hello.attempt = 0;
                match select::choose(store, hello, &pool, work.v6 != 0) {
                    Some(choice) => choice,
                    None => return Next::Exhausted,
                }
            }
            None => return Next::Exhausted,
        };
        if reverse::enter(store, &work.key, &choice, flow.source_port_be).is_ok() {
            flow.node = choice.number as u16;
            flow.path = choice.target as u16;
            S::barrier(&mut **flow);
            if !reverse::is_taken(store, &work.key, &choice) {
                return Next::Node(choice);
            }
            // The same client port, here already by another listener.
            reverse::leave(store, &work.key, choice.number, &choice.node);
        } else if !flow.is_transparent() {
            return Next::Exhausted;
        }
        hello.attempt = hello.attempt.wrapping_add(1);
    }
    Next::Exhausted
}
