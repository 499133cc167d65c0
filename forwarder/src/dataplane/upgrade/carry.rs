//! Carries open flows from the maps of an earlier layout into ours, while the programs of both look.
//!
//! Our programs come first. A packet of a flow that they know is theirs; any other goes on to the programs behind
//! them, which know the rest. So a flow changes over at the moment in which it is entered here: first what leads to it
//! from the node's side, then the flow itself, which must not be there yet. When every packet that was under way then
//! is done, it is looked at once more on the other side, for what was learnt there meanwhile, and removed.

use std::collections::{HashMap as Known, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use aya::maps::{Array, HashMap, IterableMap, MapData, MapError};
use forwarder_common::abi::{self, FlowKey, Node, ReverseKey, map};
use thiserror::Error;

use super::predecessor::{OldMaps, Predecessor};
use super::v5::{self, Fate};
use crate::dataplane::bpf::batch;
use crate::dataplane::bpf::maps::{FlowMaps, MapsError, OfMap, found, open};
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::clock::monotonic_ms;

/// A packet that was under way when a flow was entered is done with it. Programs take microseconds.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(5);
/// `BPF_NOEXIST` and `BPF_EXIST` of `include/uapi/linux/bpf.h`.
const NOEXIST: u64 = 1;
const EXIST: u64 = 2;
/// Of the source ports this share stays with the programs behind, for connections that have begun there.
const PORTS_LEFT: u32 = 16;

/// Why flows are not carried over.
#[derive(Debug, Error)]
pub enum CarryError {
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] MapsError),
    /// The kernel does not list a map.
    #[error("cannot list the former map {name}")]
    List {
        /// The map.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What became of the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// They go on in our maps.
    pub moved: usize,
    /// They have ended: no node answered, or the client has begun anew.
    pub ended: usize,
    /// They are about to be spliced, by the programs behind ours.
    pub waiting: usize,
    /// Hellos that are being collected there.
    pub hellos: usize,
    /// There is no room for them in our maps.
    pub stuck: usize,
}

/// What happened to one flow.
enum Entered {
    Moved(v5::Flow),
    Superseded,
    Stuck,
    Gone,
}

/// Both sides.
pub struct Carrier {
    old: OldMaps,
    new: FlowMaps,
    port_flows: Array<MapData, FlowKey>,
    first_port: u32,
    nodes: Known<u16, Option<Node>>,
}

impl Carrier {
    /// Opens both.
    pub fn open(old: &Predecessor, pins: &Pins) -> Result<Self, CarryError> {
        let settings: Array<_, abi::Settings> = open(pins, map::SETTINGS)?;
        let settings = settings.get(&0, 0).reading(map::SETTINGS)?;
        Ok(Self {
            old: old.maps()?,
            new: FlowMaps::open(pins)?,
            port_flows: open(pins, map::PORT_FLOWS)?,
            first_port: settings.first_port,
            nodes: Known::new(),
        })
    }

    /// Moves free source ports over, oldest first, but for a few. Whoever is killed here loses one at most, and may
    /// begin anew.
    pub fn move_ports(&mut self) -> Result<(), CarryError> {
        let few = (self.old.source_ports.capacity() / PORTS_LEFT).clamp(1, 256);
        let mut kept = HashSet::new();
        for _ in 0..few {
            match self.pop()? {
                Some(port) => {
                    self.push_back(port)?;
                    kept.insert(port);
                }
                None => break,
            }
        }
        while let Some(port) = self.pop()? {
            if kept.contains(&port) {
                return self.push_back(port);
            }
            self.give(port)?;
        }
        Ok(())
    }

    /// Moves the last free source ports over. Nobody uses them on the other side any more.
    pub fn move_last_ports(&mut self) -> Result<(), CarryError> {
        while let Some(port) = self.pop()? {
            self.give(port)?;
        }
        Ok(())
    }

