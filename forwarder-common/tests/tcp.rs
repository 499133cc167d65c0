//! TCP options, windows and SACK blocks against `etherparse` and wide arithmetic.

use etherparse::{TcpHeader, TcpOptionElement};
use forwarder_common::tcp::{
    DEFAULT_MSS, NO_SCALE, OptionBytes, SACK_BLOCKS_MAX, SynOptions, rescale, sack_edges,
    syn_option_words,
};
use proptest::prelude::*;

/// An option block with garbage behind it, which must not matter.
struct Block<'a>(&'a [u8], u8);

impl OptionBytes for Block<'_> {
    fn byte(&self, at: u32) -> u8 {
        assert!(at <= 43, "byte {at} is outside of what may be asked for");
        self.0.get(at as usize).copied().unwrap_or(self.1)
    }
}

fn read(options: &[u8]) -> SynOptions {
    let [a, b] = [0, 3].map(|garbage| {
        let mut read = SynOptions::START;
        let mut steps = 0;
        while read.step(&Block(options, garbage), options.len() as u32) {
            steps += 1;
        }
        assert!(steps <= options.len(), "a step takes a byte at least");
        (read.mss, read.scale, read.sack)
    });
    assert_eq!(a, b, "bytes behind the options matter");
    let mut read = SynOptions::START;
    while read.step(&Block(options, 0), options.len() as u32) {}
    read
}

/// MSS, window scale and SACK of a block, read as RFC 9293 3.1 says: byte by byte.
fn byte_by_byte(mut rest: &[u8]) -> (u32, u32, u32) {
    let (mut mss, mut scale, mut sack) = (DEFAULT_MSS, NO_SCALE, 0);
    loop {
        match *rest {
            [] | [0, ..] => break,
            [1, ref next @ ..] => {
                rest = next;
                continue;
            }
            [2, 4, a, b, ..] if (a, b) == (0, 0) => mss = DEFAULT_MSS,
            [2, 4, a, b, ..] => mss = u32::from(u16::from_be_bytes([a, b])),
            [3, 3, shift, ..] => scale = u32::from(shift).min(14),
            [4, 2, ..] => sack = 1,
            _ => {}
        }
        match rest.get(1) {
            Some(size @ 2..) if usize::from(*size) <= rest.len() => {
                rest = &rest[usize::from(*size)..]
            }
            _ => break,
        }
    }
    (mss, scale, sack)
}

/// One option as a SYN may carry it.
fn option() -> impl Strategy<Value = TcpOptionElement> {
    use TcpOptionElement::*;
    prop_oneof![
        3 => Just(Noop),
        2 => (1u16..).prop_map(MaximumSegmentSize),
        2 => (0u8..=255).prop_map(WindowScale),
        2 => Just(SelectiveAcknowledgementPermitted),
        1 => any::<(u32, u32)>().prop_map(|(a, b)| Timestamp(a, b)),
    ]
}

