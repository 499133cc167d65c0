//! Secret keys: the ring of those of SYN cookies, and the one of name digests.
//!
//! A cookie's key serves `EPOCHS_PER_KEY` epochs (68 minutes) and there are four slots. The present key and the
//! one before it verify cookies, the next one must be ready when its time comes, and the fourth is nobody's:
//! that one is made anew, once per turn. Should the daemon be away for hours, keys repeat, still secret.

use std::fs::File;
use std::io::{self, Read};

use aya::maps::{Array, MapData};
use forwarder_common::abi::{Settings, map};
use forwarder_common::cookie::{EPOCH_NS, KEY_SLOTS, key_slot};
use thiserror::Error;

use super::maps::{MapsError, OfMap, open};
use super::pins::Pins;
use crate::dataplane::clock;

/// Why keys could not be made.
#[derive(Debug, Error)]
pub enum KeysError {
    /// No randomness.
    #[error("cannot read /dev/urandom")]
    Random(#[source] io::Error),
    /// The map refuses.
    #[error(transparent)]
    Map(#[from] MapsError),
}

/// The map of the ring.
pub type CookieKeys = Array<MapData, [u64; 2]>;

/// The ring, as this process has seen it.
#[derive(Debug, Default)]
pub struct KeyRing {
    renewed_in: Option<u32>,
}

impl KeyRing {
    /// Fills a ring that is all zeros.
    pub fn fill(keys: &mut CookieKeys) -> Result<(), KeysError> {
        for slot in 0..KEY_SLOTS {
            renew(keys, slot)?;
        }
        Ok(())
    }

    /// Renews the free key, if it has not been in this turn. Call it at least every hour.
    pub fn rotate(&mut self, keys: &mut CookieKeys) -> Result<bool, KeysError> {
        let slot = present_slot(clock::monotonic().as_nanos() as u64);
        if self.renewed_in == Some(slot) {
            return Ok(false);
        }
        renew(keys, free_slot(slot))?;
        self.renewed_in = Some(slot);
        Ok(true)
    }
}

fn present_slot(now_ns: u64) -> u32 {
    key_slot((now_ns / EPOCH_NS) as u32)
}

/// Two turns from now, two turns ago.
fn free_slot(present: u32) -> u32 {
    (present + KEY_SLOTS / 2) % KEY_SLOTS
}

fn renew(keys: &mut CookieKeys, slot: u32) -> Result<(), KeysError> {
    let key = [random()?, random()?];
    keys.set(slot, key, 0).writing(map::COOKIE_KEYS)?;
    Ok(())
}

/// Makes the SipHash key of name digests. The other settings, which say that the maps are complete, follow later.
pub fn make_name_secret(pins: &Pins) -> Result<(), KeysError> {
    let mut settings: Array<_, Settings> = open(pins, map::SETTINGS)?;
    let mut own = settings.get(&0, 0).reading(map::SETTINGS)?;
    own.name_secret = [random()?, random()?];
    settings.set(0, own, 0).writing(map::SETTINGS)?;
    Ok(())
}

pub(crate) fn random() -> Result<u64, KeysError> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(KeysError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use forwarder_common::cookie::EPOCHS_PER_KEY;

    use super::*;

    #[test]
    fn the_free_slot_is_neither_in_use_nor_next() {
        for epoch in 0..EPOCHS_PER_KEY * KEY_SLOTS * 2 {
            let now_ns = u64::from(epoch) * EPOCH_NS;
            let free = free_slot(present_slot(now_ns));
            for near in [
                epoch.saturating_sub(1),
                epoch,
                epoch + 1,
                epoch + EPOCHS_PER_KEY,
            ] {
                assert_ne!(free, key_slot(near), "epoch {epoch}");
            }
        }
    }

    #[test]
    fn randomness_differs() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
