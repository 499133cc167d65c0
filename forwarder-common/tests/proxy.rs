//! The PROXY header against the `ppp` crate's reader.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use forwarder_common::abi::{Address, address_v4, address_v6};
use forwarder_common::proxy::{Header, HeaderBytes, UNIQUE_ID_LEN, length};
use ppp::v2::{self, Addresses, Command, Protocol, Type, Version};
use proptest::prelude::*;

/// A buffer that knows which bytes were written, and how often.
struct Buffer<'a> {
    bytes: Vec<Option<u8>>,
    name: &'a [u8],
    alpn: &'a [u8],
}

impl HeaderBytes for Buffer<'_> {
    fn put(&mut self, at: u32, byte: u8) {
        let previous = self.bytes[at as usize].replace(byte);
        assert_eq!(previous, None, "byte {at} is written twice");
    }

    fn name(&self, index: u32) -> u8 {
        self.name[index as usize]
    }

    fn alpn(&self, index: u32) -> u8 {
        self.alpn[index as usize]
    }
}

fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => address_v4(ip.octets()),
        IpAddr::V6(ip) => address_v6(ip.octets()),
    }
}

/// The header as bytes, written at an offset as the data path does.
fn header(
    client: SocketAddr,
    local: SocketAddr,
    name: &str,
    alpn: &[u8],
    id: u64,
    at: u32,
) -> Vec<u8> {
    let header = Header {
        client: address(client.ip()),
        local: address(local.ip()),
        client_port_be: client.port().to_be(),
        local_port_be: local.port().to_be(),
        name_len: name.len() as u32,
        alpn_len: alpn.len() as u32,
        unique_id: id,
    };
    let expected = length(client.is_ipv6(), header.name_len, header.alpn_len);
    let mut buffer = Buffer {
        bytes: vec![None; (at + expected) as usize],
        name: name.as_bytes(),
        alpn,
    };
    if client.is_ipv6() {
        header.write::<true>(&mut buffer, at);
    } else {
        header.write::<false>(&mut buffer, at);
    }
    let (before, written) = buffer.bytes.split_at(at as usize);
    assert!(before.iter().all(Option::is_none));
    written
        .iter()
        .map(|byte| byte.expect("every byte of the header is written"))
        .collect()
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (
        any::<Ipv4Addr>(),
        any::<u16>(),
        any::<Ipv4Addr>(),
        any::<u16>(),
    )
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    let v6 = (
        any::<Ipv6Addr>(),
        any::<u16>(),
        any::<Ipv6Addr>(),
        any::<u16>(),
    )
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn ppp_reads_what_we_say(
        (client, local) in addresses(),
        name in "[a-z0-9._-]{1,253}",
        alpn in prop::collection::vec(any::<u8>(), 0..=32),
        id: u64,
        at in 0u32..200,
    ) {
        let bytes = header(client, local, &name, &alpn, id, at);
        // What follows the header belongs to the hello.
        let mut stream = bytes.clone();
        stream.extend([22, 3, 1]);
        let parsed = v2::Header::try_from(stream.as_slice()).unwrap();
        prop_assert_eq!(parsed.len(), bytes.len());
        prop_assert_eq!(parsed.version, Version::Two);
        prop_assert_eq!(parsed.command, Command::Proxy);
        prop_assert_eq!(parsed.protocol, Protocol::Stream);
        let said = match parsed.addresses {
            Addresses::IPv4(v4) => (
                SocketAddr::from((v4.source_address, v4.source_port)),
                SocketAddr::from((v4.destination_address, v4.destination_port)),
            ),
            Addresses::IPv6(v6) => (
                SocketAddr::from((v6.source_address, v6.source_port)),
                SocketAddr::from((v6.destination_address, v6.destination_port)),
            ),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(said, (client, local));
        let mut said: Vec<(u8, Vec<u8>)> = parsed
            .tlvs()
            .map(|tlv| tlv.unwrap())
            .map(|tlv| (tlv.kind, tlv.value.to_vec()))
            .collect();
        let id = format!("{id:016x}").into_bytes();
        prop_assert_eq!(id.len(), UNIQUE_ID_LEN as usize);
        let mut expected = vec![(Type::Authority as u8, name.into_bytes()), (Type::UniqueId as u8, id)];
        if !alpn.is_empty() {
            expected.push((Type::ALPN as u8, alpn));
        }
        said.sort();
        expected.sort();
        prop_assert_eq!(said, expected);
    }
}

/// One header in full, so that a reader of this file sees what a node gets.
#[test]
fn a_header_byte_by_byte() {
    let bytes = header(
        "192.0.2.1:50000".parse().unwrap(),
        "203.0.113.7:443".parse().unwrap(),
        "a.org",
        b"h2",
        0x0123_4567_89ab_cdef,
        0,
    );
    let expected = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x2c",
        &[192, 0, 2, 1, 203, 0, 113, 7][..],
        &[0xc3, 0x50, 0x01, 0xbb],
        b"\x05\0\x100123456789abcdef",
        b"\x02\0\x05a.org",
        b"\x01\0\x02h2",
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn the_longest_header_has_362_bytes() {
    assert_eq!(length(true, 253, 32), 362);
}
