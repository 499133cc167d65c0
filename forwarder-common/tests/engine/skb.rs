//! Packets over byte vectors, from the IP header on.

use std::cell::RefCell;

use forwarder_common::abi::{Address, link};
use forwarder_common::checksum::{Stored, Sum};
use forwarder_common::engine::bounds::{AtMost, Count};
use forwarder_common::engine::header::{Change, Header, Ipv4, Ipv6, Rewrite, Tcp};
use forwarder_common::engine::work::Work;
use forwarder_common::engine::{Frame, Packet, Source, verify};
use forwarder_common::segment::{Headers, Segment};
use forwarder_common::tcp::sack_edges;

use crate::host::Host;

/// A packet, and copies of it that were sent.
pub struct Bytes {
    pub bytes: RefCell<Vec<u8>>,
    pub sent: RefCell<Vec<(u32, Vec<u8>)>>,
    pub ifindex: u32,
    pub now_ns: u64,
}

impl Bytes {
    /// A packet that came by an interface.
    pub fn new(host: &Host, ifindex: u32, bytes: Vec<u8>) -> Self {
        Self {
            bytes: RefCell::new(bytes),
            sent: RefCell::default(),
            ifindex,
            now_ns: host.now_ns.get(),
        }
    }

    /// The packet behind an Ethernet header.
    pub fn frame(&self) -> Self {
        let mut bytes = vec![0; 14];
        bytes.extend_from_slice(&self.bytes.borrow());
        Self {
            bytes: RefCell::new(bytes),
            sent: RefCell::default(),
            ..*self
        }
    }
}

pub type Skb<'a> = &'a Bytes;

/// The bytes of a segment with payload, its checksum right.
pub fn segment<const V6: bool>(segment: &Segment, payload: &[u8]) -> Vec<u8> {
    let segment = Segment {
        payload_len: payload.len() as u32,
        ..*segment
    };
    let headers = segment.headers::<V6>();
    let mut bytes: Vec<u8> = headers.words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    bytes.truncate(headers.len as usize);
    let sum = headers.pseudo + headers.tcp + Sum::of_bytes(payload);
    let at = if V6 { 56 } else { 36 };
    bytes[at..at + 2].copy_from_slice(&sum.checksum().to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().unwrap()))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().unwrap()))
}

fn address(bytes: &[u8], at: usize) -> Option<Address> {
    Some([
        word(bytes, at)?,
        word(bytes, at + 4)?,
        word(bytes, at + 8)?,
        word(bytes, at + 12)?,
    ])
}

/// Offset of the TCP header.
fn l4<const L3: usize, const V6: bool>() -> usize {
    L3 + if V6 { 40 } else { 20 }
}

impl Source for Skb<'_> {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn len(&self) -> u32 {
        self.bytes.borrow().len() as u32
    }

    fn ipv4<const L3: usize>(&self) -> Option<Ipv4> {
        let b = self.bytes.borrow();
        let b = b.get(L3..L3 + 20)?;
        Some(Ipv4 {
            version_length: b[0],
            tos: b[1],
            total_be: half(b, 2)?,
            id: half(b, 4)?,
            fragment_be: half(b, 6)?,
            ttl: b[8],
            protocol: b[9],
            checksum: half(b, 10)?,
            source: word(b, 12)?,
            destination: word(b, 16)?,
        })
    }

    fn ipv6<const L3: usize>(&self) -> Option<Ipv6> {
        let b = self.bytes.borrow();
        let b = b.get(L3..L3 + 40)?;
        Some(Ipv6 {
            version_class_label: word(b, 0)?,
            payload_be: half(b, 4)?,
            next: b[6],
            hop_limit: b[7],
            source: address(b, 8)?,
            destination: address(b, 24)?,
        })
    }

    fn tcp<const L3: usize, const V6: bool>(&self) -> Option<Tcp> {
        let b = self.bytes.borrow();
        let at = l4::<L3, V6>();
        let b = b.get(at..at + 20)?;
        Some(Tcp {
            source_be: half(b, 0)?,
            destination_be: half(b, 2)?,
            seq_be: word(b, 4)?,
            ack_be: word(b, 8)?,
            offset: b[12],
            flags: b[13],
            window_be: half(b, 14)?,
            checksum: half(b, 16)?,
            urgent: half(b, 18)?,
        })
    }

    fn icmp<const L3: usize, const V6: bool>(&self) -> Option<(bool, [u8; 2])> {
        let b = self.bytes.borrow();
        let at = l4::<L3, V6>();
        Some((
            *b.get(L3)? == 0x45,
            b.get(at..at + 8)?.first_chunk().copied()?,
        ))
    }

    fn load_options<const V6: bool>(
        &self,
        l3: u32,
        to: &mut [u8; 64],
        length: Count<0x3f>,
    ) -> bool {
        let at = l3 + if V6 { 60 } else { 40 };
        self.load::<0, 0, 0x3f, 64>(at, to, AtMost::ZERO, length)
    }

    fn verify<const V6: bool>(&self, work: &mut Work) -> Option<bool> {
        let (client, local) = (work.key.client, work.local);
        Some(verify::checksum::<&Host, Self, V6>(
            *self, work, client, local,
        ))
    }
}

