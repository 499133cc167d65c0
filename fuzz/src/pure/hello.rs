//! The reader of ClientHellos.

#[path = "../../../forwarder-common/tests/hello/oracle.rs"]
mod oracle;
#[path = "../../../forwarder-common/tests/hello/reading.rs"]
mod reading;

use oracle::{Seen, names_by_tls_parser, seen_by_rustls};
use reading::{Outcome, read, read_arriving};

/// A byte stream from a client: one verdict however it arrives, and no name
/// that another reader would not find there.
pub fn hello(stream: &[u8]) {
    let outcome = read(stream);
    assert_eq!(
        read_arriving(stream, 0..=stream.len()),
        outcome,
        "byte by byte"
    );
    let Outcome::Named { end, .. } = outcome else {
        return;
    };
    let name = outcome.name().map(str::to_owned);
    let names = Some(Vec::from_iter(name.clone()));
    assert_eq!(names_by_tls_parser(stream), names, "tls-parser");
    if let Seen::Hello(seen) = seen_by_rustls(&stream[..end]) {
        assert_eq!(seen, name, "rustls");
    }
}
