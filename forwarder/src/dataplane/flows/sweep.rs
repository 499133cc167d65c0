//! Removes flows that will not end by themselves, and what they leave behind.
//!
//! FIN and RST only mark a flow; the data path removes it when both ends agree. The sweeper ends those that
//! went silent, as [`forwarder_common::expiry`] says, asks nodes about those it doubts, frees source ports and hello
//! buffers, and takes reverse entries away whose flow is gone. It also sees which numbers flows still use.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{IterableMap, MapData, MapError, Queue};
use aya::sys::SyscallError;
use forwarder_common::abi::{
    Closed, Flow, FlowKey, Hello, Node, ReverseKey, hello_state, map, state,
};
use forwarder_common::closed;
pub use forwarder_common::expiry::Expiry;
use forwarder_common::expiry::{Fate, UNASKED_MS, fate};
use thiserror::Error;
use tracing::warn;

use super::reset::{Own, Sender};
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::maps::{FlowMaps, MapsError, OfMap, found};
use crate::dataplane::clock::{elapsed_ms, monotonic_ms};
use crate::dataplane::registry::InUse;

/// How long the node may take to answer; sweeps are further apart.
const ANSWER: Duration = Duration::from_secs(5);
/// Questions that a node must leave unanswered: one alone may be lost.
const QUESTIONS: u32 = 3;
/// `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const BPF_NOEXIST: u64 = 1;
/// How long a hello may take, unless told.
const HELLO: Duration = Duration::from_secs(10);
/// The data path ends a hello that takes too long when its client says something; of silent ones the sweeper hears this
/// much later.
const GRACE: Duration = Duration::from_secs(2);

/// Why a sweep ended early.
#[derive(Debug, Error)]
pub enum SweepError {
    /// The kernel does not list a map.
    #[error("cannot list the map {name}")]
    List {
        /// The map.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] MapsError),
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Flows that go on.
    pub flows: usize,
    /// Flows that were removed.
    pub expired: Vec<(FlowKey, Flow, Expiry)>,
    /// Hello buffers that were freed.
    pub hellos: usize,
    /// Reverse entries without a flow that were removed.
    pub orphans: usize,
    /// Counts of sources that were wrong.
    pub miscounted: usize,
    /// Numbers that the remaining flows use.
    pub in_use: InUse,
    /// How many of those that show the client's address there are, by node and claimed address.
    pub seen_by: HashMap<(u16, u16), usize>,
}

impl Swept {
    fn goes_on(&mut self, key: &FlowKey, flow: &Flow) {
        self.flows += 1;
        self.uses(key, flow);
        if flow.is_transparent() {
            *self.seen_by.entry((flow.node, key.vip)).or_default() += 1;
        }
    }

    fn uses(&mut self, key: &FlowKey, flow: &Flow) {
        self.in_use.vips.insert(key.vip);
        self.in_use.paths.insert(flow.path);
        self.in_use.names.insert(flow.name);
    }
}

/// A reverse key, as something that can be kept in a set.
type Peer = ([u32; 4], u16, u16);

fn peer(key: &ReverseKey) -> Peer {
    (key.client, key.port_be, key.node)
}

/// A flow key, likewise.
type Ends = ([u32; 4], u16, u16);

fn ends(key: &FlowKey) -> Ends {
    (key.client, key.port_be, key.vip)
}

/// A flow that was ended by order, and what is needed to tell its ends.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// As it was.
    pub flow: Flow,
    /// Its node, as far as the map holds it.
    pub node: Option<Node>,
}

/// The sweeper; keeps what it suspected the last time.
pub struct Sweeper {
    state: FlowMaps,
    idle: Duration,
    hello_timeout: Duration,
    suspects: HashSet<Peer>,
    /// When nodes were asked for which flows, and when those were heard last, ms.
    asked: HashMap<Ends, Asked>,
    sender: Option<Sender>,
    /// How many flows the last pass left.
    flows: u32,
    /// How many there can be.
    capacity: u32,
}

