//! Which hello gives its buffer up when none is free.
//!
//! A few buffers are looked at, one by chance of each part of the array ([`slot`]): none twice, so what is counted
//! together are different buffers. They are grouped by who causes them: a hello that is being collected by its
//! client's network (an IPv4 address, an IPv6 /64), one whose node is silent by its pool. The oldest of the largest
//! group gives way. Nothing is counted between two looks, so nothing can drift, and the work is bounded by the number
//! of looks.
//!
//! The odds, by the binomial distribution, which is wider than that of parts: whoever holds half of all buffers is not
//! seen to hold [`MANY`] once in 780,000 newcomers, with a quarter once in 40; that newcomer comes again after its
//! time-out. A source is never taken for one of many by fewer than [`MANY`] buffers, and by a fiftieth of all once
//! in 270.

use crate::abi::{Address, Hello, hello_state, is_v4};

/// How many buffers are looked at.
pub const SAMPLES: u32 = 32;
/// A group of so many in a sample is an eighth of all: its hellos give way at any age to those of others.
const MANY: u32 = SAMPLES / 8;
/// A node that has not answered for this long may be silent, ms.
const SILENT_MS: u32 = 1_000;
/// A node that has answered and not acknowledged the hello for this long, ms.
const UNCONFIRMED_MS: u32 = 15_000;

/// What counts of a buffer's present use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who causes it: see [`source`] and [`pool`]. 0: it is not to be taken.
    pub group: u64,
    /// Since its first byte, ms.
    pub age_ms: u32,
    /// Its number.
    pub slot: u32,
}

impl Candidate {
    /// No buffer.
    pub const NONE: Self = Self {
        group: 0,
        age_ms: 0,
        slot: 0,
    };
}

/// Limits of the choice.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// [`crate::abi::Settings::hello_steal_ms`].
    pub least_age_ms: u32,
    /// [`crate::abi::Settings::hello_timeout_ms`].
    pub timeout_ms: u32,
}

/// Which buffer of `count` is looked at as number `index`, below [`SAMPLES`], of a sample; none where there are fewer.
/// Each index has a part of the array of its own, every buffer whose number leaves it as the rest, and `random` chooses in
/// it: buffers that a source took one after the other are in different parts. With up to [`SAMPLES`] buffers, every one
/// is looked at once.
#[must_use]
#[inline(always)]
pub const fn slot(index: u32, count: u32, random: u32) -> Option<u32> {
    if index >= count {
        return None;
    }
    let of_part = (count - index).div_ceil(SAMPLES);
    match random.checked_rem(of_part) {
        Some(at) => Some(at * SAMPLES + index),
        None => None,
    }
}

/// The group of a client's network.
#[must_use]
#[inline(always)]
pub const fn source(client: &Address) -> u64 {
    let [a, b, _, d] = *client;
    if is_v4(client) {
        1 << 32 | d as u64
    } else {
        (a as u64) << 32 | b as u64
    }
}

/// The group of hellos whose nodes are silent.
#[must_use]
#[inline(always)]
pub const fn pool(number: u32) -> u64 {
    2 << 32 | number as u64
}

/// Since when, on a clock of milliseconds that another processor may have read a little later.
#[must_use]
#[inline(always)]
pub const fn age_ms(since_ms: u32, now_ms: u32) -> u32 {
    let age = now_ms.wrapping_sub(since_ms);
    if age.cast_signed() < 0 { 0 } else { age }
}

/// A buffer as a candidate.
#[must_use]
#[inline(always)]
pub const fn candidate(hello: &Hello, slot: u32, now_ms: u32) -> Candidate {
    let age_ms = age_ms(hello.started_ms, now_ms);
    let group = match hello.state {
        hello_state::ROUTED if age_ms >= SILENT_MS => pool(hello.pool),
        hello_state::ANSWERED if age_ms >= UNCONFIRMED_MS => pool(hello.pool),
        hello_state::ROUTED | hello_state::ANSWERED => 0,
        _ => source(&hello.owner.client),
    };
    Candidate {
        group,
        age_ms,
        slot,
    }
}

