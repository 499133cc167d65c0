//! No parser differential: what is routed to a name carries that name, and only
//! that name, for every other reader. Damaged hellos make the reader neither
//! panic nor believe in something else than its neighbours do.

use proptest::prelude::*;

use crate::builder::records;
use crate::clients::captured;
use crate::framing::any_hello;
use crate::oracle::{Seen, names_by_tls_parser, seen_by_rustls};
use crate::reading::{Outcome, read};

/// One edit of a byte string.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Nudge(prop::sample::Index, i8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Self::Set(at, value) => bytes[at.index(len)] = *value,
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Nudge(at, by) => {
                let byte = &mut bytes[at.index(len)];
                *byte = byte.wrapping_add_signed(*by);
            }
            Self::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(len);
                bytes.drain(at..len.min(at + count));
            }
            Self::Repeat(at, count) => {
                let at = at.index(len);
                let copy = bytes[at..len.min(at + count)].to_vec();
                bytes.splice(at..at, copy);
            }
            Self::Truncate(at) => bytes.truncate(at.index(len)),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()]).prop_map(|(at, to)| Edit::Set(at, to)),
        2 => (at(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        4 => (at(), -4i8..=4).prop_map(|(at, by)| Edit::Nudge(at, by)),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, new)| Edit::Insert(at, new)),
        2 => (at(), 1usize..40).prop_map(|(at, count)| Edit::Remove(at, count)),
        2 => (at(), 1usize..40).prop_map(|(at, count)| Edit::Repeat(at, count)),
        1 => at().prop_map(Edit::Truncate),
    ]
}

/// The rule of the table of verdicts: where two readers could disagree, refuse.
fn assert_no_differential(stream: &[u8]) -> Result<Outcome, TestCaseError> {
    let outcome = read(stream);
    if let Outcome::Named { name, end, .. } = &outcome {
        prop_assert!(*end <= stream.len());
        let expected = Some(vec![name.clone()]);
        prop_assert_eq!(names_by_tls_parser(&stream[..*end]), expected.clone());
        // More bytes behind the hello change nothing.
        prop_assert_eq!(names_by_tls_parser(stream), expected);
        if let Seen::Hello(seen) = seen_by_rustls(&stream[..*end]) {
            prop_assert_eq!(seen.as_ref(), Some(name));
        }
    }
    Ok(outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_hellos_in_one_record(hello in any_hello(), edits in prop::collection::vec(edit(), 0..4)) {
        let mut stream = hello.stream();
        edits.iter().for_each(|edit| edit.apply(&mut stream));
        assert_no_differential(&stream)?;
    }

    /// Damage inside the message, with the record layer made right again, gets
    /// further into the reader.
    #[test]
    fn damaged_messages(
        hello in any_hello(),
        edits in prop::collection::vec(edit(), 1..4),
        mend_length: bool,
        size in prop_oneof![Just(1usize << 14), 1usize..200],
    ) {
        let mut message = hello.message();
        edits.iter().for_each(|edit| edit.apply(&mut message));
        if mend_length && message.len() >= 4 {
            let length = (message.len() as u32 - 4).to_be_bytes();
            message[1..4].copy_from_slice(&length[1..]);
        }
        assert_no_differential(&records(&message, |_| size))?;
    }

    #[test]
    fn damaged_captures(which: prop::sample::Index, edits in prop::collection::vec(edit(), 0..4)) {
        let captured = captured();
        let (_, stream) = &captured[which.index(captured.len())];
        let mut stream = stream.clone();
        edits.iter().for_each(|edit| edit.apply(&mut stream));
        assert_no_differential(&stream)?;
    }

    /// Anything behind the first few bytes of a hello.
    #[test]
    fn noise_with_a_good_start(body in prop::collection::vec(any::<u8>(), 0..400), length: u16) {
        let mut stream = vec![22, 3, 1];
        stream.extend(length.to_be_bytes());
        stream.extend([1, 0, 0, body.len() as u8]);
        stream.extend(body);
        assert_no_differential(&stream)?;
    }
}

/// The oracles are worth something only if damage often leaves a hello routed.
#[test]
fn the_comparison_is_exercised() {
    let (_, stream) = &captured()[0];
    let routed = (0..stream.len())
        .filter(|at| {
            let mut damaged = stream.clone();
            damaged[*at] ^= 0x20;
            matches!(assert_no_differential(&damaged), Ok(Outcome::Named { .. }))
        })
        .count();
    assert!(
        routed * 4 > stream.len(),
        "{routed} of {} damaged hellos routed",
        stream.len()
    );
    assert!(routed < stream.len());
}