    /// One pass over all flows.
    pub fn pass(&mut self) -> Result<Carried, CarryError> {
        let mut carried = Carried::default();
        let mut spliced = Vec::new();
        let mut over = Vec::new();
        let now = monotonic_ms();
        let flows = self.old.flows.map().fd().as_fd();
        batch::scan(flows, |key: v5::FlowKey, flow: v5::Flow| {
            match v5::fate(&flow, now) {
                Fate::Taken(_) => spliced.push(key),
                Fate::Waits => carried.waiting += 1,
                Fate::Over => over.push(key),
            }
        })
        .map_err(|source| CarryError::List {
            name: map::FLOWS,
            source,
        })?;
        let hellos = self.old.hello_index.map().fd().as_fd();
        batch::scan(hellos, |_: v5::FlowKey, _: u32| carried.hellos += 1).map_err(|source| {
            CarryError::List {
                name: map::HELLO_INDEX,
                source,
            }
        })?;
        self.nodes.clear();
        let mut entered = Vec::new();
        for key in spliced {
            entered.push((key, self.enter(&key)?));
        }
        thread::sleep(UNDER_WAY);
        for (key, what) in entered {
            match what {
                Entered::Moved(copied) if self.settle(&key, &copied)? => carried.moved += 1,
                Entered::Moved(_) | Entered::Gone => {}
                Entered::Superseded => carried.ended += usize::from(self.forget(&key)?),
                Entered::Stuck => carried.stuck += 1,
            }
        }
        for key in over {
            carried.ended += usize::from(self.forget(&key)?);
        }
        Ok(carried)
    }

    /// Ends what is left on the other side. Returns how much that was.
    pub fn forget_all(&mut self) -> Result<usize, CarryError> {
        let keys: Vec<_> = self
            .old
            .flows
            .keys()
            .collect::<Result<_, _>>()
            .reading(map::FLOWS)?;
        let mut ended = 0;
        for key in keys {
            ended += usize::from(self.forget(&key)?);
        }
        Ok(ended)
    }

    /// Enters a flow, as it is now, and what leads to it.
    fn enter(&mut self, old_key: &v5::FlowKey) -> Result<Entered, CarryError> {
        let Some(old) = found(self.old.flows.get(old_key, 0)).reading(map::FLOWS)? else {
            return Ok(Entered::Gone);
        };
        let Fate::Taken(flow) = v5::fate(&old, monotonic_ms()) else {
            return Ok(Entered::Gone);
        };
        let key = v5::key(old_key);
        if flow.is_transparent() {
            if !self.leads_back(&key, &flow)? {
                return Ok(Entered::Superseded);
            }
        } else {
            let slot = u32::from(u16::from_be(flow.source_port_be)).wrapping_sub(self.first_port);
            if self.port_flows.set(slot, key, 0).is_err() {
                // A port that is none of ours: its answers would never be ours, either.
                return Ok(Entered::Superseded);
            }
        }
        self.new.source_flows.more(&key.client);
        let made = self.new.flows.insert(key, flow, NOEXIST);
        if made.is_err() {
            self.new.source_flows.less(&key.client);
        }
        match made {
            Ok(()) => Ok(Entered::Moved(old)),
            Err(error) if is_there(&error) => {
                let present = found(self.new.flows.get(&key, 0)).reading(map::FLOWS)?;
                // Whoever was killed after it had entered the flow, or a client that has begun anew.
                let same = present.is_some_and(|present| v5::is_same(&old, &present));
                Ok(if same {
                    Entered::Moved(old)
                } else {
                    Entered::Superseded
                })
            }
            Err(_) => Ok(Entered::Stuck),
        }
    }

    /// Makes the entry by which a node's segments lead to a flow that shows the client's address, unless they do
    /// without. Says whether they do then.
    fn leads_back(&mut self, key: &FlowKey, flow: &abi::Flow) -> Result<bool, CarryError> {
        let node = match self.nodes.get(&flow.node) {
            Some(node) => *node,
            None => {
                let index = u32::from(flow.node);
                let node = found(self.new.nodes.get(&index, 0)).reading(map::NODES)?;
                self.nodes.insert(flow.node, node);
                node
            }
        };
        if node.is_some_and(|node| node.is_home(key.vip)) {
            return Ok(true);
        }
        let vip = u32::from(key.vip);
        let reverse = reverse_key(key, flow);
        match self.new.reverse.insert(reverse, vip, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if is_there(&error) => {
                let present = found(self.new.reverse.get(&reverse, 0)).reading(map::REVERSE)?;
                Ok(present == Some(vip))
            }
            Err(error) => Err(error).writing(map::REVERSE)?,
        }
    }

