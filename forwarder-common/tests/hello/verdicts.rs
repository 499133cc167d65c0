//! The table of verdicts: what a hello looks like, and what becomes of it.
//!
//! Each row is a reason why two readers of TLS might disagree, or why a client
//! that exists would be turned away. Every row is read whole, byte by byte, and
//! in records of 16 bytes and of one.

use forwarder_common::verdict::DropReason::{self, *};

use crate::builder::{Hello, alpn, extension, record, records, server_name, server_names};
use crate::oracle::{Seen, names_by_tls_parser, seen_by_rustls};
use crate::reading::{Outcome, read, read_arriving};

const NAME: &str = "www.example.org";

fn hello() -> Hello {
    Hello::named(NAME)
}

/// A hello whose only interesting extension is the server name, given raw.
fn with_server_name(body: &[u8]) -> Hello {
    Hello::bare()
        .with(extension::SERVER_NAME, body)
        .with(extension::SUPPORTED_VERSIONS, &[2, 3, 4])
}

fn with_name(name: &[u8]) -> Hello {
    with_server_name(&server_name(name))
}

/// Longest name of 63-byte labels that DNS allows: 253 bytes.
fn longest_name() -> String {
    [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61),
    ]
    .join(".")
}

#[test]
fn hellos_that_are_routed() {
    let longest = longest_name();
    let shuffled = {
        let mut hello = hello();
        hello.extensions.as_mut().unwrap().reverse();
        hello
    };
    let mut old = hello();
    old.version = 0x0301;
    let mut unknown = hello();
    unknown.version = 0x0401;
    let mut small = hello();
    small.session.clear();
    small.ciphers.truncate(1);
    let mut compressing = hello();
    compressing.compression = vec![1, 0];
    for (what, hello, name) in [
        ("plain", hello(), NAME),
        ("reversed extension order", shuffled, NAME),
        ("TLS 1.0 client", old, NAME),
        ("a version that nobody knows yet", unknown, NAME),
        ("no session id, one cipher suite", small, NAME),
        ("two compression methods", compressing, NAME),
        (
            "nothing but the name",
            Hello::bare().with(0, &server_name(NAME.as_bytes())),
            NAME,
        ),
        (
            "GREASE before and after",
            hello().first(extension::GREASE, &[]).with(0xdada, &[0]),
            NAME,
        ),
        ("padding", hello().padded_to(508), NAME),
        (
            "session ticket",
            hello().with(extension::SESSION_TICKET, &[7; 192]),
            NAME,
        ),
        (
            "post-quantum key share before the name",
            hello().first(extension::KEY_SHARE, &[9; 1258]),
            NAME,
        ),
        (
            "encrypted client hello",
            hello().with(extension::ENCRYPTED_CLIENT_HELLO, &[0; 250]),
            NAME,
        ),
        (
            "unknown extension with a name inside",
            hello().with(0x1234, &server_name(b"x.y")),
            NAME,
        ),
        ("upper case", Hello::named("WWW.Example.ORG"), NAME),
        ("longest name", Hello::named(&longest), &longest),
        ("single label", Hello::named("nas"), "nas"),
        (
            "underscore",
            Hello::named("_a.example.org"),
            "_a.example.org",
        ),
        (
            "encoded international name",
            Hello::named("xn--bcher-kva.example"),
            "xn--bcher-kva.example",
        ),
        (
            "digits in all labels but the last",
            Hello::named("1.2.3.example"),
            "1.2.3.example",
        ),
        (
            "last label begins with digits",
            Hello::named("a.1x"),
            "a.1x",
        ),
        (
            "16 KiB less one record header",
            hello().padded_to((1 << 14) - 4),
            NAME,
        ),
        ("16 KiB", hello().padded_to(1 << 14), NAME),
    ] {
        let stream = hello.stream();
        let Outcome::Named {
            name: found, end, ..
        } = read(&stream)
        else {
            panic!("{what}: {:?}", read(&stream));
        };
        assert_eq!(found, name, "{what}");
        assert_eq!(end, stream.len(), "{what}");
        assert_eq!(
            names_by_tls_parser(&stream),
            Some(vec![name.to_owned()]),
            "{what}"
        );
        assert_same_in_any_framing(what, &hello.message(), &read(&stream));
    }
}