#[derive(Clone, Copy)]
struct Asked {
    at_ms: u32,
    seen_ms: u32,
    times: u32,
}

impl Sweeper {
    /// A sweeper over these maps that ends flows after `idle` of silence.
    pub fn new(state: FlowMaps, idle: Duration) -> Self {
        let capacity = state.flows.map().info().map(|info| info.max_entries());
        Self {
            flows: 0,
            // Of a table of unknown size nothing is known to be scarce.
            capacity: capacity.unwrap_or(u32::MAX),
            state,
            idle,
            hello_timeout: HELLO,
            suspects: HashSet::new(),
            asked: HashMap::new(),
            sender: None,
        }
    }

    /// One pass over all flows, hello buffers and reverse entries.
    pub fn sweep(&mut self) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        let mut census = self.state.source_flows.census();
        let now = monotonic_ms();
        let mut doubted = Vec::new();
        let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        let (count, capacity) = (self.flows, self.capacity);
        let flows = self.state.flows.map().fd().as_fd();
        let list = |name| move |source| SweepError::List { name, source };
        batch::scan(flows, |key: FlowKey, flow: Flow| {
            census.saw(&key.client);
            match fate(&flow, now, idle, count, capacity) {
                Fate::Stays => swept.goes_on(&key, &flow),
                Fate::Asked(why) => doubted.push((key, flow, why, true)),
                Fate::Over(why) => doubted.push((key, flow, why, false)),
            }
        })
        .map_err(list(map::FLOWS))?;
        swept.miscounted = self.state.source_flows.set_right(&census);
        let asked = std::mem::take(&mut self.asked);
        for (key, flow, why, ask) in doubted {
            if ask && !self.is_gone(&key, &flow, asked.get(&ends(&key)), now)? {
                swept.goes_on(&key, &flow);
            } else if self.remove(&key, &flow)? {
                swept.expired.push((key, flow, why));
            } else {
                // It moved, or has ended by itself.
                swept.uses(&key, &flow);
            }
        }
        self.flows = u32::try_from(swept.flows).unwrap_or(u32::MAX);
        swept.hellos = self.hellos(now)?;
        swept.orphans = self.orphans()?;
        Ok(swept)
    }

    /// About how many flows nodes were asked and have not answered yet.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Flows are ended after this much silence, hellos after this time.
    pub fn set_times(&mut self, idle: Duration, hello_timeout: Duration) {
        self.idle = idle;
        self.hello_timeout = hello_timeout;
    }

    /// Ends a flow however lively it is: the next packet of either end meets no flow and draws a reset.
    /// Returns it, if there was one.
    pub fn end(&mut self, key: &FlowKey) -> Result<Option<Ended>, SweepError> {
        let present = found(self.state.flows.get(key, 0)).reading(map::FLOWS)?;
        let Some(seen) = present else {
            return Ok(None);
        };
        let Some(flow) = self.take(key, &seen)? else {
            return Ok(None);
        };
        let node = found(self.state.nodes.get(&u32::from(flow.node), 0)).reading(map::NODES)?;
        Ok(Some(Ended { flow, node }))
    }

    /// Whether a flow that is doubted is gone: its node was asked, and asked again, and did not answer. While there is
    /// no way to the node the flow waits. Without the right to ask (CAP_NET_RAW) long silence is all there is.
    fn is_gone(
        &mut self,
        key: &FlowKey,
        flow: &Flow,
        asked: Option<&Asked>,
        now: u32,
    ) -> Result<bool, SweepError> {
        let unanswered = asked.filter(|asked| asked.seen_ms == flow.seen_ms);
        if let Some(asked) = unanswered {
            if elapsed_ms(asked.at_ms, now) < ANSWER.as_millis() as u32 {
                self.asked.insert(ends(key), *asked);
                return Ok(false);
            }
            if asked.times >= QUESTIONS {
                return Ok(true);
            }
        }
        if self.sender.is_none() {
            self.sender = Sender::open().ok();
        }
        let Some(sender) = &mut self.sender else {
            return Ok(u64::from(elapsed_ms(flow.seen_ms, now)) > UNASKED_MS);
        };
        let node = found(self.state.nodes.get(&u32::from(flow.node), 0)).reading(map::NODES)?;
        let question = node.and_then(|node| Own::ask_node(key, flow, &node));
        let sent = question.is_some_and(|question| sender.send(&question).is_ok());
        let times = unanswered.map_or(0, |asked| asked.times) + u32::from(sent);
        let asked = Asked {
            at_ms: now,
            seen_ms: flow.seen_ms,
            times,
        };
        self.asked.insert(ends(key), asked);
        Ok(false)
    }

    /// Removes a flow unless it moved meanwhile.
    fn remove(&mut self, key: &FlowKey, seen: &Flow) -> Result<bool, SweepError> {
        let present = found(self.state.flows.get(key, 0)).reading(map::FLOWS)?;
        if present != Some(*seen) {
            return Ok(false);
        }
        Ok(self.take(key, seen)?.is_some())
    }

    /// Who removes the entry frees what belongs to it; the data path keeps to the same rule. What is freed is what was
    /// removed, not what was seen before. Should that be another flow of the same ends, it is put back.
    fn take(&mut self, key: &FlowKey, seen: &Flow) -> Result<Option<Flow>, SweepError> {
        // First: a hello that is sent again finds the one or the other.
        self.remember(key, seen)?;
        let state = &mut self.state;
        let flows = state.flows.map().fd().as_fd();
        let removed = batch::take::<FlowKey, Flow>(flows, key)
            .map_err(|source| {
                MapError::SyscallError(SyscallError {
                    call: "bpf_map_lookup_and_delete_elem",
                    io_error: source,
                })
            })
            .writing(map::FLOWS)?;
        let Some(last) = removed else {
            return Ok(None);
        };
        if !last.is_same(seen) {
            let back = state.flows.insert(key, last, BPF_NOEXIST);
            if back.is_err() {
                state.source_flows.less(&key.client);
            }
            back.writing(map::FLOWS)?;
            return Ok(None);
        }
        state.source_flows.less(&key.client);
        let seen = &last;
        if seen.is_transparent() {
            let reverse = ReverseKey {
                client: key.client,
                port_be: key.port_be,
                node: seen.node,
            };
            let present = found(state.reverse.get(&reverse, 0)).reading(map::REVERSE)?;
            if present == Some(u32::from(key.vip)) {
                found(state.reverse.remove(&reverse)).writing(map::REVERSE)?;
            }
        } else {
            let port = u32::from(u16::from_be(seen.source_port_be));
            give_back(&mut state.source_ports, port, map::SOURCE_PORTS);
        }
        if seen.state != state::SPLICED {
            self.free_hello(key)?;
        }
        Ok(Some(last))
    }

    /// As the programs do when they end a flow ([`forwarder_common::closed`]).
    fn remember(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), SweepError> {
        if flow.state == state::CONNECTING {
            return Ok(());
        }
        let state = &mut self.state;
        let settings = found(state.settings.get(&0, 0)).reading(map::SETTINGS)?;
        let Some(settings) = settings else {
            return Ok(());
        };
        let digest = closed::digest(settings.name_secret, key);
        let at = closed::set_of(digest);
        if let Some(mut set) = found(state.closed.get(&at, 0)).reading(map::CLOSED)? {
            set.enter(Closed::new(
                digest,
                flow.entrance_isn,
                false,
                monotonic_ms(),
            ));
            state.closed.set(at, set, 0).writing(map::CLOSED)?;
        }
        Ok(())
    }

    /// Frees buffers of hellos that never became whole, or whose flow is gone.
    fn hellos(&mut self, now: u32) -> Result<usize, SweepError> {
        let mut stale = Vec::new();
        let index = self.state.hello_index.map().fd().as_fd();
        let mut users = Vec::new();
        batch::scan(index, |key: FlowKey, slot: u32| users.push((key, slot))).map_err(
            |source| SweepError::List {
                name: map::HELLO_INDEX,
                source,
            },
        )?;
        for (key, slot) in users {
            let hello: Option<Hello> =
                found(self.state.hellos.get(&slot, 0)).reading(map::HELLOS)?;
            let Some(hello) = hello else { continue };
            let limit = (self.hello_timeout + GRACE).as_millis() as u32;
            if elapsed_ms(hello.started_ms, now) <= limit {
                continue;
            }
            let routed = matches!(hello.state, hello_state::ROUTED | hello_state::ANSWERED);
            let has_flow = || found(self.state.flows.get(&key, 0)).reading(map::FLOWS);
            if !routed || has_flow()?.is_none() {
                stale.push((key, hello));
            }
        }
        let mut freed = 0;
        for (key, hello) in stale {
            if self.free_hello(&key)? {
                freed += 1;
                self.tell(&key, &hello)?;
            }
        }
        Ok(freed)
    }

    /// Tells a client that its hello took too long: at once if that can be, and whenever it sends more of it.
    fn tell(&mut self, key: &FlowKey, hello: &Hello) -> Result<(), SweepError> {
        if hello.state != hello_state::COLLECTING {
            return Ok(());
        }
        let lost = self.state.hello_lost.insert(key, hello.entrance_isn, 0);
        lost.writing(map::HELLO_LOST)?;
        let vip = found(self.state.vips.get(&u32::from(key.vip), 0)).reading(map::VIPS)?;
        if self.sender.is_none() {
            self.sender = Sender::open().ok();
        }
        if let (Some(sender), Some(vip)) = (&mut self.sender, vip) {
            // Nothing else can be done where this fails; the client's next segment draws a reset.
            let _ = sender.send(&Own::reset_hello(key, hello, &vip));
        }
        Ok(())
    }

    fn free_hello(&mut self, key: &FlowKey) -> Result<bool, SweepError> {
        let state = &mut self.state;
        let Some(slot) = found(state.hello_index.get(key, 0)).reading(map::HELLO_INDEX)? else {
            return Ok(false);
        };
        if found(state.hello_index.remove(key))
            .writing(map::HELLO_INDEX)?
            .is_none()
        {
            return Ok(false);
        }
        give_back(&mut state.hello_free, slot, map::HELLO_FREE);
        Ok(true)
    }

    /// Removes reverse entries without a flow. One that is just being made has none yet, so an entry
    /// must be found so twice.
    fn orphans(&mut self) -> Result<usize, SweepError> {
        let mut lonely = Vec::new();
        let mut failed = None;
        let reverse = self.state.reverse.map().fd().as_fd();
        batch::scan(reverse, |key: ReverseKey, vip: u32| {
            let own = FlowKey {
                client: key.client,
                port_be: key.port_be,
                vip: vip as u16,
            };
            match found(self.state.flows.get(&own, 0)) {
                Ok(Some(flow)) if flow.is_seen_by(key.node) => {}
                Ok(_) => lonely.push(key),
                Err(error) => failed = Some(error),
            }
        })
        .map_err(|source| SweepError::List {
            name: map::REVERSE,
            source,
        })?;
        if let Some(error) = failed {
            Err(error).reading(map::FLOWS)?;
        }
        let mut removed = 0;
        let mut suspects = HashSet::new();
        for key in lonely {
            if self.suspects.contains(&peer(&key)) {
                found(self.state.reverse.remove(&key)).writing(map::REVERSE)?;
                removed += 1;
            } else {
                suspects.insert(peer(&key));
            }
        }
        self.suspects = suspects;
        Ok(removed)
    }
}

/// The queue has room for everything that was ever taken from it. Should it not, something was given back
/// twice; that is worth a word, and no reason to leave the other flows unswept.
fn give_back(queue: &mut Queue<MapData, u32>, item: u32, name: &'static str) {
    if let Err(error) = queue.push(item, 0) {
        warn!(map = name, item, %error, "not given back");
    }
}
