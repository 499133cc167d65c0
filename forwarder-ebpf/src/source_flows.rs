//! How many flows each source has: counted when one is made and when one is removed.

use forwarder_common::abi::Address;
use forwarder_common::source_flows::{ALL, LESS, MORE, ROWS, cell, count, digest};

use crate::maps::{SETTINGS, SOURCE_FLOWS};
use crate::packet::bounds::count_up;

/// Flows of the client's source, as far as they can be told apart, and of all.
#[inline(always)]
pub fn of(client: &Address) -> (u32, u32) {
    let mut own = u32::MAX;
    if let Some(settings) = SETTINGS.get(0) {
        let digest = digest(settings.name_secret, client);
        for row in 0..ROWS {
            let flows = flows(cell(digest, row));
            if flows < own {
                own = flows;
            }
        }
    }
    (own, flows(ALL))
}

/// A flow of this client is about to be made.
#[inline(always)]
pub fn more(client: &Address) {
    add(client, MORE);
}

/// A flow of this client was removed, or not made.
#[inline(always)]
pub fn less(client: &Address) {
    add(client, LESS);
}

#[inline(always)]
fn flows(at: u32) -> u32 {
    match SOURCE_FLOWS.get(at) {
        Some(cell) => count(*cell),
        None => 0,
    }
}

#[inline(always)]
fn add(client: &Address, change: u64) {
    let Some(settings) = SETTINGS.get(0) else {
        return;
    };
    let digest = digest(settings.name_secret, client);
    for row in 0..ROWS {
        add_at(cell(digest, row), change);
    }
    add_at(ALL, change);
}

#[inline(always)]
fn add_at(at: u32, change: u64) {
    if let Some(cell) = SOURCE_FLOWS.get_ptr_mut(at) {
        // SAFETY: an entry of an array of u64.
        unsafe { count_up(cell, change) };
    }
}