/// How much a candidate deserves to give way to a newcomer of the group `newcomer`; 0: not at all. `same` says how many
/// of the sample are of its group, itself included.
#[must_use]
#[inline(always)]
pub const fn weight(candidate: &Candidate, same: u32, newcomer: u64, limits: &Limits) -> u64 {
    if candidate.group == 0 {
        return 0;
    }
    // Its time is over anyway.
    let late = candidate.age_ms >= limits.timeout_ms;
    // A source does not push out what it has just begun.
    let any_age = same >= MANY && candidate.group != newcomer;
    if !late && !any_age && candidate.age_ms < limits.least_age_ms {
        return 0;
    }
    (late as u64) << 63 | (same as u64) << 32 | candidate.age_ms as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::abi::{address_v4, address_v6};

    const LIMITS: Limits = Limits {
        least_age_ms: 1_000,
        timeout_ms: 10_000,
    };

    /// The slot that gives way of a sample of (group, age).
    fn chosen(sample: &[(u64, u32)], newcomer: u64) -> Option<usize> {
        let weights = sample.iter().map(|(group, age_ms)| {
            let same = sample.iter().filter(|other| other.0 == *group).count() as u32;
            let candidate = Candidate {
                group: *group,
                age_ms: *age_ms,
                slot: 0,
            };
            weight(&candidate, same, newcomer, &LIMITS)
        });
        let best = weights.enumerate().max_by_key(|(_, weight)| *weight)?;
        (best.1 > 0).then_some(best.0)
    }

    #[test]
    fn the_oldest_of_the_largest_group_gives_way() {
        let sample = [(7, 50), (7, 90), (8, 9_000), (7, 20), (7, 10)];
        assert_eq!(chosen(&sample, 9), Some(1), "though it is young");
        assert_eq!(chosen(&sample, 7), Some(2), "but not to its own source");
        let sample = [(7, 5_000), (7, 3_000), (8, 9_000)];
        assert_eq!(chosen(&sample, 9), Some(0));
        assert_eq!(
            chosen(&[(7, 50), (7, 90), (8, 20)], 9),
            None,
            "all begun just now"
        );
        assert_eq!(chosen(&[(0, 50_000)], 9), None, "a node is being asked");
    }

    #[test]
    fn who_is_late_goes_first() {
        let sample = [(7, 900), (7, 900), (7, 900), (7, 900), (8, 10_000)];
        assert_eq!(chosen(&sample, 9), Some(4));
    }

    #[test]
    fn a_sample_holds_no_buffer_twice_and_leaves_none_out() {
        for count in [0, 1, 2, 31, 32, 33, 63, 100, 256, 4_097, u32::MAX] {
            for random in [0, 1, 77_777, u32::MAX] {
                let sample: Vec<u32> = (0..SAMPLES)
                    .filter_map(|index| slot(index, count, random))
                    .collect();
                assert_eq!(sample.len() as u32, count.min(SAMPLES), "{count}");
                let different: BTreeSet<u32> = sample.iter().copied().collect();
                assert_eq!(different.len(), sample.len(), "{count}");
                assert!(sample.iter().all(|slot| *slot < count), "{count}");
            }
        }
        let mut met = [0_u32; 100];
        for random in 0..12 {
            for index in 0..SAMPLES {
                met[slot(index, 100, random).unwrap() as usize] += 1;
            }
        }
        assert!(met.iter().all(|times| [3, 4].contains(times)), "{met:?}");
    }

    #[test]
    fn groups() {
        let v4 = |last| source(&address_v4([198, 51, 100, last]));
        assert_ne!(v4(1), v4(2));
        let v6 = |octets: [u8; 16]| source(&address_v6(octets));
        let [mut one, mut other] = [[0x20; 16]; 2];
        (one[8], other[15]) = (1, 2);
        assert_eq!(v6(one), v6(other), "one /64");
        other[7] = 0;
        assert_ne!(v6(one), v6(other));
        assert_ne!(pool(0), 0);
    }

    #[test]
    fn a_clock_that_lags_makes_nothing_old() {
        assert_eq!(age_ms(1_000, 999), 0);
        assert_eq!(age_ms(u32::MAX, 1), 2);
    }
}
