//! Hellos of real clients: rustls with two cryptography providers, made here
//! and now, and captures of others.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::oracle::{Seen, names_by_tls_parser, seen_by_rustls};
use crate::reading::{Outcome, read, read_arriving};

const NAME: &str = "www.example.org";

/// The first flight of a rustls client.
fn rustls_hello(provider: CryptoProvider, name: &str, protocols: &[&str]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut stream).unwrap();
    }
    stream
}

/// The files beside this one, by name.
pub fn captured() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hello/captured");
    let mut captured: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "bin"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect();
    captured.sort();
    captured
}

fn assert_routed(what: &str, stream: &[u8], name: &str, alpn: &[u8]) {
    let expected = Outcome::Named {
        name: name.to_owned(),
        alpn: alpn.to_vec(),
        end: stream.len(),
    };
    assert_eq!(read(stream), expected, "{what}");
    assert_eq!(
        read_arriving(stream, 0..=stream.len()),
        expected,
        "{what}, byte by byte"
    );
    let segments = (0..stream.len()).step_by(536).chain([stream.len()]);
    assert_eq!(
        read_arriving(stream, segments),
        expected,
        "{what}, in segments of 536"
    );
    assert_eq!(
        names_by_tls_parser(stream),
        Some(vec![name.to_owned()]),
        "{what}"
    );
    assert_eq!(
        seen_by_rustls(stream),
        Seen::Hello(Some(name.to_owned())),
        "{what}"
    );
}

#[test]
fn rustls_with_ring() {
    for name in [NAME, "nas", "a_b.example"] {
        let provider = rustls::crypto::ring::default_provider();
        assert_routed(name, &rustls_hello(provider, name, &[]), name, b"");
    }
}

/// Offers a post-quantum key share: more than one segment.
#[test]
fn rustls_with_aws_lc() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let stream = rustls_hello(provider, NAME, &["h2", "http/1.1"]);
    assert!(
        stream.len() > 1380,
        "{} bytes fit one segment",
        stream.len()
    );
    assert_routed("aws-lc", &stream, NAME, b"h2");
}

/// rustls sends no name to an address; nothing says where to go.
#[test]
fn rustls_to_an_address() {
    let provider = rustls::crypto::ring::default_provider();
    let stream = rustls_hello(provider, "192.0.2.1", &[]);
    assert_eq!(
        read(&stream),
        Outcome::Refused(forwarder_common::verdict::DropReason::NoServerName)
    );
}

#[test]
fn captured_clients() {
    let captured = captured();
    assert_eq!(captured.len(), 10, "captures are missing");
    for (client, stream) in captured {
        let alpn: &[u8] = match client.as_str() {
            "java-17" | "openssl-3.0-s_client" => b"",
            _ => b"h2",
        };
        assert_routed(&client, &stream, NAME, alpn);
    }
}