#[test]
fn hellos_that_are_refused() {
    let long_label = format!("{}.org", "a".repeat(64));
    let long_name = format!("{}.e", longest_name());
    for (what, hello, reason) in [
        ("no extension block", Hello::bare(), NoServerName),
        (
            "empty extension block",
            Hello {
                extensions: Some(vec![]),
                ..Hello::bare()
            },
            NoServerName,
        ),
        (
            "no name",
            Hello::bare().with(extension::SUPPORTED_VERSIONS, &[2, 3, 4]),
            NoServerName,
        ),
        ("empty name", with_name(b""), BadServerName),
        (
            "trailing dot",
            with_name(b"www.example.org."),
            BadServerName,
        ),
        ("only a dot", with_name(b"."), BadServerName),
        ("leading dot", with_name(b".example.org"), BadServerName),
        ("two dots", with_name(b"www..org"), BadServerName),
        (
            "embedded NUL",
            with_name(b"www.example.org\0.evil.example"),
            BadServerName,
        ),
        (
            "trailing NUL",
            with_name(b"www.example.org\0"),
            BadServerName,
        ),
        ("space", with_name(b"www example.org"), BadServerName),
        (
            "raw UTF-8",
            with_name("bücher.example".as_bytes()),
            BadServerName,
        ),
        ("newline", with_name(b"www.example.org\n"), BadServerName),
        ("slash", with_name(b"www.example.org/"), BadServerName),
        ("port", with_name(b"www.example.org:443"), BadServerName),
        ("asterisk", with_name(b"*.example.org"), BadServerName),
        ("IPv4 address", with_name(b"192.0.2.1"), BadServerName),
        ("short IPv4 address", with_name(b"127.1"), BadServerName),
        (
            "IPv4 address as one number",
            with_name(b"3221225985"),
            BadServerName,
        ),
        ("IPv6 address", with_name(b"2001:db8::7"), BadServerName),
        (
            "label of 64 bytes",
            with_name(long_label.as_bytes()),
            BadServerName,
        ),
        (
            "name of 255 bytes",
            with_name(long_name.as_bytes()),
            BadServerName,
        ),
        (
            "name type 1",
            with_server_name(&server_names(&[(1, b"www.example.org")])),
            BadServerName,
        ),
        (
            "two names",
            with_server_name(&server_names(&[
                (0, b"www.example.org"),
                (0, b"evil.example"),
            ])),
            SeveralServerNames,
        ),
        (
            "the same name twice",
            with_server_name(&server_names(&[
                (0, b"www.example.org"),
                (0, b"www.example.org"),
            ])),
            SeveralServerNames,
        ),
        (
            "a name and an unknown type",
            with_server_name(&server_names(&[(0, b"www.example.org"), (1, b"x")])),
            SeveralServerNames,
        ),
        (
            "the extension twice",
            hello().with(extension::SERVER_NAME, &server_name(b"evil.example")),
            SeveralServerNames,
        ),
        (
            "the extension twice, equal",
            hello().with(extension::SERVER_NAME, &server_name(NAME.as_bytes())),
            SeveralServerNames,
        ),
        ("empty extension", with_server_name(&[]), MalformedHello),
        (
            "extension of one byte",
            with_server_name(&[0]),
            MalformedHello,
        ),
        ("empty list", with_server_name(&[0, 0]), MalformedHello),
        (
            "list of one byte",
            with_server_name(&[0, 1, 0]),
            MalformedHello,
        ),
        (
            "list length too short",
            with_server_name(&[0, 5, 0, 0, 3, b'a', b'.', b'b']),
            MalformedHello,
        ),
        (
            "list length too long",
            with_server_name(&[0, 7, 0, 0, 3, b'a', b'.', b'b']),
            MalformedHello,
        ),
        (
            "name length too long",
            with_server_name(&[0, 6, 0, 0, 4, b'a', b'.', b'b']),
            MalformedHello,
        ),
        (
            "name length too short",
            with_server_name(&[0, 6, 0, 0, 2, b'a', b'.', b'b']),
            SeveralServerNames,
        ),
        (
            "bytes behind the list",
            with_server_name(&[0, 4, 0, 0, 1, b'a', 0, 0]),
            MalformedHello,
        ),
        (
            "SSL 3 major version 2",
            Hello {
                version: 0x0200,
                ..hello()
            },
            MalformedHello,
        ),
        (
            "session id of 33 bytes",
            Hello {
                session: vec![0; 33],
                ..hello()
            },
            MalformedHello,
        ),
        (
            "no cipher suite",
            Hello {
                ciphers: vec![],
                ..hello()
            },
            MalformedHello,
        ),
        (
            "no compression method",
            Hello {
                compression: vec![],
                ..hello()
            },
            MalformedHello,
        ),
        (
            "longer than 16 KiB",
            hello().padded_to((1 << 14) + 1),
            HelloTooLong,
        ),
    ] {
        let stream = hello.stream();
        assert_eq!(read(&stream), Outcome::Refused(reason), "{what}");
        assert_same_in_any_framing(what, &hello.message(), &Outcome::Refused(reason));
    }
}

