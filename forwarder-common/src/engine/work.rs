//! What one stage hands to the next.

use core::marker::PhantomData;

use super::bounds::Bounds;
use crate::abi::{Address, FlowKey};
use crate::tcp::{OPTIONS_MAX, OptionBytes, SynOptions};

/// A segment that left the fast path, and what is known of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The connection.
    pub key: FlowKey,
    /// The VIP.
    pub local: Address,
    /// Its port, network order.
    pub local_port_be: u16,
    /// Name table of the listener.
    pub table: u16,
    /// Listener number.
    pub listener: u16,
    /// MSS for clients of this listener.
    pub mss: u16,
    /// `on_refuse` of the listener.
    pub on_refuse: u32,
    /// Offset of the IP header: 14 or 0.
    pub l3: u32,
    /// 1 for IPv6.
    pub v6: u32,
    /// Bytes of TCP header.
    pub header_len: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Sequence number, as in the packet.
    pub seq: u32,
    /// Acknowledgement number, as in the packet.
    pub ack: u32,
    /// TCP flags.
    pub flags: u32,
    /// Window, as in the packet.
    pub window: u32,
    /// Index of the hello buffer, once there is one.
    pub slot: u32,
    /// The answer that a stage decided on.
    pub reply: Reply,
    /// Payload bytes that are stored already.
    pub skip: u32,
    /// `DropReason` of a refusal.
    pub reason: u32,
    /// Offset in the stream (PROXY header included) from which a replay goes on.
    pub replay_at: u32,
    /// Runs of the reader for this packet.
    pub runs: u32,
    /// Loop state of a hello being stored: payload bytes left.
    pub left: u32,
    /// Loop state: offset in the packet.
    pub offset: u32,
    /// Loop state: running checksum.
    pub sum: u32,
    /// Public interface, as in `Flow::public_link`.
    pub public_link: u32,
    /// Node index, on the tunnel side.
    pub node: u32,
    /// 1 on the tunnel side.
    pub from_node: u32,
    /// Options of a SYN.
    pub options: SynOptions,
    /// The option block.
    pub option_bytes: [u8; 64],
}

/// A bare segment towards the sender of the one at hand.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// TCP flags.
    pub flags: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// As sent.
    pub window: u32,
}

impl Reply {
    /// With a window of zero.
    #[inline(always)]
    #[must_use]
    pub const fn new(flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            flags: flags as u32,
            seq,
            ack,
            window: 0,
        }
    }
}

impl Work {
    /// Whether a TCP flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag as u32 != 0
    }

    /// Offset of the TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn l4<const V6: bool>(&self) -> u32 {
        self.l3 + if V6 { 40 } else { 20 }
    }
}

/// The option block of a [`Work`].
pub struct Options<'a, B>(&'a [u8; 64], PhantomData<B>);

impl<'a, B> Options<'a, B> {
    /// The options in `bytes`.
    #[inline(always)]
    #[must_use]
    pub const fn new(bytes: &'a [u8; 64]) -> Self {
        Self(bytes, PhantomData)
    }
}

impl<B: Bounds> OptionBytes for Options<'_, B> {
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        B::get::<_, 0, 0x3f, 64>(self.0, B::mask(u64::from(at)))
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        B::word::<0, 0x3c, 64>(self.0, B::mask(u64::from(at)))
    }
}

const _: () = assert!(OPTIONS_MAX + 4 <= 64);
