//! PROXY protocol headers, version 2, of connections that this daemon makes itself.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use forwarder_common::abi::{Address, address_v4, address_v6};
use forwarder_common::proxy::{self, Header, HeaderBytes};

/// The command LOCAL, no addresses: the connection is the proxy's own.
pub const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The header that the kernel programs would send for a client at `client` that asks for `name`.
pub fn of(client: SocketAddr, local: SocketAddr, name: &str) -> Vec<u8> {
    let header = Header {
        client: address(client.ip()),
        local: address(local.ip()),
        client_port_be: client.port().to_be(),
        local_port_be: local.port().to_be(),
        name_len: name.len() as u32,
        alpn_len: 0,
        unique_id: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos() as u64),
    };
    let v6 = local.is_ipv6();
    let mut out = Bytes {
        bytes: vec![0; proxy::length(v6, header.name_len, 0) as usize],
        name: name.as_bytes(),
    };
    if v6 {
        header.write::<true>(&mut out, 0);
    } else {
        header.write::<false>(&mut out, 0);
    }
    out.bytes
}

fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => address_v4(v4.octets()),
        IpAddr::V6(v6) => address_v6(v6.octets()),
    }
}

struct Bytes<'a> {
    bytes: Vec<u8>,
    name: &'a [u8],
}

impl HeaderBytes for Bytes<'_> {
    fn put(&mut self, at: u32, byte: u8) {
        if let Some(own) = self.bytes.get_mut(at as usize) {
            *own = byte;
        }
    }

    fn name(&self, index: u32) -> u8 {
        self.name.get(index as usize).copied().unwrap_or_default()
    }

    fn alpn(&self, _index: u32) -> u8 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_a_client() {
        let client = "10.0.0.1:40000".parse().unwrap();
        let local = "10.0.0.2:443".parse().unwrap();
        let header = of(client, local, "www.example.org");
        assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(
            &header[12..14],
            &[0x21, 0x11],
            "version 2, PROXY, TCP over IPv4"
        );
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(header.len(), 16 + length);
        assert_eq!(&header[16..24], &[10, 0, 0, 1, 10, 0, 0, 2]);
        assert!(header.ends_with(b"www.example.org"));
    }
}
