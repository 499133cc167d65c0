//! What was told when a flow opened, kept until it closes.
//!
//! The event of a flow's end has its bytes and its duration, but neither the name that the client sent nor the
//! times of the handshakes: the kernel side does not keep them for each flow. They were told when it opened.

use std::collections::HashMap;

use forwarder_common::abi::Event;

/// Flows of one generation at most; two are kept. About 100 bytes each.
const GENERATION: usize = 262_144;

/// What the end of a flow does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The name that the client sent.
    pub name: Box<str>,
    /// From first to last segment of the hello, ms.
    pub hello_ms: u32,
    /// Bytes of the hello, where the event tells.
    pub hello_bytes: Option<u64>,
    /// Segments of the hello.
    pub hello_segments: u32,
    /// From the SYN to the node until its answer, µs.
    pub connect_us: u32,
    /// SYNs it took.
    pub syns: u32,
}

impl Opening {
    /// Of the event of a flow that opened, with the name in it.
    pub fn new(event: &Event, name: &str) -> Self {
        Self {
            name: name.into(),
            hello_ms: event.hello_ms,
            hello_bytes: (event.up_bytes > 0).then_some(event.up_bytes),
            hello_segments: event.hello_segments,
            connect_us: event.duration,
            syns: event.syns,
        }
    }
}

/// Openings of flows that have not closed, by unique id.
///
/// Ends may be lost, so entries may be left over. When one generation is full the one before it is
/// forgotten: memory is bounded, and what is forgotten is older than anything that is kept.
#[derive(Debug)]
pub struct Openings {
    generation: usize,
    young: HashMap<u64, Opening>,
    old: HashMap<u64, Opening>,
}

impl Openings {
    /// For a flow table of so many entries.
    pub fn new(max_flows: u32) -> Self {
        Self {
            generation: GENERATION.min(max_flows as usize).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Keeps one.
    pub fn insert(&mut self, id: u64, opening: Opening) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, opening);
    }

    /// Gives one away; `None` if its flow opened before the daemon started, or too many others have since.
    pub fn take(&mut self, id: u64) -> Option<Opening> {
        self.young.remove(&id).or_else(|| self.old.remove(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(hello_ms: u32) -> Opening {
        Opening {
            name: "a.example.org".into(),
            hello_ms,
            hello_bytes: None,
            hello_segments: 1,
            connect_us: 1,
            syns: 1,
        }
    }

    #[test]
    fn what_is_kept_is_given_away_once() {
        let mut openings = Openings::new(64);
        openings.insert(7, opening(3));
        assert_eq!(openings.take(7), Some(opening(3)));
        assert_eq!(openings.take(7), None);
    }

    #[test]
    fn as_many_as_there_can_be_flows_are_never_forgotten() {
        let mut openings = Openings::new(64);
        for id in 0..64 {
            openings.insert(id, opening(0));
        }
        // Others come and go.
        for id in 1_000..9_000 {
            assert!(openings.take(id % 32).is_some() == (id < 1_032));
            openings.insert(id, opening(1));
            openings.take(id);
        }
        for id in 32..64 {
            assert!(openings.take(id).is_some(), "{id}");
        }
    }

    #[test]
    fn lost_ends_do_not_fill_memory() {
        let mut openings = Openings::new(64);
        for id in 0..10_000 {
            openings.insert(id, opening(0));
            assert!(openings.young.len() + openings.old.len() <= 128);
        }
        assert!(openings.take(9_999).is_some());
        assert!(openings.take(9_940).is_some());
        assert!(openings.take(0).is_none());
    }
}
