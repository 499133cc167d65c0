//! A faulty wire: two interfaces joined by threads that lose, duplicate, reorder and delay frames.
//!
//! It works on every kernel (netem is often missing), its random numbers have a seed, and a rule can
//! pick out single packets: "lose the second segment of the hello". ARP and IPv6 neighbour discovery
//! pass unharmed, for their retries of a second would only slow the tests down.
//!
//! The interfaces at the far ends must have their offloads off ([`crate::ethtool::Offloads::NONE`]),
//! or losing one frame would lose 64 KB at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::link_socket::{LARGEST, Layer, LinkSocket};
use crate::netns::Namespace;
use crate::packet::Packet;

const POLL: Duration = Duration::from_millis(20);
const ETHERNET_HEADER: usize = 14;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the clients towards the nodes.
    In,
    /// From the nodes towards the clients.
    Out,
}

/// How often frames come to harm, as probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A frame disappears.
    pub loss: f64,
    /// A frame arrives twice.
    pub duplication: f64,
    /// A frame is held back for [`Faults::held`], so that others overtake it.
    pub reordering: f64,
    /// How long a reordered frame is held back.
    pub held: Duration,
    /// How long every frame takes.
    pub delay: Duration,
}

/// What a rule decides about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on (and may still come to random harm).
    Pass,
    /// It disappears.
    Lose,
    /// It arrives twice.
    Duplicate,
    /// It arrives later.
    Hold(Duration),
}

type Rule = Box<dyn FnMut(Way, &Packet) -> Fate + Send>;

/// What has happened on the wire so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that went through, duplicates included.
    pub passed: AtomicU64,
    /// Frames that were lost.
    pub lost: AtomicU64,
    /// Frames that were sent a second time.
    pub duplicated: AtomicU64,
    /// Frames that were held back.
    pub held: AtomicU64,
}

/// A wire between two interfaces of a namespace of its own; it is cut when dropped.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    faults: Mutex<Faults>,
    rule: Mutex<Option<Rule>>,
    ruled: AtomicBool,
    counters: Counters,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Joins two interfaces of a namespace, `near` on the clients' side.
    pub fn join(namespace: &Namespace, near: &str, far: &str, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let open = |name: &str| namespace.enter(|| LinkSocket::open(name, Layer::Frame))?;
        for (way, from, to) in [(Way::In, near, far), (Way::Out, far, near)] {
            let (from, to) = (open(from)?, open(to)?);
            from.ignore_outgoing()
                .context(|| "leaving out what the wire itself sends".to_owned())?;
            let worker = Arc::clone(&shared);
            let mut dice = Dice(seed ^ (way as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            namespace.spawn("wire", move || worker.carry(way, &from, &to, &mut dice))?;
        }
        Ok(Self { shared })
    }

    /// Sets the random faults, for both directions.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Lets a rule decide about every IP packet, before the random faults.
    pub fn set_rule(&self, rule: impl FnMut(Way, &Packet) -> Fate + Send + 'static) {
        *lock(&self.shared.rule) = Some(Box::new(rule));
        self.shared.ruled.store(true, Ordering::Release);
    }

    /// Mends the wire: no faults, no rule.
    pub fn mend(&self) {
        self.set_faults(Faults::default());
        self.shared.ruled.store(false, Ordering::Release);
        *lock(&self.shared.rule) = None;
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn carry(&self, way: Way, from: &LinkSocket, to: &LinkSocket, dice: &mut Dice) {
        let mut buffer = vec![0; LARGEST];
        // Frames on their way, the earliest first; the number keeps the order of equal times.
        let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(Reverse((due, _, _))) = waiting.peek() {
                if *due > now {
                    break;
                }
                if let Some(Reverse((_, _, frame))) = waiting.pop() {
                    self.send(to, &frame);
                }
            }
            match from.receive(&mut buffer) {
                Ok(Some(arrival)) => {
                    let frame = &buffer[..arrival.length];
                    let (copies, after) = self.decide(way, frame, arrival.unfinished, dice);
                    for _ in 0..copies {
                        if after.is_zero() && waiting.is_empty() {
                            self.send(to, frame);
                        } else {
                            waiting.push(Reverse((now + after, number, frame.to_vec())));
                            number += 1;
                        }
                    }
                }
                Ok(None) => {
                    let next = waiting.peek().map_or(POLL, |Reverse((due, _, _))| {
                        due.saturating_duration_since(now)
                    });
                    if from.wait(next.min(POLL)).is_err() {
                        return;
                    }
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// How many copies of a frame arrive, and after how long.
    fn decide(
        &self,
        way: Way,
        frame: &[u8],
        unfinished: bool,
        dice: &mut Dice,
    ) -> (usize, Duration) {
        if !may_be_harmed(frame) {
            return (1, Duration::ZERO);
        }
        let faults = *lock(&self.faults);
        let mut copies = 1;
        let mut after = faults.delay;
        if self.ruled.load(Ordering::Acquire) {
            let packet = Packet::parse(&frame[ETHERNET_HEADER..], unfinished);
            let mut rule = lock(&self.rule);
            if let (Some(packet), Some(rule)) = (packet, rule.as_mut()) {
                match rule(way, &packet) {
                    Fate::Pass => {}
                    Fate::Lose => copies = 0,
                    Fate::Duplicate => copies = 2,
                    Fate::Hold(time) => after += time,
                }
            }
        }
        if dice.roll(faults.loss) {
            copies = 0;
        }
        if copies > 0 && dice.roll(faults.duplication) {
            copies += 1;
        }
        if dice.roll(faults.reordering) {
            after += faults.held;
        }
        let counters = &self.counters;
        match copies {
            0 => _ = counters.lost.fetch_add(1, Ordering::Relaxed),
            1 => {}
            _ => _ = counters.duplicated.fetch_add(1, Ordering::Relaxed),
        }
        if copies > 0 && after > faults.delay {
            counters.held.fetch_add(1, Ordering::Relaxed);
        }
        (copies, after)
    }

    fn send(&self, to: &LinkSocket, frame: &[u8]) {
        // A send fails only while the other end is down, and then the frame is lost as on any wire.
        if to.send_frame(frame).is_ok() {
            self.counters.passed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// IP, except for the neighbour discovery of IPv6 (RFC 4861: ICMPv6 types 133 to 137).
fn may_be_harmed(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => true,
        Some([0x86, 0xdd]) => {
            let neighbour_discovery = frame.get(20) == Some(&58)
                && frame.get(54).is_some_and(|kind| (133..=137).contains(kind));
            !neighbour_discovery
        }
        _ => false,
    }
}

/// Random numbers with a seed (SplitMix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits fit into a double exactly"
        )]
        let unit = (z >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_dice_are_fair_and_repeatable() {
        let count = |seed| {
            let mut dice = Dice(seed);
            (0..100_000).filter(|_| dice.roll(0.05)).count()
        };
        assert_eq!(count(7), count(7));
        assert!((4_700..5_300).contains(&count(7)), "{}", count(7));
    }
}
