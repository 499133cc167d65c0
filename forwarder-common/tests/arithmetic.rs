//! Properties of the sequence and checksum arithmetic, against naive models.

use std::net::{Ipv4Addr, Ipv6Addr};

use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::seq::{SeqNumber, extend};
use forwarder_common::tcp::{NO_SCALE, rescale};
use proptest::prelude::*;

/// RFC 1071 by the book, on big-endian words, one fold per addition.
fn model_checksum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        let word = u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    (!(sum as u16)).to_be_bytes()
}

fn raw<const N: usize>(octets: &[u8]) -> [u32; N] {
    let (words, _) = octets.as_chunks::<4>();
    std::array::from_fn(|at| u32::from_ne_bytes(words[at]))
}

proptest! {
    #[test]
    fn sequence_order_is_the_order_of_the_stream(start: u32, forward in 1u32..1 << 31) {
        let (old, new) = (SeqNumber(start), SeqNumber(start) + forward);
        prop_assert!(old.before(new) && new.after(old));
        prop_assert!(!new.before(old) && !old.after(new));
        prop_assert_eq!(i64::from(new.offset_from(old)), i64::from(forward));
        prop_assert_eq!(new - forward, old);
    }

    #[test]
    fn window_membership_matches_wide_arithmetic(start: u32, len: u32, seq: u32) {
        let (start64, end64) = (u64::from(start), u64::from(start) + u64::from(len));
        let inside = [u64::from(seq), u64::from(seq) + (1 << 32)]
            .iter()
            .any(|at| (start64..end64).contains(at));
        prop_assert_eq!(SeqNumber(seq).in_window(SeqNumber(start), len), inside);
    }

    /// Acknowledgements of a stream arrive late, twice and out of order; the
    /// count is the highest position seen so far.
    #[test]
    fn running_count_is_the_high_water_mark(
        first: u32,
        steps in prop::collection::vec((0u64..1 << 30, 0u64..1 << 30), 1..50),
    ) {
        let mut total = u64::from(first);
        let mut highest = total;
        for (forward, back) in steps {
            highest += forward;
            total = extend(total, SeqNumber(highest as u32));
            prop_assert_eq!(total, highest);
            total = extend(total, SeqNumber(highest.wrapping_sub(back) as u32));
            prop_assert_eq!(total, highest);
        }
    }

    /// What arrives is what was meant, up to the receiver's units, and never more than its field holds.
    #[test]
    fn windows_mean_the_same_on_both_sides(window: u16, from in 0u32..=15, to in 0u32..=15) {
        let shift = |scale: u32| if scale == NO_SCALE { 0 } else { scale };
        let meant = u64::from(window) << shift(from);
        let arrives = u64::from(rescale(window, from, to)) << shift(to);
        let most = u64::from(u16::MAX) << shift(to);
        prop_assert!(arrives <= meant && arrives <= most);
        prop_assert!(arrives == most || meant - arrives < 1 << shift(to));
    }

    #[test]
    fn sum_of_bytes_matches_the_model(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(Sum::of_bytes(&bytes).checksum().to_ne_bytes(), model_checksum(&bytes));
    }

    #[test]
    fn folding_to_32_bits_keeps_the_sum(words in prop::collection::vec(any::<u32>(), 0..200)) {
        let sum = words.iter().fold(Sum::ZERO, |sum, word| sum.add_u32_raw(*word));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        prop_assert_eq!(Sum::ZERO.add_u32_raw(sum.fold32()).fold16(), sum.fold16());
        prop_assert_eq!(sum.checksum().to_ne_bytes(), model_checksum(&bytes));
    }

    /// Patching the field equals summing the changed region anew.
    #[test]
    fn patched_field_equals_a_fresh_one(
        mut words in prop::collection::vec(any::<u32>(), 2..50),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..10),
    ) {
        let bytes = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        words[0] |= 1; // A header is never all zeros, the one case with two zeros.
        let before = Stored(Sum::of_bytes(&bytes(&words)).checksum());
        let mut diff = Sum::ZERO;
        for (index, new) in changes {
            let at = 1 + index.index(words.len() - 1);
            diff += Sum::diff(words[at], new);
            words[at] = new;
        }
        let after = Stored(Sum::of_bytes(&bytes(&words)).checksum());
        prop_assert_eq!(before.patched(diff), after);
        // As the kernel applies it: folded to 32 bits first.
        prop_assert_eq!(before.patched(Sum::ZERO.add_u32_raw(diff.fold32())), after);
    }

    #[test]
    fn patching_never_repairs_a_wrong_field(words: [u32; 8], error in 1u16..0xffff, new: u32) {
        let field = |words: &[u32; 8]| {
            Stored(words.iter().fold(Sum::ZERO, |sum, word| sum.add_u32_raw(*word)).checksum())
        };
        let mut changed = words;
        changed[3] = new;
        changed[0] |= 1;
        let mut words = words;
        words[0] |= 1;
        let wrong = field(&words).patched(Sum::ZERO.add_u16_raw(error));
        prop_assert_ne!(wrong.patched(Sum::diff(words[3], new)), field(&changed));
    }

    #[test]
    fn tcp_v4_checksum_matches_etherparse(
        src: [u8; 4],
        dst: [u8; 4],
        ports: (u16, u16),
        seq: u32,
        window: u16,
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let header = etherparse::TcpHeader::new(ports.0, ports.1, seq, window);
        let expected = header.calc_checksum_ipv4_raw(src, dst, &payload).unwrap();
        let bytes = header.to_bytes();
        let mut segment = bytes.to_vec();
        segment.extend_from_slice(&payload);
        let pseudo = Sum::tcp_pseudo_v4(raw(&src), raw(&dst), segment.len() as u16);
        let field = (pseudo + Sum::of_bytes(&segment)).checksum();
        prop_assert_eq!(field.to_ne_bytes(), expected.to_be_bytes());

        segment[16..18].copy_from_slice(&field.to_ne_bytes());
        prop_assert!(Stored::verifies(pseudo + Sum::of_bytes(&segment)));
        let damaged = segment.len() - 1;
        segment[damaged] ^= 1;
        prop_assert!(!Stored::verifies(pseudo + Sum::of_bytes(&segment)));
    }

    #[test]
    fn tcp_v6_checksum_matches_etherparse(
        src: [u8; 16],
        dst: [u8; 16],
        ports: (u16, u16),
        seq: u32,
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let header = etherparse::TcpHeader::new(ports.0, ports.1, seq, 1000);
        let expected = header.calc_checksum_ipv6_raw(src, dst, &payload).unwrap();
        let mut segment = header.to_bytes().to_vec();
        segment.extend_from_slice(&payload);
        let pseudo = Sum::tcp_pseudo_v6(raw(&src), raw(&dst), segment.len() as u32);
        let field = (pseudo + Sum::of_bytes(&segment)).checksum();
        prop_assert_eq!(field.to_ne_bytes(), expected.to_be_bytes());
    }
}

/// Words of an address as the kernel holds them, through the standard types.
#[test]
fn pseudo_headers_take_addresses_as_they_lie_in_memory() {
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
    let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0, 6, 0x12, 0x34];
    let sum = Sum::tcp_pseudo_v4(raw(&src.octets()), raw(&dst.octets()), 0x1234);
    assert_eq!(sum.checksum().to_ne_bytes(), model_checksum(&v4));

    let (src, dst): (Ipv6Addr, Ipv6Addr) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8::7".parse().unwrap(),
    );
    let mut v6 = [src.octets(), dst.octets()].concat();
    v6.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 6]);
    let sum = Sum::tcp_pseudo_v6(raw(&src.octets()), raw(&dst.octets()), 0x1_0002);
    assert_eq!(sum.checksum().to_ne_bytes(), model_checksum(&v6));
}
