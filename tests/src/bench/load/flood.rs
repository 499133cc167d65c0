//! A flood from the client's namespace, at a rate or as fast as one processor makes it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Place;
use crate::bench::bpf::flood::{Flood, Kind};
use crate::bench::bpf::{self, Hook};
use crate::bench::scene::{FLOOD_NETWORK, FLOOD_NETWORK_V6, Scene};
use crate::cleanup::{self, Guard};
use crate::error::{Context, Error, Result};
use crate::netns::Namespace;

/// Frames that the kernel makes at one call.
const LEAST: u32 = 64;
const MOST: u32 = 100_000;

/// Which address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
}

/// A program that drops what has an address of a flood's.
pub fn drop_flood(hook: Hook, end: End) -> io::Result<OwnedFd> {
    let [a, b, ..] = FLOOD_NETWORK.octets();
    let [.., c, d, _, _, _, _, _, _, _, _, _, _] = FLOOD_NETWORK_V6.octets();
    // Where addresses stand in an Ethernet frame; those of IPv6 are told by their third group.
    let (four, six) = match end {
        End::Source => (26, 22),
        End::Destination => (30, 38),
    };
    bpf::drop_matching(
        hook,
        &[([8, 0], four, [a, b]), ([0x86, 0xdd], six + 4, [c, d])],
    )
}

/// A flood; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    ended: mpsc::Receiver<()>,
    /// Answers to addresses that nobody has are dropped as early as can be.
    _sink: OwnedFd,
    _pier: (OwnedFd, Guard),
}

impl Running {
    /// Starts a flood; `rate` is in frames a second, none meaning as many as can be.
    pub fn start(scene: &Scene, kind: Kind, target: SocketAddr, rate: Option<u32>) -> Result<Self> {
        let next_hop = scene.hardware_address(&scene.lab.entrance, "eth0")?;
        let flood = Flood {
            kind,
            next_hop: octets(&next_hop)?,
            network: match target {
                SocketAddr::V4(_) => FLOOD_NETWORK.into(),
                SocketAddr::V6(_) => FLOOD_NETWORK_V6.into(),
            },
            target,
        };
        let prepared = scene.client().enter(|| {
            let interface = bpf::interface("eth0")?;
            let sink = drop_flood(Hook::TrafficIn, End::Destination)?;
            let sink = bpf::attach(&sink, Hook::TrafficIn, interface)?;
            Ok((interface, sink, flood.program()?))
        })?;
        let (interface, sink, program) = prepared.context(|| "preparing a flood".to_owned())?;
        let pier = pier(scene.client(), kind, &program)?;
        let length = flood.length();
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (done, ended) = mpsc::channel();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        scene.client().spawn("bench-flood", move || {
            Place::Node.keep();
            let began = Instant::now();
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = rate.map_or(MOST, |rate| {
                    let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                    u32::try_from(due - count).unwrap_or(MOST).min(MOST)
                });
                if due < LEAST {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                if let Err(error) = bpf::run_live(&program, interface, length, due) {
                    eprintln!("the flood has ended: {error}");
                    break;
                }
                count += u64::from(due);
                counted.store(count, Ordering::Relaxed);
            }
            let _ = done.send(());
        })?;
        Ok(Self {
            stop,
            sent,
            ended,
            _sink: sink,
            _pier: pier,
        })
    }

    /// Frames made so far, as of the last call that has ended.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The same, at the very moment when a call ends.
    pub fn sent_next(&self) -> Result<u64> {
        let (began, before) = (Instant::now(), self.sent());
        while began.elapsed() < Duration::from_secs(10) {
            let now = self.sent();
            if now != before {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Err(Error::Unmeasured {
            what: "the flood".to_owned(),
            why: "no frame was made".to_owned(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.ended.recv_timeout(Duration::from_secs(5));
    }
}

/// Attaches the program to an interface that no frame ever comes by, so that calls of it begin at once
/// ([`bpf::run_live`]): a flood of a given rate comes evenly then.
fn pier(client: &Namespace, kind: Kind, program: &OwnedFd) -> Result<(OwnedFd, Guard)> {
    let name = match kind {
        Kind::Syn => "flood-syn",
        Kind::Ack => "flood-ack",
    };
    client.ip(&format!("link add {name} type veth peer name {name}-end"))?;
    let mut remove = crate::command::command("ip")?;
    remove.args(["-n", client.name(), "link", "del", name]);
    let guard = cleanup::on_end(move || drop(crate::command::output(&mut remove)));
    let attached =
        client.enter(|| bpf::attach(program, Hook::GenericXdp, bpf::interface(name)?))?;
    let link = attached.context(|| format!("attaching a flood to {name}"))?;
    Ok((link, guard))
}

fn octets(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes.try_into().map_err(|_| Error::Unintelligible {
        what: "a hardware address".to_owned(),
        text: text.to_owned(),
    })
}
