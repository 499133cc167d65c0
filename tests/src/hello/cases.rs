//! Hellos with the verdict that each must get: where two readers could disagree, it is refused.

use super::{Hello, records, server_name};

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to a node, byte for byte.
    Route,
    /// It is refused, and no node hears of it.
    Refuse,
}

/// A beginning of a connection and its verdict.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub title: &'static str,
    /// What the client sends.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub verdict: Verdict,
}

/// All cases for a name that is listed.
#[must_use]
pub fn all(name: &str) -> Vec<Case> {
    let route = routed(name).into_iter().map(|(title, bytes)| Case {
        title,
        bytes,
        verdict: Verdict::Route,
    });
    let refuse = refused(name).into_iter().map(|(title, bytes)| Case {
        title,
        bytes,
        verdict: Verdict::Refuse,
    });
    route.chain(refuse).collect()
}

fn routed(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let small = || Hello::small(name);
    let mut odd_version = small();
    odd_version.record_version = 0x0305;
    let mut early = small().record();
    early.extend([20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 4, 1, 2, 3, 4]);
    let mut no_session = small();
    no_session.session.clear();
    vec![
        ("a small hello", small().record()),
        ("a browser's hello", Hello::browser(name, 7).record()),
        (
            "a browser's hello with the name at the end",
            Hello::browser(name, 8).name_last().record(),
        ),
        (
            "upper-case letters",
            Hello::small(&name.to_ascii_uppercase()).record(),
        ),
        ("an odd record version", odd_version.record()),
        ("no session id", no_session.record()),
        (
            "an unknown extension of 3,000 bytes",
            small().extension(0xbeef, vec![7; 3_000]).record(),
        ),
        ("early data after the hello", early),
        ("two records", small().records(100)),
        ("records of 16 bytes", small().records(16)),
        (
            "a browser's hello in records of 16 bytes",
            Hello::browser(name, 9).records(16),
        ),
        ("ten thousand bytes", small().padded_to(10_000).record()),
        (
            "an offer of acme-tls/1",
            small().alpn(&["acme-tls/1"]).record(),
        ),
        ("a ticket", small().extension(35, vec![9; 200]).record()),
    ]
}

fn refused(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut cases = bad_names(name);
    cases.extend(bad_structure(name));
    cases.extend(not_a_hello(name));
    cases
}

fn bad_names(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let with = |content| Hello::small(name).server_name(content).record();
    let named = |bytes: &[u8]| with(server_name(&[(0, bytes)]));
    let text = name.as_bytes();
    vec![
        ("no server name", Hello::small(name).without_name().record()),
        ("an empty name", named(b"")),
        ("an empty list of names", with(vec![0, 0])),
        ("an empty server name extension", with(Vec::new())),
        ("a trailing dot", named(format!("{name}.").as_bytes())),
        (
            "a NUL inside",
            named(format!("{name}\0.evil.example").as_bytes()),
        ),
        ("a space", named(b"www .example.org")),
        ("bytes beyond ASCII", named("wẅw.example.org".as_bytes())),
        ("an IPv4 address", named(b"192.0.2.1")),
        ("an IPv6 address", named(b"2001:db8::1")),
        (
            "a name type that is not a host name",
            with(server_name(&[(1, text)])),
        ),
        (
            "two names",
            with(server_name(&[(0, text), (0, b"evil.example")])),
        ),
        ("a name of 300 bytes", named(&[b'a'; 300])),
        (
            "a label of 64 bytes",
            named(format!("{}.example.org", "a".repeat(64)).as_bytes()),
        ),
    ]
}

fn bad_structure(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = name.as_bytes();
    // The list's length stands in bytes 0 and 1, the name's in bytes 3 and 4.
    let lying = |at: usize, by: i8| {
        let mut content = server_name(&[(0, text)]);
        content[at] = content[at].wrapping_add_signed(by);
        Hello::small(name).server_name(content).record()
    };
    let mut no_extensions = Hello::small(name);
    no_extensions.extensions = None;
    // The message's own length is put right, so that only the inner one lies.
    let mut cut = Hello::small(name).message();
    cut.truncate(cut.len() - 3);
    let [_, length @ ..] = u32::try_from(cut.len() - 4)
        .unwrap_or_default()
        .to_be_bytes();
    cut[1..4].copy_from_slice(&length);
    vec![
        ("no extensions at all", no_extensions.record()),
        (
            "the extension twice",
            Hello::small(name)
                .extension(0, server_name(&[(0, text)]))
                .record(),
        ),
        ("a list length that is too large", lying(1, 1)),
        ("a list length that is too small", lying(1, -1)),
        ("a name length that is too large", lying(4, 1)),
        ("a name length that is too small", lying(4, -1)),
        (
            "an extension that reaches past the end",
            records(&cut, 16_384, 0x0301),
        ),
        (
            "a hello longer than 16 KB",
            Hello::small(name).padded_to(20_000).record(),
        ),
    ]
}

fn not_a_hello(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hello = Hello::small(name).record();
    let after = |first: &[u8]| [first, &hello].concat();
    let changed = |at: usize, to: u8| {
        let mut bytes = hello.clone();
        bytes[at] = to;
        bytes
    };
    let mut ssl2 = vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10];
    ssl2.extend([5; 37]);
    vec![
        ("a ServerHello", changed(5, 2)),
        ("a record version that is not 3", changed(1, 2)),
        ("an alert first", after(&[21, 3, 3, 0, 2, 1, 0])),
        ("a change of cipher first", after(&[20, 3, 3, 0, 1, 1])),
        ("an empty handshake record first", after(&[22, 3, 1, 0, 0])),
        ("an SSLv2 hello", ssl2),
        (
            "an HTTP request",
            format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes(),
        ),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ]
}
