//! Properties of SipHash and of SYN cookies.

use std::hash::Hasher;

use forwarder_common::abi::{Address, address_v4};
use forwarder_common::cookie::{self, CookieOptions, Fit, Tuple};
use forwarder_common::siphash::siphash24;
use proptest::prelude::*;
use siphasher::sip::SipHasher24;

fn oracle(key: [u64; 2], words: &[u64]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
    for word in words {
        hasher.write(&word.to_le_bytes());
    }
    hasher.finish()
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|ends| ends.map(address_v4));
    let v6 = any::<[Address; 2]>();
    (prop_oneof![v4, v6], any::<u32>()).prop_map(|([client, local], ports)| Tuple {
        client,
        local,
        ports,
    })
}

prop_compose! {
    fn options()(mss_index in 0u8..4, window_scale in 0u8..16) -> CookieOptions {
        CookieOptions { mss_index, window_scale, sack: window_scale < 15 }
    }
}

proptest! {
    #[test]
    fn siphash_matches_the_siphasher_crate(key: [u64; 2], words: [u64; 9]) {
        let [a, b, c, d, e, f, g, h, i] = words;
        prop_assert_eq!(siphash24(key, &[]), oracle(key, &[]));
        prop_assert_eq!(siphash24(key, &[a]), oracle(key, &[a]));
        prop_assert_eq!(siphash24(key, &[a, b]), oracle(key, &[a, b]));
        prop_assert_eq!(siphash24(key, &[a, b, c, d, e, f]), oracle(key, &[a, b, c, d, e, f]));
        prop_assert_eq!(siphash24(key, &words), oracle(key, &[a, b, c, d, e, f, g, h, i]));
    }

    /// The layout of the module's documentation, computed with another SipHash.
    #[test]
    fn cookie_is_what_the_documentation_says(
        key: [u64; 2], tuple in tuple(), isn: u32, options in options(), epoch: u32,
    ) {
        let low = options.mss_index << 5 | options.window_scale << 1;
        let bytes = |address: &Address| address.map(u32::to_le_bytes).concat();
        let (client, local) = (bytes(&tuple.client), bytes(&tuple.local));
        let mapped = |bytes: &[u8]| bytes.starts_with(&address_v4([0; 4]).map(u32::to_le_bytes).concat()[..12]);
        let swapped = |bytes: &[u8]| bytes.chunks(8).flat_map(|two| [&two[4..], &two[..4]].concat()).collect::<Vec<_>>();
        let ends = if mapped(&client) && mapped(&local) {
            [&local[12..], &client[12..]].concat()
        } else {
            [swapped(&client), swapped(&local)].concat()
        };
        let context = [&tuple.ports.to_le_bytes()[..], &[low], &epoch.to_le_bytes()[..3]].concat();
        let hash = |parts: &[&[u8]]| {
            let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
            hasher.write(&parts.concat());
            hasher.finish() as u32
        };
        let tuple_hash = hash(&[&ends, &context]);
        let sequence_hash = hash(&[&ends, &context, &isn.to_le_bytes()]);
        let expected =
            sequence_hash & 0xffff_0081 | tuple_hash & 0xff00 | u32::from(low);
        prop_assert_eq!(cookie::mint(key, &tuple, isn, options, epoch), expected);
    }

    #[test]
    fn fresh_cookies_verify(
        key: [u64; 2], tuple in tuple(), isn: u32, options in options(), epoch: u32,
    ) {
        let minted = cookie::mint(key, &tuple, isn, options, epoch);
        prop_assert_eq!(cookie::fit(key, &tuple, isn, minted, epoch), Fit::Whole);
        prop_assert!(cookie::tuple_matches(key, &tuple, minted, epoch));
        prop_assert_eq!(CookieOptions::of_cookie(minted), options);
    }

    /// The tuple MAC does not depend on the client's sequence number.
    #[test]
    fn tuple_part_ignores_the_sequence_number(
        key: [u64; 2], tuple in tuple(), isn: u32, other: u32, options in options(), epoch: u32,
    ) {
        let minted = cookie::mint(key, &tuple, isn, options, epoch);
        let elsewhere = cookie::mint(key, &tuple, other, options, epoch);
        prop_assert_eq!(minted & 0xff7e, elsewhere & 0xff7e);
        prop_assert_ne!(cookie::fit(key, &tuple, other, minted, epoch), Fit::Nothing);
    }

    #[test]
    fn monotonic_time_maps_to_epochs_and_slots(now: u64) {
        let epoch = cookie::epoch(now);
        prop_assert_eq!(epoch, (now / 1_000_000_000 / 64) as u32);
        let slot = cookie::key_slot(epoch);
        prop_assert!(slot < cookie::KEY_SLOTS);
        // Neighbouring key periods never share a slot, nor does the one after next.
        for ahead in 1..cookie::KEY_SLOTS {
            let later = epoch.wrapping_add(ahead * cookie::EPOCHS_PER_KEY);
            prop_assert_ne!(cookie::key_slot(later), slot);
        }
    }
}

