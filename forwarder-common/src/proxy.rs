//! The PROXY protocol header, version 2, that precedes a hello in `proxy-v2` pools.
//!
//! Specification: HAProxy's `doc/proxy-protocol.txt`. TLVs: authority (the server name), ALPN (the first
//! protocol the client offers, if any) and a unique id (16 hexadecimal digits, the same as in the events).

use crate::abi::Address;

/// Signature, version and command, family, length.
const FIXED: u32 = 16;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const TYPE_ALPN: u8 = 1;
const TYPE_AUTHORITY: u8 = 2;
const TYPE_UNIQUE_ID: u8 = 5;
const TLV_HEADER: u32 = 3;
/// Length of the unique id.
pub const UNIQUE_ID_LEN: u32 = 16;

/// Where the header goes, and where the names in it come from.
pub trait HeaderBytes {
    /// Writes one byte of the header.
    fn put(&mut self, at: u32, byte: u8);
    /// Byte `index` of the server name.
    fn name(&self, index: u32) -> u8;
    /// Byte `index` of the ALPN protocol.
    fn alpn(&self, index: u32) -> u8;
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The client's address.
    pub client: Address,
    /// The address it connected to, of the same family.
    pub local: Address,
    /// The client's port, network order.
    pub client_port_be: u16,
    /// The port it connected to, network order.
    pub local_port_be: u16,
    /// Length of the server name, at most 253.
    pub name_len: u32,
    /// Length of the ALPN protocol, at most 32; 0 leaves the TLV out.
    pub alpn_len: u32,
    /// Unique id of the connection.
    pub unique_id: u64,
}

/// Length of a header in bytes: at most 16 + 36 + 3 + 253 + 3 + 32 + 3 + 16 = 362.
#[must_use]
#[inline(always)]
pub const fn length(v6: bool, name_len: u32, alpn_len: u32) -> u32 {
    let addresses = if v6 { 36 } else { 12 };
    let alpn = if alpn_len > 0 {
        TLV_HEADER + alpn_len
    } else {
        0
    };
    FIXED + addresses + TLV_HEADER + name_len + alpn + TLV_HEADER + UNIQUE_ID_LEN
}

struct Writer<'a, B> {
    bytes: &'a mut B,
    at: u32,
}

impl<B: HeaderBytes> Writer<'_, B> {
    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.bytes.put(self.at, byte);
        self.at = self.at.wrapping_add(1);
    }

    #[inline(always)]
    fn port(&mut self, port_be: u16) {
        let [high, low] = port_be.to_ne_bytes();
        self.byte(high);
        self.byte(low);
    }

    #[inline(always)]
    fn word(&mut self, word: u32) {
        for byte in word.to_ne_bytes() {
            self.byte(byte);
        }
    }

    #[inline(always)]
    fn address<const V6: bool>(&mut self, address: Address) {
        let [a, b, c, d] = address;
        if V6 {
            self.word(a);
            self.word(b);
            self.word(c);
        }
        self.word(d);
    }

    #[inline(always)]
    fn tlv(&mut self, kind: u8, length: u32) {
        self.byte(kind);
        self.port((length as u16).to_be());
    }
}

impl Header {
    /// Writes the header at offset `at`; it takes [`length`] bytes.
    #[inline(always)]
    pub fn write<const V6: bool>(&self, bytes: &mut impl HeaderBytes, at: u32) {
        let mut out = Writer { bytes, at };
        for byte in SIGNATURE {
            out.byte(byte);
        }
        out.byte(VERSION_2_PROXY);
        out.byte(if V6 { TCP_OVER_IPV6 } else { TCP_OVER_IPV4 });
        let rest = length(V6, self.name_len, self.alpn_len) - FIXED;
        out.port((rest as u16).to_be());
        out.address::<V6>(self.client);
        out.address::<V6>(self.local);
        out.port(self.client_port_be);
        out.port(self.local_port_be);
        out.tlv(TYPE_UNIQUE_ID, UNIQUE_ID_LEN);
        let mut id = self.unique_id;
        for _ in 0..UNIQUE_ID_LEN {
            let digit = (id >> 60) as u8;
            out.byte(if digit < 10 {
                b'0' + digit
            } else {
                b'a' - 10 + digit
            });
            id <<= 4;
        }
        out.tlv(TYPE_AUTHORITY, self.name_len);
        for index in 0..crate::hello::NAME_MAX {
            if index >= self.name_len {
                break;
            }
            let byte = out.bytes.name(index);
            out.byte(byte);
        }
        if self.alpn_len > 0 {
            out.tlv(TYPE_ALPN, self.alpn_len);
            for index in 0..crate::hello::ALPN_MAX {
                if index >= self.alpn_len {
                    break;
                }
                let byte = out.bytes.alpn(index);
                out.byte(byte);
            }
        }
    }
}
