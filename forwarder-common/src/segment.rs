//! Builds the headers of a TCP segment of our own: IPv4 (RFC 791) or IPv6 (RFC 8200), and TCP.
//!
//! Headers are words as they stand in the packet. Two sums come with them, because a packet may leave
//! its TCP checksum to the device: the pseudo-header's and the segment's, patched in separately.

use crate::abi::Address;
use crate::checksum::Sum;

/// Words of the longest header: IPv6 (10), TCP (5) and three of options.
pub const WORDS: usize = 18;
/// Time to live of segments that we make.
pub const TTL: u32 = 64;
const TCP: u32 = 6;

/// A segment to build.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network order.
    pub source_port_be: u16,
    /// Destination port, network order.
    pub destination_port_be: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// Window, as sent.
    pub window: u16,
    /// Option words.
    pub options: [u32; 3],
    /// How many of them count.
    pub option_words: u32,
    /// Bytes of payload that will follow.
    pub payload_len: u32,
}

/// The headers of a [`Segment`].
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// The words; only the first `len` bytes count.
    pub words: [u32; WORDS],
    /// Bytes of IP and TCP header.
    pub len: u32,
    /// Sum of the pseudo-header.
    pub pseudo: Sum,
    /// Sum of the TCP header, its checksum taken as zero.
    pub tcp: Sum,
}

/// Bytes of the IP header: 20 or 40.
#[must_use]
#[inline(always)]
pub const fn ip_len<const V6: bool>() -> u32 {
    if V6 { 40 } else { 20 }
}

/// Two 16-bit fields that follow each other, as the word they make.
#[must_use]
#[inline(always)]
pub const fn pair(first_be: u16, second_be: u16) -> u32 {
    let [a, b] = first_be.to_ne_bytes();
    let [c, d] = second_be.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

impl Segment {
    /// Its headers. The TCP checksum field is zero: see [`Headers`].
    #[must_use]
    #[inline(always)]
    pub fn headers<const V6: bool>(&self) -> Headers {
        let tcp_len = 20 + 4 * self.option_words;
        let segment_len = tcp_len + self.payload_len;
        let tcp = [
            pair(self.source_port_be, self.destination_port_be),
            self.seq.to_be(),
            self.ack.to_be(),
            (tcp_len << 26 | u32::from(self.flags) << 16 | u32::from(self.window)).to_be(),
            0,
        ];
        let mut sum = Sum::ZERO;
        for word in tcp {
            sum = sum.add_u32_raw(word);
        }
        if self.option_words > 0 {
            sum = sum.add_u32_raw(self.options[0]);
        }
        if self.option_words > 1 {
            sum = sum.add_u32_raw(self.options[1]);
        }
        if self.option_words > 2 {
            sum = sum.add_u32_raw(self.options[2]);
        }
        let [t0, t1, t2, t3, t4] = tcp;
        let [o0, o1, o2] = self.options;
        let [s0, s1, s2, s3] = self.source;
        let [d0, d1, d2, d3] = self.destination;
        let (words, pseudo) = if V6 {
            let first = 0x6000_0000_u32.to_be();
            let second = (segment_len << 16 | TCP << 8 | TTL).to_be();
            (
                [
                    first, second, s0, s1, s2, s3, d0, d1, d2, d3, t0, t1, t2, t3, t4, o0, o1, o2,
                ],
                Sum::tcp_pseudo_v6(self.source, self.destination, segment_len),
            )
        } else {
            let first = (0x4500_0000 | (20 + segment_len)).to_be();
            let second = 0x4000_u32.to_be(); // don't fragment
            let third = (TTL << 24 | TCP << 16).to_be();
            let header = Sum::ZERO
                .add_u32_raw(first)
                .add_u32_raw(second)
                .add_u32_raw(third)
                .add_u32_raw(s3)
                .add_u32_raw(d3);
            let third = third | pair(0, header.checksum());
            (
                [
                    first, second, third, s3, d3, t0, t1, t2, t3, t4, o0, o1, o2, 0, 0, 0, 0, 0,
                ],
                Sum::tcp_pseudo_v4([s3], [d3], segment_len as u16),
            )
        };
        Headers {
            words,
            len: ip_len::<V6>() + tcp_len,
            pseudo,
            tcp: sum,
        }
    }
}
