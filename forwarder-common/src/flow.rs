//! The life of a spliced flow, as one side's segments tell it.
//!
//! A flow ends when both FINs are acknowledged, or at a reset whose sequence number is exactly what the
//! receiver expects (RFC 5961 3.2), or one less behind a FIN. Anything else only leaves a mark: an off-path
//! attacker who guesses a window must not end a flow, so such a reset is forwarded and the endpoints decide.
//! The receiver may expect more than it has told so far; when its acknowledgement of exactly that number
//! follows, and the sender of the reset has not gone on, the reset has met what it needed. Segments far from
//! what is expected change nothing here.
//!
//! Sequence numbers are those of the client's view: the node's, with `delta` added.

use crate::abi::{Flow, mark};
use crate::seq::{self, SeqNumber};
use crate::tcp::flag;

/// Half the range around the expected sequence number in which a segment may change a flow: 32 MiB, more
/// than any receive window in use.
const PLAUSIBLE: u32 = 1 << 25;

/// Half the range in which both numbers must be for a segment to lead the way back to another interface: 1 MiB, what
/// is under way on most paths. On others the client's second segment is that close.
const CLOSE: u32 = 1 << 20;

/// A little less than the first time-out of a SYN, which is a second (RFC 6298 2.1), ms.
const SYN_PATIENCE_MS: i32 = 900;

/// One segment, in the client's view.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts only with the ACK flag.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// Bytes of payload.
    pub payload_len: u32,
}

/// What a segment means for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The flow goes on.
    Open,
    /// Both ends have closed, and know it of each other.
    Finished,
    /// The sender reset it.
    Reset,
}

impl Flow {
    /// What the node expects next from the client, as far as its acknowledgements have told.
    #[must_use]
    #[inline(always)]
    pub const fn client_expected(&self) -> u32 {
        self.client_isn.wrapping_add(self.node_acked as u32)
    }

    /// What the client expects next from the node.
    #[must_use]
    #[inline(always)]
    pub const fn node_expected(&self) -> u32 {
        self.entrance_isn.wrapping_add(self.client_acked as u32)
    }

    /// The id in PROXY headers and events: unique as long as no two flows are made in one millisecond
    /// under one cookie.
    #[must_use]
    #[inline(always)]
    pub const fn unique_id(&self) -> u64 {
        (self.opened_ms as u64) << 32 | self.entrance_isn as u64
    }

    /// A SYN from the client of a spliced flow, which is forwarded: the node's answer tells whether it still
    /// has the connection. The repetitions do not count as life.
    #[inline(always)]
    pub fn client_syn(&mut self, now_ms: u32) {
        if self.client_marks & mark::SYN == 0 {
            self.client_marks |= mark::SYN;
            self.seen_ms = now_ms;
        }
    }

    /// Whether a SYN of the client's was forwarded and the node said nothing to it for so long that a client
    /// repeats it (RFC 6298 2.1): neither end has the connection any more.
    #[must_use]
    #[inline(always)]
    pub const fn is_abandoned(&self, now_ms: u32) -> bool {
        self.client_marks & mark::SYN != 0
            && self.node_marks & mark::ALIVE == 0
            // Signed: the node's side may have written a later time than this one read.
            && now_ms.wrapping_sub(self.seen_ms).cast_signed() >= SYN_PATIENCE_MS
    }

    /// Whether a segment is the client's own beyond doubt: both its numbers are close to where the ends stand. Somebody
    /// who knows the ends alone guesses that once in four million times.
    #[must_use]
    #[inline(always)]
    pub const fn is_current(&self, segment: &Passing) -> bool {
        segment.flags & (flag::ACK | flag::SYN | flag::RST) == flag::ACK
            && within(CLOSE, segment.seq, self.client_expected())
            && within(CLOSE, segment.ack, self.node_expected())
    }

    /// A segment from the client.
    #[inline(always)]
    pub fn client_segment(&mut self, segment: &Passing) -> Outcome {
        let expected = self.client_expected();
        if !plausible(segment.seq, expected) {
            return Outcome::Open;
        }
        let is_reset = segment.flags & flag::RST != 0;
        if is_reset {
            let end = (self.client_marks & mark::FIN != 0).then_some(self.client_end);
            if !is_exact(segment.seq, expected, end) {
                self.client_marks |= mark::RESET;
                if self.client_marks & mark::FIN == 0 {
                    self.client_end = segment.seq;
                }
                if is_exact(segment.seq, self.client_end, end) {
                    self.client_marks |= mark::RESET_AT_END;
                }
                return Outcome::Open;
            }
        }
        if segment.flags & flag::ACK != 0 && plausible(segment.ack, self.node_expected()) {
            let acked = self.client_acked;
            self.client_acked = advance(acked, self.entrance_isn, segment.ack);
        }
        if is_reset {
            return Outcome::Reset;
        }
        if segment.flags & flag::FIN != 0 {
            self.client_end = segment
                .seq
                .wrapping_add(segment.payload_len)
                .wrapping_add(1);
            self.client_marks |= mark::FIN;
        }
        if self.client_marks | self.node_marks != 0 {
            self.ends(true)
        } else {
            Outcome::Open
        }
    }

