//! ICMP errors about segments of our flows: "fragmentation needed" (RFC 1191) and "packet too big"
//! (RFC 8201) are translated like the segment they quote, or path-MTU discovery ends in a black hole.

use aya_ebpf::programs::TcContext;

use crate::count::PASS;
use crate::packet::Packet;

/// From an entry point.
#[inline(always)]
pub fn enter<const L3: usize, const V6: bool>(
    _context: &TcContext,
    _packet: Packet,
    _public: bool,
) -> i32 {
    PASS
}

/// The stage.
#[inline(always)]
pub fn stage(_context: &TcContext) -> i32 {
    PASS
}
