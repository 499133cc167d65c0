//! The tables, as stages see them.
//!
//! What the daemon configures is handed out by reference, or a copy. What programs write is reached through handles, and
//! two processors may hold one at the same time: a flow's fields have one writer each (see [`crate::abi::Flow`]), so a
//! stage borrows from a handle for a single access, and never over another call of the store.

use core::ops::{Deref, DerefMut};

use super::bounds::{AtMost, Bounds};
use super::buffer::Missing;
use super::work::Work;
use crate::abi::{
    Address, ClosedSet, Endpoint, Flow, FlowKey, Hello, ListenerStats, NameEntry, Node, NodeStats,
    Path, PathStats, Pool, ReverseKey, Settings, Vip,
};
use crate::node_options::LeastMss;
use crate::token_bucket::TokenBucket;
use crate::verdict::DropReason;

/// Rates that are limited for each processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Resets for segments of unknown connections.
    Resets,
    /// Errors about segments that are too big.
    Errors,
    /// Segments of unknown connections that the XDP filter hands on.
    Strays,
    /// Wrong cookies.
    Guesses,
}

/// Why an entry was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEntered {
    /// There is one already.
    Clash,
    /// The table is full.
    Full,
}

/// Tables, clock and chance.
pub trait Store: Bounds + Copy {
    /// A hello buffer that this processor holds. It is not `Copy`: a second release does not compile.
    type Held: DerefMut<Target = Hello>;
    /// What stages hand to each other about the packet at hand.
    type Work: DerefMut<Target = Work>;
    /// A flow.
    type Flow: DerefMut<Target = Flow>;
    /// A node.
    type Node: Deref<Target = Node> + Copy;
    /// A VIP.
    type Vip: Deref<Target = Vip> + Copy;
    /// A pool.
    type Pool: Deref<Target = Pool> + Copy;

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64;
    /// A random number.
    fn random(&self) -> u32;
    /// This processor's record.
    fn work(&self) -> Option<Self::Work>;
    /// The knobs.
    fn settings(&self) -> Option<&Settings>;
    /// A key of the SYN cookies.
    fn cookie_key(&self, slot: u32) -> Option<[u64; 2]>;
    /// Runs `take` on a token bucket of this processor; false if there is none.
    fn bucket(&self, bucket: Bucket, take: impl FnOnce(&mut TokenBucket) -> bool) -> bool;
    /// [`crate::abi::source_rule`] of the longest prefix that covers an address.
    fn source_rule(&self, address: &Address) -> Option<u32>;

    /// A VIP by its number.
    fn vip(&self, number: u32) -> Option<Self::Vip>;
    /// What stands in a slot of [`crate::abi::map::VIP_SLOTS`].
    fn vip_slot(&self, slot: u32) -> Option<u32>;
    /// The number of the VIP with this address and port.
    fn vip_number(&self, endpoint: &Endpoint) -> Option<u32>;
    /// The smallest MSS that the nodes behind a VIP offered lately.
    fn least_mss(&self, vip: u32) -> Option<LeastMss>;
    /// Replaces it.
    fn set_least_mss(&self, vip: u32, least: LeastMss);

    /// A node by its number.
    fn node(&self, number: u32) -> Option<Self::Node>;
    /// What stands in a slot of [`crate::abi::map::NODE_SLOTS`].
    fn node_slot(&self, slot: u32) -> Option<u32>;
    /// The number of the node with this address and port.
    fn node_number(&self, endpoint: &Endpoint) -> Option<u32>;
    /// A pool by its number.
    fn pool(&self, number: u32) -> Option<Self::Pool>;
    /// A target by its number.
    fn target(&self, number: u32) -> Option<Path>;
    /// The ordinal at `index` of a pool's table for a family; 0 if there is no table.
    fn ordinal(&self, table: u32, v4: bool, index: AtMost<0x3ff>) -> u32;
    /// What the name in a hello leads to.
    fn name(&self, table: u16, hello: &Hello) -> Option<NameEntry>;

    /// A flow.
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow>;
    /// Whether two handles are of one flow.
    fn is_same_flow(&self, one: &Self::Flow, other: &Self::Flow) -> bool;
    /// How many flows a client's source has, and how many there are, at least ([`crate::source_flows`]).
    fn source_flows(&self, client: &Address) -> (u32, u32);
    /// Makes a flow, which counts for its source.
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Result<(), NotEntered>;
    /// Removes a flow, which counts no more; whether there was one.
    fn remove_flow(&self, key: &FlowKey) -> bool;
    /// The VIP of a connection that none of its node's reverse VIPs leads back to.
    fn reverse(&self, key: &ReverseKey) -> Option<u32>;
    /// Makes such an entry.
    fn insert_reverse(&self, key: &ReverseKey, vip: u32) -> Result<(), NotEntered>;
    /// Removes it.
    fn remove_reverse(&self, key: &ReverseKey);
    /// The flow that a source port serves, or served last.
    fn port_flow(&self, slot: u32) -> Option<FlowKey>;
    /// Says whom a source port serves; false if there is no such port.
    fn set_port_flow(&self, slot: u32, key: &FlowKey) -> bool;
    /// A free source port, host order.
    fn pop_port(&self) -> Option<u16>;
    /// Gives one back.
    fn push_port(&self, port: u16);
    /// Runs `ask` on a set of connections that have ended.
    fn closed_set<R>(&self, set: u32, ask: impl FnOnce(&mut ClosedSet) -> R) -> Option<R>;

    /// The number of a connection's buffer.
    fn hello_slot(&self, key: &FlowKey) -> Option<u32>;
    /// Takes a connection's buffer out of the index; whether it was there.
    fn remove_hello(&self, key: &FlowKey) -> bool;
    /// Gives a buffer back.
    fn push_free(&self, slot: u32);
    /// Holds a buffer by its number.
    fn lock(&self, slot: u32) -> Result<Self::Held, Missing>;
    /// The buffer that an earlier stage of this packet holds.
    fn held(&self, slot: u32) -> Option<Self::Held>;
    /// The number of a held buffer.
    fn slot(&self, held: &Self::Held) -> u32;
    /// What is stored in a buffer that somebody else may hold, and whose it is, in this order.
    fn peek(&self, slot: u32) -> Option<(u32, FlowKey)>;
    /// Ends a hold on a buffer.
    fn unlock(&self, held: Self::Held);

    /// Counts a packet as dropped or refused for a reason.
    fn count(&self, reason: DropReason);
    /// The same for a reason that was handed on as a number.
    fn count_number(&self, reason: u32);
    /// Counts in a slot of [`crate::abi::tally`].
    fn tally(&self, slot: u32);
    /// Counts for a listener.
    fn listener_stats(&self, listener: u32, add: impl FnOnce(&mut ListenerStats));
    /// Counts for a target.
    fn target_stats(&self, target: u32, add: impl FnOnce(&mut PathStats));
    /// Counts for a node.
    fn node_stats(&self, node: u32, add: impl FnOnce(&mut NodeStats));

    /// Reports that a node accepted a flow, `connect_us` after it was asked.
    fn report_opened(
        &self,
        key: &FlowKey,
        flow: &Self::Flow,
        hello: &Hello,
        connect_us: u32,
        now_ns: u64,
    );
    /// Reports the end of a flow.
    fn report_closed(&self, key: &FlowKey, last: &Flow, reason: u32, now_ns: u64);
    /// Reports that a connection was refused.
    fn report_refused(&self, key: &FlowKey, reason: u32, hello: &Hello, now_ns: u64);
}