    /// Takes over what was learnt about a flow while it was entered, and removes it on the other side. Says whether it
    /// goes on.
    fn settle(&mut self, old_key: &v5::FlowKey, copied: &v5::Flow) -> Result<bool, CarryError> {
        let key = v5::key(old_key);
        let present = found(self.old.flows.get(old_key, 0)).reading(map::FLOWS)?;
        let ours = found(self.new.flows.get(&key, 0)).reading(map::FLOWS)?;
        let ours = ours.filter(|ours| v5::is_same(copied, ours));
        let Some(old) = present else {
            // It ended there, and its source port was given back there.
            if let Some(ours) = ours {
                if found(self.new.flows.remove(&key))
                    .writing(map::FLOWS)?
                    .is_some()
                {
                    self.new.source_flows.less(&key.client);
                }
                let reverse = reverse_key(&key, &ours);
                let leads = found(self.new.reverse.get(&reverse, 0)).reading(map::REVERSE)?;
                if ours.is_transparent() && leads == Some(u32::from(key.vip)) {
                    found(self.new.reverse.remove(&reverse)).writing(map::REVERSE)?;
                }
            }
            return Ok(false);
        };
        if let Some(all) = ours.and_then(|ours| v5::merged(copied, &old, &ours)) {
            // It may have ended here in between.
            match self.new.flows.insert(key, all, EXIST) {
                Err(error) if !is_absent(&error) => Err(error).writing(map::FLOWS)?,
                _ => {}
            }
        }
        found(self.old.flows.remove(old_key)).writing(map::FLOWS)?;
        Ok(ours.is_some())
    }

    /// Removes a flow on the other side, and frees its source port. Says whether it was there.
    fn forget(&mut self, key: &v5::FlowKey) -> Result<bool, CarryError> {
        let Some(flow) = found(self.old.flows.get(key, 0)).reading(map::FLOWS)? else {
            return Ok(false);
        };
        let gone = found(self.old.flows.remove(key)).writing(map::FLOWS)?;
        if gone.is_some() && flow.client_address != abi::client_address::TRANSPARENT {
            self.give(u32::from(u16::from_be(flow.source_port_be)))?;
        }
        Ok(gone.is_some())
    }

    fn pop(&mut self) -> Result<Option<u32>, CarryError> {
        Ok(found(self.old.source_ports.pop(0)).reading(map::SOURCE_PORTS)?)
    }

    fn push_back(&mut self, port: u32) -> Result<(), CarryError> {
        let pushed = self.old.source_ports.push(port, 0);
        Ok(pushed.writing(map::SOURCE_PORTS)?)
    }

    fn give(&mut self, port: u32) -> Result<(), CarryError> {
        Ok(self
            .new
            .source_ports
            .push(port, 0)
            .writing(map::SOURCE_PORTS)?)
    }
}

fn reverse_key(key: &FlowKey, flow: &abi::Flow) -> ReverseKey {
    ReverseKey {
        client: key.client,
        port_be: key.port_be,
        node: flow.node,
    }
}

fn is_there(error: &MapError) -> bool {
    is_errno(error, libc::EEXIST)
}

fn is_absent(error: &MapError) -> bool {
    is_errno(error, libc::ENOENT)
}

fn is_errno(error: &MapError, errno: i32) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(errno))
}

/// How many flows the maps of an earlier layout still hold.
pub fn left(old: &Predecessor) -> usize {
    let flows: Result<HashMap<_, v5::FlowKey, v5::Flow>, _> = old.open(map::FLOWS);
    let mut count = 0;
    if let Ok(flows) = flows {
        let scan = batch::scan(flows.map().fd().as_fd(), |_: v5::FlowKey, _: v5::Flow| {
            count += 1
        });
        if scan.is_err() {
            return 0;
        }
    }
    count
}
