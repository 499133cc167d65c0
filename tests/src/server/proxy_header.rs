//! The PROXY protocol header, version 2, as a server sees it; read by the `ppp` crate.

use std::io::{self, Read};
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, Protocol};
use serde::{Deserialize, Serialize};

/// What a PROXY v2 header said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHeader {
    /// `LOCAL`: a health check, without addresses.
    pub local: bool,
    /// Whether it announces TCP over the addresses' family.
    pub stream: bool,
    /// The client.
    pub source: Option<SocketAddr>,
    /// The address that the client connected to.
    pub destination: Option<SocketAddr>,
    /// The name that the client asked for (TLV 2).
    pub authority: Option<String>,
    /// The first protocol that the client offered (TLV 1).
    pub alpn: Option<String>,
    /// The connection's identity in hexadecimal (TLV 5).
    pub unique_id: Option<String>,
    /// The kinds of all TLVs in their order.
    pub tlvs: Vec<u8>,
    /// The length of the whole header.
    pub length: usize,
}

impl ProxyHeader {
    /// Reads a header from a connection, and nothing beyond it.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut bytes = vec![0; 16];
        from.read_exact(&mut bytes)?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        bytes.resize(16 + length, 0);
        from.read_exact(&mut bytes[16..])?;
        Self::parse(&bytes)
    }

    /// Reads a header that stands at the beginning of some bytes.
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        let invalid = |error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("PROXY v2 header: {error:?}"),
            )
        };
        let header = Header::try_from(bytes).map_err(invalid)?;
        let (source, destination) = match header.addresses {
            Addresses::IPv4(a) => (
                Some(SocketAddr::from((a.source_address, a.source_port))),
                Some(SocketAddr::from((
                    a.destination_address,
                    a.destination_port,
                ))),
            ),
            Addresses::IPv6(a) => (
                Some(SocketAddr::from((a.source_address, a.source_port))),
                Some(SocketAddr::from((
                    a.destination_address,
                    a.destination_port,
                ))),
            ),
            Addresses::Unspecified | Addresses::Unix(_) => (None, None),
        };
        let mut seen = Self {
            local: header.command == Command::Local,
            stream: header.protocol == Protocol::Stream,
            source,
            destination,
            authority: None,
            alpn: None,
            unique_id: None,
            tlvs: Vec::new(),
            length: header.len(),
        };
        for tlv in header.tlvs() {
            let tlv = tlv.map_err(invalid)?;
            seen.tlvs.push(tlv.kind);
            let text = || String::from_utf8_lossy(&tlv.value).into_owned();
            match tlv.kind {
                1 => seen.alpn = Some(text()),
                2 => seen.authority = Some(text()),
                5 => {
                    seen.unique_id =
                        Some(tlv.value.iter().map(|byte| format!("{byte:02x}")).collect())
                }
                _ => {}
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Builder, Command, Protocol, Type, Version};

    use super::ProxyHeader;

    #[test]
    fn reads_addresses_and_values_and_stops_there() {
        let source: std::net::SocketAddr = "[2001:db8::1]:4000".parse().unwrap();
        let destination: std::net::SocketAddr = "[2001:db8::7]:443".parse().unwrap();
        let mut bytes = Builder::with_addresses(
            Version::Two | Command::Proxy,
            Protocol::Stream,
            (source, destination),
        )
        .write_tlv(Type::Authority, b"www.example.org")
        .unwrap()
        .write_tlv(Type::UniqueId, &[1, 2, 255])
        .unwrap()
        .build()
        .unwrap();
        bytes.extend_from_slice(b"rest");
        let mut rest = bytes.as_slice();
        let header = ProxyHeader::read(&mut rest).unwrap();
        assert_eq!(rest, b"rest");
        assert_eq!(
            (header.source, header.destination),
            (Some(source), Some(destination))
        );
        assert_eq!(header.authority.as_deref(), Some("www.example.org"));
        assert_eq!(header.unique_id.as_deref(), Some("0102ff"));
        assert_eq!(header.tlvs, [2, 5]);
        assert!(ProxyHeader::parse(b"GET / HTTP/1.1\r\n").is_err());
    }
}