/// Deterministic stream of well-mixed words for the statistical tests.
fn words(seed: u64) -> impl FnMut() -> u64 {
    let mut counter = 0u64;
    move || {
        counter += 1;
        siphash24([seed, !seed], &[counter])
    }
}

/// Ends of both families.
fn ends(next: &mut impl FnMut() -> u64) -> Tuple {
    let mut address = || [next(), next(), next(), next()].map(|word| word as u32);
    let (client, local) = (address(), address());
    let narrow = |[.., last]: Address| address_v4(last.to_ne_bytes());
    let ports = next() as u32;
    if next().is_multiple_of(2) {
        Tuple {
            client,
            local,
            ports,
        }
    } else {
        Tuple {
            client: narrow(client),
            local: narrow(local),
            ports,
        }
    }
}

fn verify(key: [u64; 2], tuple: &Tuple, isn: u32, cookie: u32, epoch: u32) -> bool {
    cookie::fit(key, tuple, isn, cookie, epoch) == Fit::Whole
}

/// Change one input at a time: the cookie must not survive. With 26 bits of MAC
/// over 6 x 20,000 trials chance passes about 0.002 of them; the bound of two
/// leaves room and fails at once if any input is left out of the MAC.
#[test]
fn any_changed_input_invalidates_the_cookie() {
    let mut next = words(1);
    let mut passed = 0;
    for _ in 0..20_000 {
        let key = [next(), next()];
        let tuple = ends(&mut next);
        let (isn, epoch) = (next() as u32, next() as u32);
        let options = CookieOptions::unpack(next() as u8);
        let minted = cookie::mint(key, &tuple, isn, options, epoch);
        let bit = 1 << (next() % 64);
        // In the last words: the others are fixed in IPv4.
        let half = 1 << (next() % 32);
        let changed = |[a, b, c, d]: Address| [a, b, c, d ^ half];
        let other_client = Tuple {
            client: changed(tuple.client),
            ..tuple
        };
        let other_local = Tuple {
            local: changed(tuple.local),
            ..tuple
        };
        let other_ports = Tuple {
            ports: tuple.ports ^ half,
            ..tuple
        };
        let option_bit = 1 << (next() % 8);
        passed += [
            verify([key[0] ^ bit, key[1]], &tuple, isn, minted, epoch),
            verify(key, &other_client, isn, minted, epoch),
            verify(key, &other_local, isn, minted, epoch),
            verify(key, &other_ports, isn, minted, epoch),
            verify(key, &tuple, isn, minted ^ option_bit, epoch),
            verify(key, &tuple, isn, minted, epoch.wrapping_sub(1)),
        ]
        .iter()
        .filter(|passed| **passed)
        .count();
    }
    assert!(passed <= 2, "{passed} of 120,000 altered cookies verified");
}

/// Only the 18-bit part depends on the client's sequence number, so a wrong one
/// passes once in 262,144: expect 4 in a million, never near twenty.
#[test]
fn wrong_sequence_number_is_refused() {
    let mut next = words(2);
    let key = [next(), next()];
    let tuple = ends(&mut next);
    let options = CookieOptions {
        mss_index: 2,
        window_scale: 7,
        sack: true,
    };
    let passed = (0..1_000_000)
        .filter(|_| {
            let isn = next() as u32;
            let minted = cookie::mint(key, &tuple, isn, options, 3);
            verify(
                key,
                &tuple,
                isn.wrapping_add(1 + next() as u32 % 5000),
                minted,
                3,
            )
        })
        .count();
    assert!((1..20).contains(&passed), "{passed} of a million");
}

/// Random cookies match the tuple part once in 256.
#[test]
fn forging_odds_are_as_documented() {
    let mut next = words(3);
    let key = [next(), next()];
    let tuple = ends(&mut next);
    let trials = 1 << 20;
    let (mut whole, mut part) = (0u32, 0u32);
    for _ in 0..trials {
        let guess = next() as u32;
        whole += u32::from(verify(key, &tuple, 5, guess, 3));
        part += u32::from(cookie::tuple_matches(key, &tuple, guess, 3));
    }
    assert!(whole <= 2, "{whole} blind guesses in {trials} passed");
    assert!(
        (3800..4400).contains(&part),
        "{part} of {trials}, expected 4096"
    );
}