/// Lengths that lie, outside of the server name.
#[test]
fn lying_lengths_are_refused() {
    let message = hello().message();
    let session_at = 4 + 2 + 32;
    let ciphers_at = session_at + 1 + 32;
    let compression_at = ciphers_at + 2 + 6;
    let block_at = compression_at + 2;
    let first_extension_at = block_at + 2;
    for (what, at, change) in [
        ("message one byte shorter", 3, -1i8),
        ("session id one byte shorter", session_at, -1),
        ("cipher suites odd", ciphers_at + 1, 1),
        ("cipher suites one fewer", ciphers_at + 1, -2),
        ("cipher suites one more", ciphers_at + 1, 2),
        ("compression one more", compression_at, 1),
        ("extension block one byte shorter", block_at + 1, -1),
        ("extension block one byte longer", block_at + 1, 1),
        ("first extension one byte longer", first_extension_at + 3, 1),
        (
            "first extension one byte shorter",
            first_extension_at + 3,
            -1,
        ),
    ] {
        let mut message = message.clone();
        message[at] = message[at].wrapping_add_signed(change);
        let outcome = read(&records(&message, |_| 1 << 14));
        assert!(
            matches!(outcome, Outcome::Refused(_)),
            "{what}: {outcome:?}"
        );
    }
    // Half a length where the extensions should begin.
    let mut stub = Hello::bare().message();
    stub.push(0);
    stub[3] += 1;
    assert_eq!(
        read(&records(&stub, |_| 1 << 14)),
        Outcome::Refused(MalformedHello)
    );
    // Longer than its parts: refused at once, not when the missing byte arrives.
    let mut longer = message.clone();
    longer[3] += 1;
    assert_eq!(
        read(&records(&longer, |_| 1 << 14)),
        Outcome::Refused(MalformedHello)
    );
}

