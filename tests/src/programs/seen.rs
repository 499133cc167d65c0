//! What a program did with a packet, and what must hold of it.

use std::net::IpAddr;

use forwarder_common::verdict::DropReason;

use crate::packet::{Checksums, Packet, Segment};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Others may have it.
    Pass,
    /// It is gone.
    Drop,
    /// It was sent on, or back.
    Redirect,
}

/// What a program did with a packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet from its IP header on, if it was sent on or back.
    pub bytes: Option<Vec<u8>>,
    /// Copies that were sent into the tunnel, from their IP headers on.
    pub clones: Vec<Vec<u8>>,
    /// Reasons that were counted.
    pub reasons: Vec<DropReason>,
}

impl Seen {
    /// The segment that was sent on or back.
    ///
    /// # Panics
    /// When none was.
    #[must_use]
    #[track_caller]
    pub fn segment(&self) -> Segment {
        let Some(bytes) = &self.bytes else {
            panic!("nothing was sent: {:?} {:?}", self.verdict, self.reasons)
        };
        tcp(bytes)
    }

    /// That exactly this was sent, byte for byte, and nothing counted but these reasons.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn expect(&self, segment: &Segment, reasons: &[DropReason]) {
        let seen = self.segment();
        assert_eq!(&seen, segment);
        assert_eq!(
            self.bytes.as_ref(),
            Some(&segment.to_bytes()),
            "IP header of {seen:?}"
        );
        assert_eq!(self.reasons, reasons, "{seen:?}");
    }

    /// That the packet was dropped for this reason, without a word.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn dropped(&self, reason: DropReason) {
        assert_eq!(
            (self.verdict, &self.reasons[..]),
            (Verdict::Drop, &[reason][..])
        );
        assert!(self.clones.is_empty());
    }

    /// That the packet was let through and nothing counted.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn passed(&self) {
        assert_eq!((self.verdict, &self.reasons[..]), (Verdict::Pass, &[][..]));
        assert!(self.clones.is_empty());
    }

    /// Everything that was sent: the copies, then the packet.
    ///
    /// # Panics
    /// When something is not TCP.
    #[must_use]
    #[track_caller]
    pub fn all(&self) -> Vec<Segment> {
        self.clones
            .iter()
            .chain(&self.bytes)
            .map(|b| tcp(b))
            .collect()
    }
}

#[track_caller]
pub(super) fn tcp(bytes: &[u8]) -> Segment {
    let packet = Packet::parse(bytes, false).expect("an IP packet");
    packet.tcp().expect("a TCP segment").clone()
}

/// That a packet has right checksums, and as many bytes as it says.
#[track_caller]
pub(super) fn sound(bytes: &[u8]) {
    let packet = Packet::parse(bytes, false);
    let Some(packet) = packet else {
        panic!("not a whole packet: {bytes:02x?}")
    };
    assert_eq!(packet.checksums, Checksums::Good, "{packet:?}");
    let length = match packet.destination {
        IpAddr::V4(_) => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        IpAddr::V6(_) => 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
    };
    assert_eq!(length, bytes.len(), "{packet:?}");
}
