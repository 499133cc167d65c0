//! Open flows survive a change of the layout of the maps.
//!
//! A daemon that finds the tree of an earlier layout, which it knows how to read, makes its own beside it:
//!
//! 1. The numbers are taken over from the registry, so they mean the same in both trees. Our maps are filled.
//! 2. Our programs are attached in front of the others, with [`Settings::predecessor`] set: what they do not know
//!    goes on to the programs behind. So the open flows and the hellos that are being read there go on there, and new
//!    connections are ours.
//! 3. A thread carries flows over, in passes ([`carry`]): what is spliced at once, what is about to be a little later.
//! 4. When none is left, the programs behind are detached and their tree is removed.
//!
//! Whoever is killed in between leaves both trees, and the next start goes on from there.
//!
//! [`Settings::predecessor`]: forwarder_common::abi::Settings::predecessor

pub mod carry;
mod error;
pub mod predecessor;
mod recover;
pub mod v5;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forwarder_common::abi::{Settings, map};
use tracing::{info, warn};

use self::carry::{Carried, Carrier, CarryError};
pub use self::error::UpgradeError;
use self::predecessor::Predecessor;
use super::bpf::maps::OfMap;
use super::bpf::pins::Pins;
use super::config_maps::ConfigMaps;
use super::registry::Registry;
use super::registry::file as registry_file;
use crate::link::Network;

/// Pause between two passes.
const PAUSE: Duration = Duration::from_millis(500);
/// Clients that were answered by the programs behind have so long to send their hello there.
const LEAST: Duration = Duration::from_secs(30);
/// What is not spliced by then never will be.
const MOST: Duration = Duration::from_secs(70);
/// After an error it is tried again, so much later.
const AGAIN: Duration = Duration::from_secs(10);

/// A change of layout that is under way.
pub struct Upgrade {
    old: Predecessor,
    pins: Pins,
    began: Instant,
    prepared: bool,
    thread: Option<JoinHandle<Result<Carried, CarryError>>>,
    /// The thread ends at its next pause.
    stop: Arc<AtomicBool>,
    retry_at: Option<Instant>,
}

impl Upgrade {
    /// From that tree to the one of `pins`.
    pub fn new(old: Predecessor, pins: &Pins) -> Self {
        Self {
            old,
            pins: pins.clone(),
            began: Instant::now(),
            prepared: false,
            thread: None,
            stop: Arc::default(),
            retry_at: None,
        }
    }

    /// The tree it is from.
    pub fn old(&self) -> &Predecessor {
        &self.old
    }

    /// To be called when our maps are filled, before our programs are attached.
    pub fn prepare(&mut self) -> Result<(), UpgradeError> {
        if self.prepared {
            return Ok(());
        }
        self.old.take_xdp_off()?;
        Carrier::open(&self.old, &self.pins)?.move_ports()?;
        self.prepared = true;
        Ok(())
    }

    /// To be called when our programs are attached.
    pub fn begin(&mut self) {
        let (old, pins, began) = (self.old.clone(), self.pins.clone(), self.began);
        let stop = Arc::clone(&self.stop);
        let named = thread::Builder::new().name(String::from("upgrade"));
        match named.spawn(move || carry_all(&old, &pins, began, &stop)) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                warn!(%error, "flows of the former version are carried over later");
                self.retry_at = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// What became of the flows, once all are carried over. To be called now and then.
    pub fn finished(&mut self) -> Option<Carried> {
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
            self.begin();
        }
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        match thread.join() {
            Ok(Ok(carried)) => Some(carried),
            Err(_) => {
                self.retry_at = Some(Instant::now() + AGAIN);
                None
            }
            Ok(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "flows of the former version are not carried over; trying again"
                );
                self.retry_at = Some(Instant::now() + AGAIN);
                None
            }
        }
    }

    /// Takes the programs and maps of the former layout away. Ours know everything by now. Returns how many flows
    /// were left there and end.
    pub fn finish(
        &self,
        tables: &mut ConfigMaps,
        network: &Network,
    ) -> Result<usize, UpgradeError> {
        // From here on nothing goes on to the programs behind.
        let settings = tables.settings.get(&0, 0).reading(map::SETTINGS)?;
        let alone = Settings {
            predecessor: 0,
            ..settings
        };
        tables.settings.set(0, alone, 0).writing(map::SETTINGS)?;
        self.old.detach(network)?;
        thread::sleep(carry::UNDER_WAY);
        let mut carrier = Carrier::open(&self.old, &self.pins)?;
        let lost = carrier.forget_all()?;
        carrier.move_last_ports()?;
        self.old.remove()?;
        Ok(lost)
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Passes until nothing is left that may still come over.
fn carry_all(
    old: &Predecessor,
    pins: &Pins,
    began: Instant,
    stop: &AtomicBool,
) -> Result<Carried, CarryError> {
    let mut carrier = Carrier::open(old, pins)?;
    let mut all = Carried::default();
    loop {
        let pass = carrier.pass()?;
        all = Carried {
            moved: all.moved + pass.moved,
            ended: all.ended + pass.ended,
            ..pass
        };
        if pass.moved + pass.ended > 0 {
            info!(
                moved = pass.moved,
                ended = pass.ended,
                waiting = pass.waiting,
                "flows of the former version carried over"
            );
        }
        let age = began.elapsed();
        let is_done = pass.waiting + pass.hellos + pass.stuck == 0;
        if age >= MOST || age >= LEAST && is_done || stop.load(Ordering::Relaxed) {
            return Ok(all);
        }
        thread::sleep(PAUSE);
    }
}

/// The numbers that the flows of an earlier layout go by.
pub fn numbers(old: &Predecessor, path: &Path) -> Result<Registry, UpgradeError> {
    match registry_file::load_of(path, old.version) {
        Ok(Some(registry)) => return Ok(registry.carried_over()),
        Ok(None) => warn!(path = %path.display(), "registry lost, made from the former maps"),
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "registry lost, made from the former maps"
        ),
    }
    recover::recover(old)
}