/// What is not a ClientHello in handshake records at all, or frames it oddly.
#[test]
fn record_layer() {
    let message = hello().message();
    let hello = record(22, 0x0301, &message);
    let (head, tail) = message.split_at(60);
    let in_two = |first: &[u8], second: &[u8]| [first, second].concat();
    let refused = |reason: DropReason| Outcome::Refused(reason);
    let routed = |end: usize| Outcome::Named {
        name: NAME.to_owned(),
        alpn: vec![],
        end,
    };
    let long_record = [&[22, 3, 1, 0x40, 1], &message[..]].concat();
    let of_full_length = [&[22, 3, 1, 0x40, 0], &message[..]].concat();
    for (what, stream, expected) in [
        (
            "record version 3.0",
            record(22, 0x0300, &message),
            routed(hello.len()),
        ),
        (
            "record version 3.3",
            record(22, 0x0303, &message),
            routed(hello.len()),
        ),
        (
            "record version 3.4",
            record(22, 0x0304, &message),
            routed(hello.len()),
        ),
        (
            "record version 3.255",
            record(22, 0x03ff, &message),
            routed(hello.len()),
        ),
        (
            "record version 2.0",
            record(22, 0x0200, &message),
            refused(NotTls),
        ),
        (
            "early data behind",
            in_two(&hello, &[23, 3, 3, 0, 9, 1, 2]),
            routed(hello.len()),
        ),
        (
            "CCS behind",
            in_two(&hello, &[20, 3, 3, 0, 1, 1]),
            routed(hello.len()),
        ),
        (
            "anything behind",
            in_two(&hello, b"GET / HTTP/1.1"),
            routed(hello.len()),
        ),
        (
            "second message in its record",
            record(22, 0x0301, &in_two(&message, &[1, 0, 0, 0])),
            refused(MalformedHello),
        ),
        (
            "other versions in later records",
            in_two(&record(22, 0x0301, head), &record(22, 0x0303, tail)),
            routed(hello.len() + 5),
        ),
        (
            "other major version in a later record",
            in_two(&record(22, 0x0301, head), &record(22, 0x0203, tail)),
            refused(MalformedHello),
        ),
        (
            "CCS between",
            [
                record(22, 0x0301, head),
                record(20, 0x0301, &[1]),
                record(22, 0x0301, tail),
            ]
            .concat(),
            refused(MalformedHello),
        ),
        (
            "alert between",
            [
                record(22, 0x0301, head),
                record(21, 0x0301, &[1, 0]),
                record(22, 0x0301, tail),
            ]
            .concat(),
            refused(MalformedHello),
        ),
        (
            "empty handshake record",
            record(22, 0x0301, &[]),
            refused(NotTls),
        ),
        (
            "empty record first",
            in_two(&record(22, 0x0301, &[]), &hello),
            refused(NotTls),
        ),
        (
            "empty record between",
            [
                record(22, 0x0301, head),
                record(22, 0x0301, &[]),
                record(22, 0x0301, tail),
            ]
            .concat(),
            refused(MalformedHello),
        ),
        (
            "CCS first",
            in_two(&record(20, 0x0301, &[1]), &hello),
            refused(NotTls),
        ),
        (
            "alert first",
            in_two(&record(21, 0x0301, &[2, 40]), &hello),
            refused(NotTls),
        ),
        (
            "application data",
            record(23, 0x0303, &message),
            refused(NotTls),
        ),
        ("record above 2^14", long_record, refused(NotTls)),
        (
            "record of 2^14, not all there",
            of_full_length,
            refused(MalformedHello),
        ),
        (
            "SSLv2 hello",
            vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10, 0, 0, 4, 0, 0],
            refused(NotTls),
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n".to_vec(),
            refused(NotTls),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), refused(NotTls)),
        (
            "PROXY header",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            refused(NotTls),
        ),
        (
            "PROXY v2 header",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
            refused(NotTls),
        ),
        ("zeros", vec![0; 64], refused(NotTls)),
        (
            "server hello",
            record(22, 0x0303, &[2, 0, 0, 38, 3, 3]),
            refused(MalformedHello),
        ),
        (
            "hello request",
            record(22, 0x0301, &[0, 0, 0, 0]),
            refused(MalformedHello),
        ),
        (
            "hello of no length",
            record(22, 0x0301, &[1, 0, 0, 0]),
            refused(MalformedHello),
        ),
        (
            "hello of 40 bytes",
            record(22, 0x0301, &[1, 0, 0, 40]),
            refused(MalformedHello),
        ),
        (
            "hello of 2^24 - 1",
            record(22, 0x0301, &[1, 0xff, 0xff, 0xff]),
            refused(HelloTooLong),
        ),
        ("nothing", vec![], Outcome::Incomplete),
        ("one byte", vec![22], Outcome::Incomplete),
        ("record header", vec![22, 3, 1, 0, 200], Outcome::Incomplete),
        (
            "all but the last byte",
            hello[..hello.len() - 1].to_vec(),
            Outcome::Incomplete,
        ),
    ] {
        assert_eq!(read(&stream), expected, "{what}");
        assert_eq!(
            read_arriving(&stream, 0..=stream.len()),
            expected,
            "{what}, byte by byte"
        );
    }
}

