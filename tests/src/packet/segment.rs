//! TCP segments as plain values (RFC 9293, section 3.1).

use std::fmt;
use std::net::SocketAddr;

use etherparse::TcpHeader;

use super::checksum::{fold, pseudo_sum, sum};
use super::ip_header;

/// The TCP flag bits of RFC 9293, section 3.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);
    /// SYN and ACK.
    pub const SYN_ACK: Self = Self(0x12);
    /// FIN and ACK.
    pub const FIN_ACK: Self = Self(0x11);
    /// RST and ACK.
    pub const RST_ACK: Self = Self(0x14);
    /// PSH and ACK.
    pub const PSH_ACK: Self = Self(0x18);

    /// Whether all the bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["F", "S", "R", "P", "A", "U", "E", "C"];
        names
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .try_for_each(|(_, name)| f.write_str(name))
    }
}

/// One TCP segment with its addresses.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub source: SocketAddr,
    /// Whom it is for.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: Flags,
    /// Window, unscaled.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// Options as they stand in the header, padding included.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} > {} [{:?}] seq {} ack {} win {} ttl {} len {}",
            self.source,
            self.destination,
            self.flags,
            self.seq,
            self.ack,
            self.window,
            self.hop_limit,
            self.payload.len()
        )?;
        if self.options.is_empty() {
            Ok(())
        } else {
            write!(f, " options {:02x?}", self.options)
        }
    }
}

impl Segment {
    /// A segment without options or data.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr, flags: Flags) -> Self {
        Self {
            source,
            destination,
            hop_limit: 64,
            seq: 0,
            ack: 0,
            flags,
            window: 64_240,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// The maximum segment size option, if there is one.
    #[must_use]
    pub fn mss(&self) -> Option<u16> {
        self.option(2)
            .and_then(|value| value.try_into().ok())
            .map(u16::from_be_bytes)
    }

    /// The window scale option, if there is one.
    #[must_use]
    pub fn window_scale(&self) -> Option<u8> {
        self.option(3).and_then(|value| value.first().copied())
    }

    /// Whether the segment permits selective acknowledgements.
    #[must_use]
    pub fn sack_permitted(&self) -> bool {
        self.option(4).is_some()
    }

    /// The blocks of a SACK option.
    #[must_use]
    pub fn sack_blocks(&self) -> Vec<(u32, u32)> {
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).unwrap_or_default();
        self.option(5)
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|block| (word(&block[..4]), word(&block[4..])))
            .collect()
    }

    /// The value of the first option of a kind.
    #[must_use]
    pub fn option(&self, wanted: u8) -> Option<&[u8]> {
        let mut rest = self.options.as_slice();
        loop {
            match *rest {
                [0, ..] | [] | [_] => return None,
                [1, ref after @ ..] => rest = after,
                [kind, length, ..] => {
                    let length = usize::from(length);
                    let value = rest.get(2..length)?;
                    if kind == wanted {
                        return Some(value);
                    }
                    rest = rest.get(length..)?;
                }
            }
        }
    }

    /// Where the sequence numbers of this segment end: data plus one each for SYN and FIN.
    #[must_use]
    pub fn end(&self) -> u32 {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let flags = u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN));
        self.seq.wrapping_add(length).wrapping_add(flags)
    }

    /// The IP packet, with right checksums.
    ///
    /// # Panics
    /// If the two addresses are of different families, or the parts do not fit into a packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(
            self.source.port(),
            self.destination.port(),
            self.seq,
            self.window,
        );
        tcp.acknowledgment_number = self.ack;
        tcp.urgent_pointer = self.urgent;
        tcp.fin = self.flags.has(Flags::FIN);
        tcp.syn = self.flags.has(Flags::SYN);
        tcp.rst = self.flags.has(Flags::RST);
        tcp.psh = self.flags.has(Flags::PSH);
        tcp.ack = self.flags.has(Flags::ACK);
        tcp.urg = self.flags.has(Flags::URG);
        tcp.ece = self.flags.has(Flags::ECE);
        tcp.cwr = self.flags.has(Flags::CWR);
        tcp.set_options_raw(&self.options)
            .expect("at most 40 bytes of TCP options");
        let length = tcp.header_len() + self.payload.len();
        let pseudo = pseudo_sum(self.source.ip(), self.destination.ip(), 6, length);
        let all = sum(sum(pseudo, &tcp.to_bytes()), &self.payload);
        tcp.checksum = !fold(all);
        let mut packet = ip_header(
            self.source.ip(),
            self.destination.ip(),
            6,
            self.hop_limit,
            length,
        );
        packet.extend_from_slice(&tcp.to_bytes());
        packet.extend_from_slice(&self.payload);
        packet
    }
}
