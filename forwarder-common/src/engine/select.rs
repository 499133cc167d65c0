//! Which node takes a connection.

use super::store::Store;
use crate::abi::{Address, Hello, Pool, balance, is_v4};
use crate::maglev::{TABLE_SIZE, client_hash};

/// Nodes that are looked at for one that can take a flow.
const TRIES: u32 = 16;

/// A node that can take a flow.
pub struct Choice<N> {
    /// Number of the target.
    pub target: u32,
    /// Number of the node.
    pub number: u32,
    /// The node.
    pub node: N,
    /// `client_address` of the pool.
    pub client_address: u8,
}

/// The first ordinal of a connection in its pool's table.
#[inline(always)]
pub fn first_ordinal<S: Store>(store: S, pool: &Pool, client: &Address) -> u32 {
    let hash = if pool.balance == balance::RANDOM {
        store.random()
    } else {
        client_hash(client)
    };
    let index = S::mask::<0x3ff>(u64::from(hash % TABLE_SIZE as u32));
    store.ordinal(pool.maglev, is_v4(client), index)
}

/// The node at `ordinal`, if it is of the family, has a tunnel and takes new flows.
#[inline(always)]
fn usable<S: Store>(
    store: S,
    first_target: u32,
    ordinal: u32,
    v6: bool,
) -> Option<Choice<S::Node>> {
    let target = first_target + ordinal;
    let entry = store.target(target)?;
    let number = u32::from(entry.node);
    let node = store.node(number)?;
    if node.ifindex == 0 || node.closed != 0 || is_v4(&node.address) == v6 {
        return None;
    }
    Some(Choice {
        target,
        number,
        node,
        client_address: entry.client_address,
    })
}

/// The next node for a hello, from its attempt on; `attempt` then says which it was.
#[inline(always)]
pub fn choose<S: Store>(
    store: S,
    hello: &mut Hello,
    pool: &Pool,
    v6: bool,
) -> Option<Choice<S::Node>> {
    let nodes = u32::from(pool.nodes);
    for _ in 0..TRIES {
        let attempt = hello.attempt;
        if attempt >= nodes || nodes == 0 {
            return None;
        }
        let ordinal = (hello.first_ordinal + attempt) % nodes;
        if let Some(choice) = usable(store, hello.path_base, ordinal, v6) {
            return Some(choice);
        }
        hello.attempt = attempt + 1;
    }
    None
}