proptest! {
    /// Options in any order, the last of a kind counting.
    #[test]
    fn options_that_etherparse_wrote(options in prop::collection::vec(option(), 0..8)) {
        let mut header = TcpHeader::new(1, 2, 3, 4);
        prop_assume!(header.set_options(&options).is_ok());
        let found = read(header.options.as_slice());
        let (mut mss, mut scale, mut sack) = (DEFAULT_MSS, NO_SCALE, 0);
        for option in options {
            match option {
                TcpOptionElement::MaximumSegmentSize(value) => mss = u32::from(value),
                TcpOptionElement::WindowScale(value) => scale = u32::from(value).min(14),
                TcpOptionElement::SelectiveAcknowledgementPermitted => sack = 1,
                _ => {}
            }
        }
        prop_assert_eq!((found.mss, found.scale, found.sack), (mss, scale, sack));
    }

    /// Words that are read at once mean what their bytes do.
    #[test]
    fn words_mean_what_bytes_do(
        options in prop::collection::vec(prop_oneof![
            2 => any::<u8>().prop_map(|byte| vec![byte]),
            1 => Just(vec![1]),
            1 => Just(vec![0, 0]),
            2 => any::<[u8; 2]>().prop_map(|[a, b]| vec![2, 4, a, b]),
            2 => any::<u8>().prop_map(|scale| vec![1, 3, 3, scale]),
            2 => Just(vec![1, 1, 4, 2]),
            2 => any::<[u8; 8]>().prop_map(|times| [&[4, 2, 8, 10][..], &times].concat()),
            2 => any::<[u8; 8]>().prop_map(|times| [&[1, 1, 8, 10][..], &times].concat()),
        ], 0..8),
        length in 0usize..=40,
    ) {
        let mut options = options.concat();
        options.truncate(length);
        let found = read(&options);
        prop_assert_eq!((found.mss, found.scale, found.sack), byte_by_byte(&options));
    }

    /// Any bytes: no panic, no endless loop, values in range.
    #[test]
    fn noise_as_options(options in prop::collection::vec(prop_oneof![0u8..10, any::<u8>()], 0..=40)) {
        let found = read(&options);
        prop_assert!((1..=0xffff).contains(&found.mss));
        prop_assert!(found.scale <= 14 || found.scale == NO_SCALE);
        prop_assert!(found.sack <= 1);
    }

    #[test]
    fn our_options_are_read_back(
        mss in 1u32..=0xffff,
        sack: bool,
        scale in prop_oneof![0u32..=14, Just(NO_SCALE)],
    ) {
        let (words, count) = syn_option_words(mss, sack, scale);
        let bytes: Vec<u8> = words.iter().take(count as usize).flat_map(|word| word.to_ne_bytes()).collect();
        let found = read(&bytes);
        prop_assert_eq!((found.mss, found.scale, found.sack), (mss, scale, u32::from(sack)));
        // A SYN of 40 bytes is answered by at most 44; see the design's rule on reflection.
        prop_assert!(count == 1 || sack || scale != NO_SCALE);
    }

    /// A translated window never promises more than the sender's, and wastes
    /// less than one unit of the receiver's scale unless it meets the ceiling.
    #[test]
    fn windows_are_never_widened(
        window: u16,
        from in 0u32..=14,
        to in prop_oneof![0u32..=14, Just(NO_SCALE)],
    ) {
        let shift = if to == NO_SCALE { 0 } else { to };
        let bytes = u64::from(window) << from;
        let said = u64::from(rescale(window, from, to)) << shift;
        prop_assert!(said <= bytes);
        prop_assert!(bytes - said < 1 << shift || said == 0xffff << shift);
        if from == shift {
            prop_assert_eq!(rescale(window, from, to), window);
        }
    }

    #[test]
    fn sack_blocks_of_the_usual_layout(blocks in 1u32..=4, options in 0u32..=40) {
        let size = 2 + 8 * blocks;
        let found = sack_edges(0x0101_0500 | size, options);
        prop_assert_eq!(found, (size + 2 <= options).then_some(2 * blocks));
    }

    #[test]
    fn other_layouts_are_left_to_the_caller(word: u32, options in 0u32..=40) {
        if let Some(edges) = sack_edges(word, options) {
            prop_assert_eq!(word >> 8, 0x0001_0105);
            prop_assert!(edges % 2 == 0 && (2..=2 * SACK_BLOCKS_MAX).contains(&edges));
            prop_assert!(4 + 4 * edges <= options);
        }
    }
}

#[test]
fn sack_option_of_etherparse_has_the_usual_layout() {
    for blocks in 1..=4usize {
        let mut rest = [None; 3];
        rest.iter_mut()
            .take(blocks - 1)
            .for_each(|block| *block = Some((3, 4)));
        let mut header = TcpHeader::new(1, 2, 3, 4);
        header
            .set_options(&[
                TcpOptionElement::Noop,
                TcpOptionElement::Noop,
                TcpOptionElement::SelectiveAcknowledgement((1, 2), rest),
            ])
            .unwrap();
        let options = header.options.as_slice();
        let word = u32::from_be_bytes(*options.first_chunk().unwrap());
        assert_eq!(
            sack_edges(word, options.len() as u32),
            Some(2 * blocks as u32)
        );
    }
}
