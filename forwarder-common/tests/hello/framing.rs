//! However a hello is cut into segments and records, the verdict is the same.

use forwarder_common::verdict::DropReason;
use proptest::prelude::*;

use crate::builder::{Hello, alpn, extension, records, server_name};
use crate::reading::{Outcome, read, read_arriving};

const NAME: &str = "www.example.org";

/// A hello with whatever a client may send around its name.
pub fn any_hello() -> impl Strategy<Value = Hello> {
    let other = prop_oneof![
        Just((extension::ALPN, alpn(&[b"h2", b"http/1.1"]))),
        Just((extension::ALPN, alpn(&[&[0x5a, 0x5a], b"http/1.1"]))),
        (1u16.., prop::collection::vec(any::<u8>(), 0..300)),
    ];
    (
        "[a-z0-9]{1,20}(\\.[a-zA-Z_-]{1,10}){1,5}",
        prop::collection::vec(any::<u8>(), 0..=32),
        prop::collection::vec(any::<u16>(), 1..40),
        prop::collection::vec(other, 0..8),
        any::<prop::sample::Index>(),
        0x0300u16..=0x03ff,
    )
        .prop_map(|(name, session, ciphers, mut extensions, place, version)| {
            let at = place.index(extensions.len() + 1);
            extensions.insert(at, (extension::SERVER_NAME, server_name(name.as_bytes())));
            Hello {
                version,
                session,
                ciphers,
                compression: vec![0],
                extensions: Some(extensions),
            }
        })
}

/// The name a hello of [`any_hello`] carries, in lower case.
fn sent_name(hello: &Hello) -> String {
    let extensions = hello.extensions.as_ref().unwrap();
    let (_, body) = extensions.iter().find(|(kind, _)| *kind == 0).unwrap();
    String::from_utf8(body[5..].to_vec())
        .unwrap()
        .to_lowercase()
}

/// Counts of stored bytes, ascending, that end with all of the stream.
fn arrivals(len: usize, cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut stored: Vec<_> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    stored.sort_unstable();
    stored.push(len);
    stored
}

#[test]
fn every_two_cuts_of_a_hello() {
    let stream = Hello::named(NAME)
        .with(extension::ALPN, &alpn(&[b"h2"]))
        .stream();
    let whole = read(&stream);
    assert_eq!(whole.name(), Some(NAME));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            assert_eq!(read_arriving(&stream, [first, second, stream.len()]), whole);
        }
    }
}

#[test]
fn every_cut_of_a_long_hello() {
    let hello = Hello::named(NAME).first(extension::KEY_SHARE, &[0; 1258]);
    for message_in in [16, 500, 1 << 14] {
        let stream = records(&hello.message(), |_| message_in);
        let whole = read(&stream);
        assert_eq!(whole.name(), Some(NAME));
        for cut in 0..=stream.len() {
            assert_eq!(read_arriving(&stream, [cut, stream.len()]), whole);
        }
        assert_eq!(
            read_arriving(&stream, 0..=stream.len()),
            whole,
            "byte by byte"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn segments_do_not_matter(
        hello in any_hello(),
        tail in prop::collection::vec(any::<u8>(), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut stream = hello.stream();
        let end = stream.len();
        stream.extend(tail);
        let whole = read(&stream);
        let name = sent_name(&hello);
        prop_assert_eq!(whole.name(), Some(name.as_str()));
        let is_whole = matches!(whole, Outcome::Named { end: at, .. } if at == end);
        prop_assert!(is_whole);
        prop_assert_eq!(read_arriving(&stream, arrivals(stream.len(), &cuts)), whole);
    }

    /// Records of 1 to 16 bytes, and segments that do not care about records.
    #[test]
    fn records_do_not_matter(
        hello in any_hello(),
        sizes in prop::collection::vec(1usize..=16, 1..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream = records(&hello.message(), |count| sizes[count % sizes.len()]);
        let outcome = read_arriving(&stream, arrivals(stream.len(), &cuts));
        let name = sent_name(&hello);
        prop_assert_eq!(outcome.name(), Some(name.as_str()));
        let is_whole = matches!(outcome, Outcome::Named { end, .. } if end == stream.len());
        prop_assert!(is_whole);
    }

    /// Nothing is decided in favour of a hello before all of it is there.
    #[test]
    fn a_part_is_never_routed(hello in any_hello(), cut: prop::sample::Index) {
        let stream = hello.stream();
        let part = &stream[..cut.index(stream.len())];
        prop_assert_eq!(read(part), Outcome::Incomplete);
    }

    /// A verdict does not depend on how much arrived with it, for any bytes.
    #[test]
    fn refusals_do_not_depend_on_segments(
        hello in any_hello(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut stream = hello.stream();
        for (at, value) in damage {
            let at = at.index(stream.len());
            stream[at] = value;
        }
        prop_assert_eq!(read_arriving(&stream, arrivals(stream.len(), &cuts)), read(&stream));
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 5..100)) {
        prop_assume!(noise[0] != 22);
        prop_assert_eq!(read(&noise), Outcome::Refused(DropReason::NotTls));
    }
}
