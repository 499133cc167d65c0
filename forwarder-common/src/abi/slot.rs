//! Slots of [`super::map::VIP_SLOTS`] and [`super::map::NODE_SLOTS`]: which entry of an array an address and port belong
//! to, without a look-up in a hash table.

use super::Address;

/// How many, a power of two.
pub const COUNT: u32 = 256;
/// Nothing belongs into this slot.
pub const NOTHING: u32 = 0;
/// More than one does: the index by hash knows. Any other value is an index of the array, plus one, and nothing
/// else belongs there.
pub const SEVERAL: u32 = u32::MAX;

/// The slot of an address and a port in network order.
#[must_use]
#[inline(always)]
pub const fn of(address: &Address, port_be: u16) -> u32 {
    let [a, b, c, d] = *address;
    let word = a ^ b ^ c ^ d ^ port_be as u32;
    let half = word ^ word >> 16;
    (half ^ half >> 8) & (COUNT - 1)
}

/// What a slot says that said `slot`, once this index belongs there too.
#[must_use]
pub const fn with(slot: u32, index: u32) -> u32 {
    match slot {
        NOTHING => index + 1,
        _ => SEVERAL,
    }
}