/// The same verdict whether a message arrives at once or in bytes, in one
/// record or in many.
fn assert_same_in_any_framing(what: &str, message: &[u8], whole: &Outcome) {
    let same = |outcome: &Outcome| match (whole, outcome) {
        (
            Outcome::Named { name, alpn, .. },
            Outcome::Named {
                name: n, alpn: a, ..
            },
        ) => (name, alpn) == (n, a),
        _ => whole == outcome,
    };
    for size in [1, 2, 3, 16, 100, 1 << 14] {
        let stream = records(message, |_| size);
        let outcome = read(&stream);
        assert!(same(&outcome), "{what}: in records of {size}: {outcome:?}");
        let outcome = read_arriving(&stream, 0..=stream.len());
        assert!(
            same(&outcome),
            "{what}: in records of {size}, byte by byte: {outcome:?}"
        );
    }
}

#[test]
fn protocol_offers() {
    let h2: &[&[u8]] = &[b"h2", b"http/1.1"];
    let long = [b'x'; 33];
    let longest = [b'x'; 32];
    for (what, body, expected) in [
        ("usual", alpn(h2), &b"h2"[..]),
        ("one", alpn(&[b"http/1.1"]), b"http/1.1"),
        ("GREASE first", alpn(&[&[0x3a, 0x3a], b"h2"]), b"h2"),
        ("only GREASE", alpn(&[&[0xfa, 0xfa]]), b""),
        (
            "two bytes that only resemble GREASE",
            alpn(&[&[0x1a, 0x2a]]),
            &[0x1a, 0x2a],
        ),
        ("ACME TLS-ALPN-01", alpn(&[b"acme-tls/1"]), b"acme-tls/1"),
        ("the longest kept", alpn(&[&longest]), &longest),
        ("longer than is kept", alpn(&[&long, b"h2"]), b""),
        ("an empty name", alpn(&[b"", b"h2"]), b""),
        ("an empty list", alpn(&[]), b""),
        ("an empty extension", vec![], b""),
        (
            "a name that leaves the extension",
            vec![0, 4, 9, b'h', b'2', 0],
            b"",
        ),
    ] {
        for hello in [
            Hello::named(NAME).with(extension::ALPN, &body),
            Hello::named(NAME).first(extension::ALPN, &body),
        ] {
            let Outcome::Named { name, alpn, .. } = read(&hello.stream()) else {
                panic!("{what}: {:?}", read(&hello.stream()));
            };
            assert_eq!((name.as_str(), alpn.as_slice()), (NAME, expected), "{what}");
        }
    }
}

/// rustls reads the routed rows as we do: it is what stands on many nodes.
#[test]
fn a_server_sees_the_routed_name() {
    for name in [NAME, "nas", "xn--bcher-kva.example", "1.2.3.example"] {
        let hello = Hello::named(name).with(extension::KEY_SHARE, &[0, 0]);
        for size in [16, 100, 1 << 14] {
            let stream = records(&hello.message(), |_| size);
            assert_eq!(
                seen_by_rustls(&stream),
                Seen::Hello(Some(name.to_owned())),
                "{size}"
            );
        }
    }
}
