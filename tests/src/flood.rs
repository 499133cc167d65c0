//! A flood for as long as it lives: SYNs and ACKs from addresses that nobody saw before, at a bounded rate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::lab::ClientHost;
use crate::packet::{Flags, Segment};
use crate::raw::Injector;

/// The longest a flood may last, should nobody end it.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Packets between two looks at the clock.
const BATCH: u64 = 20;

/// What it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYNs.
    Syn,
    /// ACKs with data that belong to nothing.
    Ack,
}

/// A flood under way; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends so many packets a second from a client's interface to `target`.
    pub fn start(client: &ClientHost, target: SocketAddr, kind: Kind, rate: u64) -> Result<Self> {
        let injector = Injector::open(&client.namespace, "eth0", client.gateway)?;
        Ok(Self::through(injector, target, kind, rate))
    }

    /// Sends so many packets a second to `target` through an injector.
    #[must_use]
    pub fn through(injector: Injector, target: SocketAddr, kind: Kind, rate: u64) -> Self {
        let (end, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = std::thread::spawn({
            let (end, sent) = (end.clone(), sent.clone());
            move || {
                let start = Instant::now();
                while !end.load(Ordering::Relaxed) && start.elapsed() < LONGEST {
                    for _ in 0..BATCH {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        // A full queue is no reason to stop.
                        let _ = injector.send(&packet(target, kind, number).to_bytes());
                    }
                    let due = BATCH as f64 / rate as f64;
                    let due = sent.load(Ordering::Relaxed) as f64 / BATCH as f64 * due;
                    std::thread::sleep(
                        Duration::from_secs_f64(due).saturating_sub(start.elapsed()),
                    );
                }
            }
        });
        Self {
            end,
            sent,
            thread: Some(thread),
        }
    }

    /// How many packets were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An address of the benchmarking range (RFC 2544) or the documentation prefix that no host of the lab has.
fn source(target: SocketAddr, number: u64) -> IpAddr {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match target {
        SocketAddr::V4(_) => Ipv4Addr::from_bits(0xc613_0000 | (mixed >> 48) as u32).into(),
        SocketAddr::V6(_) => {
            let prefix = u128::from(0x2001_0db8_f100_u64) << 80;
            Ipv6Addr::from_bits(prefix | u128::from(mixed)).into()
        }
    }
}

fn packet(target: SocketAddr, kind: Kind, number: u64) -> Segment {
    let port = 1_024 + (number % 60_000) as u16;
    let from = SocketAddr::new(source(target, number), port);
    let flags = match kind {
        Kind::Syn => Flags::SYN,
        Kind::Ack => Flags::PSH_ACK,
    };
    let mut segment = Segment::new(from, target, flags);
    segment.seq = (number as u32).wrapping_mul(0x9e37_79b9);
    match kind {
        Kind::Syn => segment.options = vec![2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7],
        Kind::Ack => {
            segment.ack = segment.seq.rotate_left(9);
            segment.payload = vec![22, 3, 1];
        }
    }
    segment
}