    /// A segment from the node.
    #[inline(always)]
    pub fn node_segment(&mut self, segment: &Passing) -> Outcome {
        let expected = self.node_expected();
        if !plausible(segment.seq, expected) {
            return Outcome::Open;
        }
        let is_reset = segment.flags & flag::RST != 0;
        if is_reset {
            let end = (self.node_marks & mark::FIN != 0).then_some(self.node_end);
            if !is_exact(segment.seq, expected, end) {
                self.node_marks |= mark::RESET;
                if self.node_marks & mark::FIN == 0 {
                    self.node_end = segment.seq;
                }
                if is_exact(segment.seq, self.node_end, end) {
                    self.node_marks |= mark::RESET_AT_END;
                }
                return Outcome::Open;
            }
        }
        if segment.flags & flag::ACK != 0 && plausible(segment.ack, self.client_expected()) {
            let acked = self.node_acked;
            self.node_acked = advance(acked, self.client_isn, segment.ack);
        }
        if is_reset {
            return Outcome::Reset;
        }
        if segment.flags & flag::FIN != 0 {
            self.node_end = segment
                .seq
                .wrapping_add(segment.payload_len)
                .wrapping_add(1);
            self.node_marks |= mark::FIN;
        }
        if self.client_marks | self.node_marks != 0 {
            self.ends(false)
        } else {
            Outcome::Open
        }
    }

    /// The rare part: some mark is set and this side has just sent something other than a reset.
    #[inline(always)]
    fn ends(&mut self, by_client: bool) -> Outcome {
        let (own, other) = if by_client {
            (self.client_marks, self.node_marks)
        } else {
            (self.node_marks, self.client_marks)
        };
        let mut marks = own & mark::FIN;
        if other & mark::SYN != 0 {
            marks |= mark::ALIVE;
        }
        if by_client {
            self.client_marks = marks;
        } else {
            self.node_marks = marks;
        }
        if self.is_closing() && self.is_closed() {
            Outcome::Finished
        } else {
            Outcome::Open
        }
    }

    /// Whether the next segment may end the flow: an end has sent a FIN, or a reset that comes before the other one has
    /// told of all that precedes it. The last two segments may pass at the same time, on two processors of which neither
    /// sees the other's: whoever handed on a segment of such a flow asks [`Self::is_closed`] once more when its own is
    /// visible. A reset without a FIN before it can still be missed so, and the sweeper ends that flow.
    #[must_use]
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        (self.client_marks | self.node_marks) & (mark::FIN | mark::RESET_AT_END) != 0
    }

    /// Whether what a closing flow waits for is acknowledged: the FINs of both, or all that precedes a reset. Exactly:
    /// nothing follows them, so an acknowledgement beyond the recorded end says that they were not the sender's own.
    /// Such a guess must not close the other half.
    #[must_use]
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        let client = self.client_expected() == self.client_end;
        let node = self.node_expected() == self.node_end;
        client && node && self.client_marks & self.node_marks & mark::FIN != 0
            || client && self.client_marks & mark::RESET_AT_END != 0
            || node && self.node_marks & mark::RESET_AT_END != 0
    }
}

/// Whether a receiver that expects `expected` takes a reset at `seq`. After a FIN one less will do: that is where an end
/// which is gone stood when it was sent what it answers, and Linux takes it (`tcp_reset_check`, net/ipv4/tcp_input.c).
#[inline(always)]
const fn is_exact(seq: u32, expected: u32, end: Option<u32>) -> bool {
    seq == expected
        || matches!(end, Some(end) if end == expected) && seq == expected.wrapping_sub(1)
}

#[inline(always)]
const fn plausible(number: u32, expected: u32) -> bool {
    within(PLAUSIBLE, number, expected)
}

/// Whether two numbers are less than `half` apart.
#[inline(always)]
const fn within(half: u32, number: u32, expected: u32) -> bool {
    number.wrapping_sub(expected).wrapping_add(half) < 2 * half
}

/// `acked` bytes from `isn` on were acknowledged; `ack` is a new acknowledgement number.
#[inline(always)]
fn advance(acked: u64, isn: u32, ack: u32) -> u64 {
    seq::extend(acked, SeqNumber(ack.wrapping_sub(isn)))
}