impl Packet for Skb<'_> {
    type Scratch = ();

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn link<const L3: usize>(&self) -> u32 {
        self.ifindex | if L3 == 0 { link::NO_HEADER } else { 0 }
    }

    fn wire_packets(&self) -> u64 {
        1
    }

    fn segment_size(&self, payload_len: u32) -> u32 {
        payload_len
    }

    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let bytes = self.bytes.borrow();
        bytes.get(offset as usize..)?.first_chunk().copied()
    }

    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.bytes.borrow();
        let mut words = [0; N];
        for (i, to) in words.iter_mut().enumerate() {
            *to = word(&bytes, offset as usize + 4 * i)?;
        }
        Some(words)
    }

    fn load<const BASE: usize, const MAX: i32, const MASK: i32, const N: usize>(
        &self,
        offset: u32,
        to: &mut [u8; N],
        at: AtMost<MAX>,
        length: Count<MASK>,
    ) -> bool {
        let (at, length) = (BASE + at.get() as usize, length.get() as usize);
        let offset = offset as usize;
        match self.bytes.borrow().get(offset..offset + length) {
            Some(from) => {
                to[at..at + length].copy_from_slice(from);
                true
            }
            None => false,
        }
    }

    fn put_bytes<const L: usize, const N: usize>(&self, offset: u32, from: &[u8; N]) -> bool {
        let offset = offset as usize;
        match self.bytes.borrow_mut().get_mut(offset..offset + L) {
            Some(to) => {
                to.copy_from_slice(&from[..L]);
                true
            }
            None => false,
        }
    }

    fn put_words<const N: usize>(&self, offset: u32, from: &[u32; N]) -> bool {
        let bytes: Vec<u8> = from.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let offset = offset as usize;
        match self.bytes.borrow_mut().get_mut(offset..offset + 4 * N) {
            Some(to) => {
                to.copy_from_slice(&bytes);
                true
            }
            None => false,
        }
    }

    fn scratch(&self) -> Option<()> {
        Some(())
    }

    fn sum(&self, (): &mut (), offset: u32, length: Count<0x1ff>, sum: u32) -> Option<u32> {
        let (offset, length) = (offset as usize, length.get() as usize);
        let bytes = self.bytes.borrow();
        let piece = bytes.get(offset..offset + length)?;
        Some((Sum::ZERO.add_u32_raw(sum) + Sum::of_bytes(piece)).fold32())
    }

    fn resize(&self, length: u32) -> bool {
        self.bytes.borrow_mut().resize(length as usize, 0);
        true
    }

    fn make_room(&self, length: u32) -> bool {
        let zeros = std::iter::repeat_n(0, length as usize);
        self.bytes.borrow_mut().splice(0..0, zeros);
        true
    }

    fn add_ethernet(&self) -> bool {
        self.make_room(14)
    }

    fn swap_ethernet(&self) -> bool {
        true
    }

    fn untag(&self) -> bool {
        true
    }

    fn patch_checksum(&self, field: u32, pseudo: Sum, segment: Sum) {
        self.patch_plain_checksum(field, pseudo + segment);
    }

    fn patch_plain_checksum(&self, field: u32, change: Sum) {
        let mut bytes = self.bytes.borrow_mut();
        let at = field as usize;
        let new = Stored(half(&bytes, at).unwrap()).patched(change).0;
        bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
    }

    fn patch_ip_checksum(&self, field: u32, change: Sum) {
        self.patch_plain_checksum(field, change);
    }

    fn put_headers<const V6: bool>(&self, l3: u32, headers: &Headers, payload: Sum) -> bool {
        // As many words as the kernel's program writes.
        let (shortest, longest) = if V6 { (60, 72) } else { (40, 52) };
        let length = if headers.len == shortest {
            shortest
        } else {
            longest
        };
        let mut bytes = self.bytes.borrow_mut();
        for (i, word) in headers.words.iter().enumerate().take(length as usize / 4) {
            let at = l3 as usize + 4 * i;
            match bytes.get_mut(at..at + 4) {
                Some(to) => to.copy_from_slice(&word.to_ne_bytes()),
                None => return false,
            }
        }
        drop(bytes);
        let field = l3 + if V6 { 56 } else { 36 };
        self.patch_checksum(field, headers.pseudo, headers.tcp + payload);
        true
    }

    fn rewrite<const L3: usize, const V6: bool>(
        &self,
        header: &Header,
        to: &Rewrite,
    ) -> Option<Change> {
        let mut bytes = self.bytes.borrow_mut();
        let b = bytes.get_mut(L3..)?;
        let at = l4::<0, V6>();
        let mut pseudo = Sum::ZERO;
        let (words, source, destination) = if V6 { (0..4, 8, 24) } else { (3..4, 0, 4) };
        for i in words {
            pseudo += Sum::diff(header.source[i], to.source[i]);
            pseudo += Sum::diff(header.destination[i], to.destination[i]);
            let (source, destination) = (source + 4 * i, destination + 4 * i);
            b[source..source + 4].copy_from_slice(&to.source[i].to_ne_bytes());
            b[destination..destination + 4].copy_from_slice(&to.destination[i].to_ne_bytes());
        }
        if V6 {
            b[7] -= 1;
        } else {
            b[8] -= 1;
            b[10..12].fill(0);
            let checksum = Sum::of_bytes(&b[..20]).checksum();
            b[10..12].copy_from_slice(&checksum.to_ne_bytes());
        }
        let tcp = &mut b[at..at + 20];
        let sum = |tcp: &[u8]| Sum::of_bytes(&tcp[..16]) + Sum::of_bytes(&tcp[18..]);
        let old = sum(tcp);
        tcp[0..2].copy_from_slice(&to.source_port_be.to_ne_bytes());
        tcp[2..4].copy_from_slice(&to.destination_port_be.to_ne_bytes());
        tcp[4..8].copy_from_slice(&to.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&to.ack.to_be_bytes());
        tcp[14..16].copy_from_slice(&to.window.to_be_bytes());
        if tcp[13] != to.flags {
            tcp[13] = to.flags;
            tcp[18..20].fill(0);
        }
        let tcp = Sum::diff_u16(old.fold16(), sum(tcp).fold16());
        Some(Change { pseudo, tcp })
    }

    fn shift_selective_acks<const L3: usize, const V6: bool>(
        &self,
        header_len: u32,
        delta: u32,
    ) -> Sum {
        let mut bytes = self.bytes.borrow_mut();
        let at = l4::<L3, V6>() + 20;
        let options = &mut bytes[at..at + header_len as usize - 20];
        let old = Sum::of_bytes(options);
        let first = u32::from_be_bytes(*options.first_chunk().unwrap());
        match sack_edges(first, options.len() as u32) {
            Some(edges) => {
                for edge in options[4..].chunks_exact_mut(4).take(edges as usize) {
                    let number = u32::from_be_bytes(*edge.first_chunk().unwrap());
                    edge.copy_from_slice(&number.wrapping_sub(delta).to_be_bytes());
                }
            }
            None => options.fill(1),
        }
        Sum::diff_u16(old.fold16(), Sum::of_bytes(options).fold16())
    }

    fn clone_to(&self, ifindex: u32) -> bool {
        let copy = self.bytes.borrow().clone();
        self.sent.borrow_mut().push((ifindex, copy));
        true
    }

    fn has_socket<const V6: bool>(&self, _: &Work) -> bool {
        false
    }

    fn leaves_in_clear(&self, _: &Work, _: &Address, _: &Address) -> bool {
        true
    }
}

/// A frame: the packet behind fourteen bytes.
impl Frame for Skb<'_> {
    fn is_for_this_host(&self) -> bool {
        true
    }

    fn destination_port_be(&self, words: usize) -> Option<u16> {
        half(&self.bytes.borrow(), 14 + 4 * words + 2)
    }

    fn answer<const V6: bool>(&self, headers: &Headers) -> bool {
        self.resize(14 + headers.len);
        let mut bytes = self.bytes.borrow_mut();
        let words = headers.words.iter().flat_map(|word| word.to_ne_bytes());
        for (to, byte) in bytes[14..].iter_mut().zip(words) {
            *to = byte;
        }
        let at = 14 + if V6 { 56 } else { 36 };
        let checksum = (headers.pseudo + headers.tcp).checksum();
        bytes[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
        true
    }
}
