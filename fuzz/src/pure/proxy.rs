//! The PROXY header.

use std::net::SocketAddr;

use forwarder_common::abi::{Address, address_v4, address_v6};
use forwarder_common::hello::{ALPN_MAX, NAME_MAX};
use forwarder_common::proxy::{Header, HeaderBytes, UNIQUE_ID_LEN, length};
use ppp::v2::{self, Addresses, Command, Protocol, Type, Version};

/// Where a header is written; each byte once, and none beside it.
struct Room<'a> {
    bytes: Vec<Option<u8>>,
    from: u32,
    name: &'a [u8],
    alpn: &'a [u8],
}

impl HeaderBytes for Room<'_> {
    fn put(&mut self, at: u32, byte: u8) {
        let at = at.checked_sub(self.from).expect("nothing before it") as usize;
        assert_eq!(self.bytes[at].replace(byte), None, "byte {at} twice");
    }

    fn name(&self, index: u32) -> u8 {
        self.name[index as usize]
    }

    fn alpn(&self, index: u32) -> u8 {
        self.alpn[index as usize]
    }
}

/// What a header says, in the first 47 bytes; a server name and an ALPN protocol of any bytes behind them: `ppp`
/// reads there what was said, and finds the end where it is.
pub fn proxy(data: &[u8]) {
    let Some((fixed, rest)) = data.split_first_chunk::<47>() else {
        return;
    };
    let [flags, numbers @ ..] = fixed;
    let v6 = flags & 1 != 0;
    let (from, numbers) = numbers.split_at(1);
    let (lengths, numbers) = numbers.split_at(1);
    let (client, numbers) = numbers.split_first_chunk::<16>().unwrap();
    let (local, numbers) = numbers.split_first_chunk::<16>().unwrap();
    let (ports, id) = numbers.split_first_chunk::<4>().unwrap();
    let id = u64::from_be_bytes(*id.first_chunk().unwrap());
    let ports = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
    let alpn_len = (usize::from(lengths[0]) % (ALPN_MAX as usize + 1)).min(rest.len());
    let (alpn, name) = rest.split_at(alpn_len);
    let name = &name[..name.len().min(NAME_MAX as usize)];

    let address = |bytes: &[u8; 16]| -> Address {
        match v6 {
            true => address_v6(*bytes),
            false => address_v4(*bytes.first_chunk().unwrap()),
        }
    };
    let from = u32::from(from[0]);
    let header = Header {
        client: address(client),
        local: address(local),
        client_port_be: ports[0].to_be(),
        local_port_be: ports[1].to_be(),
        name_len: name.len() as u32,
        alpn_len: alpn_len as u32,
        unique_id: id,
    };
    let expected = length(v6, header.name_len, header.alpn_len);
    let mut room = Room {
        bytes: vec![None; expected as usize],
        from,
        name,
        alpn,
    };
    match v6 {
        true => header.write::<true>(&mut room, from),
        false => header.write::<false>(&mut room, from),
    }
    let mut stream: Vec<u8> = room.bytes.iter().map(|byte| byte.unwrap()).collect();
    // The hello follows at once.
    stream.extend([22, 3, 1]);

    let read = v2::Header::try_from(stream.as_slice()).expect("a header");
    assert_eq!(read.len(), expected as usize);
    let how = (read.version, read.command, read.protocol);
    assert_eq!(how, (Version::Two, Command::Proxy, Protocol::Stream));
    let meant = |bytes: &[u8; 16], port: u16| -> SocketAddr {
        match v6 {
            true => (*bytes, port).into(),
            false => (*bytes.first_chunk::<4>().unwrap(), port).into(),
        }
    };
    let said: (SocketAddr, SocketAddr) = match read.addresses {
        Addresses::IPv4(a) => (
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        ),
        Addresses::IPv6(a) => (
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(said, (meant(client, ports[0]), meant(local, ports[1])));
    let mut said = Vec::new();
    for tlv in read.tlvs() {
        let tlv = tlv.expect("a value whose length is true");
        said.push((tlv.kind, tlv.value.to_vec()));
    }
    let digits = format!("{id:016x}").into_bytes();
    assert_eq!(digits.len(), UNIQUE_ID_LEN as usize);
    let mut meant = vec![
        (Type::UniqueId as u8, digits),
        (Type::Authority as u8, name.to_vec()),
    ];
    if alpn_len > 0 {
        meant.push((Type::ALPN as u8, alpn.to_vec()));
    }
    assert_eq!(said, meant);
}
