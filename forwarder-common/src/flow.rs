//! The life of a spliced flow, as one side's segments tell it.
//!
//! A flow ends when both FINs are acknowledged, or at a reset whose sequence number is exactly what the
//! receiver expects (RFC 5961 3.2), or one less behind a FIN. Anything else only leaves a mark: an off-path
//! attacker who guesses a window must not end a flow, so such a reset is forwarded and the endpoints decide.
//! The receiver may expect more than it has told so far; when its acknowledgement of exactly that number
//! follows, and the sender of the reset has not gone on, the reset has met what it needed. Segments far from
//! what is expected change nothing here.
//!
//! Anybody on the internet can send in the client's name, so a client's segment moves a flow only as far as its
//! node bears it out: an acknowledgement counts up to what the node has sent (`Flow::node_end`), a FIN must come
//! with an acknowledgement that its node can expect (RFC 5961 5.2), and what the node has acknowledged as the end
//! does not change any more. Only the node itself can send in its own name, by its own interface.
//!
//! A SYN from the ports of an open connection says nothing about it: anybody can send that, too. The node is asked
//! instead, by [`Flow::probe`], and what it answers ends the flow or keeps it.
//!
//! Sequence numbers are those of the client's view: the node's, with `delta` added.

use crate::abi::{Address, Flow, Node, mark};
use crate::segment::Segment;
use crate::seq::{self, SeqNumber};
use crate::tcp::flag;

/// Half the range around the expected sequence number in which a segment may change a flow: 32 MiB, more
/// than any receive window in use.
const PLAUSIBLE: u32 = 1 << 25;

/// Half the range in which both numbers must be for a segment to lead the way back to another interface: 1 MiB, what
/// is under way on most paths. On others the client's second segment is that close.
const CLOSE: u32 = 1 << 20;

/// SYNs on an open flow make one question to its node in each tick of so many ms: a few within the second after which a
/// client repeats its SYN (RFC 6298 2.1). Three bits of a tick are kept, and its later repetitions, 2, 4, 8 seconds and so
/// on apart, are never a multiple of eight ticks apart.
const TICK_MS: u32 = 300;

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

impl Passing {
    /// The sequence number that follows it.
    #[inline(always)]
    const fn end(&self) -> u32 {
        let fin = (self.flags & flag::FIN != 0) as u32;
        self.seq.wrapping_add(self.payload_len).wrapping_add(fin)
    }
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

    /// A SYN from the ports of a spliced flow. It goes no further. Says whether the node is to be asked instead
    /// ([`Self::probe`]), which it is once a tick.
    #[inline(always)]
    #[must_use]
    pub fn client_syn(&mut self, now_ms: u32) -> bool {
        let asked = mark::SYN | ((now_ms / TICK_MS) as u8) << mark::TICK_SHIFT;
        let ticks = mark::SYN | u8::MAX << mark::TICK_SHIFT;
        let due = self.client_marks & ticks != asked;
        self.client_marks = self.client_marks & !ticks | asked;
        due
    }

    /// The question to a node whether it still has the connection: a byte that it has acknowledged already, as a
    /// keep-alive with data (RFC 9293 3.8.4).
    ///
    /// A node that has the connection acknowledges once more; one that has not answers with a reset that is exact
    /// for the flow (RFC 9293 3.10.7). The byte is there because Linux answers a segment with data that it has
    /// already, but may withhold the answer to one without, as it does with challenge ACKs
    /// (`tcp_oow_rate_limited`, net/ipv4/tcp_input.c). Its value cannot matter: the node has read that byte. So this
    /// may be asked only of a spliced flow, whose node has acknowledged the whole hello.
    ///
    /// The window is the least that is none of zero: a node takes it for the client's only if it tells of more
    /// than the client's own last segment did.
    #[inline(always)]
    #[must_use]
    pub const fn probe(&self, client: &Address, node: &Node) -> Segment {
        Segment {
            source: if self.is_transparent() {
                *client
            } else {
                node.local
            },
            destination: node.address,
            source_port_be: self.source_port_be,
            destination_port_be: node.port_be,
            seq: self.client_expected().wrapping_sub(1),
            ack: self.node_expected().wrapping_sub(self.delta),
            flags: flag::ACK,
            window: 1,
            options: [0; 3],
            option_words: 0,
            payload_len: 1,
        }
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
        let told = self.node_expected();
        if segment.flags & flag::ACK != 0 {
            // Signed: an old one lies behind, and moves nothing.
            let further = segment.ack.wrapping_sub(told).cast_signed();
            let most = self.node_end.wrapping_sub(told).cast_signed();
            if further > 0 && further <= most {
                self.client_acked = self.client_acked.wrapping_add(further as u64);
            }
        }
        if is_reset {
            return Outcome::Reset;
        }
        if segment.flags & flag::FIN != 0 && self.is_fin_of_client(segment, expected, told) {
            self.client_end = segment.end();
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
        let (expected, sent) = (self.node_expected(), self.node_end);
        // It may be ahead of what the client has told by a whole window, but not of what it has sent itself.
        if !plausible(segment.seq, sent) && !plausible(segment.seq, expected) {
            return Outcome::Open;
        }
        let is_reset = segment.flags & flag::RST != 0;
        if is_reset {
            let end = (self.node_marks & mark::FIN != 0).then_some(sent);
            if !is_exact(segment.seq, expected, end) {
                self.node_marks |= mark::RESET;
                if is_exact(segment.seq, sent, end) {
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
        let ahead = segment.end().wrapping_sub(sent).cast_signed();
        if ahead > 0 {
            self.node_end = segment.end();
        }
        if segment.flags & flag::FIN != 0 && ahead >= 0 {
            self.node_marks |= mark::FIN;
        }
        if self.client_marks | self.node_marks != 0 {
            self.ends(false)
        } else {
            Outcome::Open
        }
    }

    /// Whether the FIN of a segment in the client's name may be the client's: the node has not got beyond it, nor
    /// already acknowledged another one, and it comes with an acknowledgement that the node can expect. In place of
    /// another one it counts only with the newest.
    #[inline(always)]
    const fn is_fin_of_client(&self, segment: &Passing, expected: u32, told: u32) -> bool {
        let ahead = segment.end().wrapping_sub(expected).cast_signed();
        let new = segment.ack.wrapping_sub(told).cast_signed();
        let most = self.node_end.wrapping_sub(told).cast_signed();
        let (least, settled) = if self.client_marks & mark::FIN == 0 {
            (-PLAUSIBLE.cast_signed(), false)
        } else {
            (0, self.client_end == expected)
        };
        let acknowledges = segment.flags & flag::ACK != 0 && new >= least && new <= most;
        ahead >= 0 && !settled && acknowledges
    }

    /// The rare part: some mark is set and this side has just sent something other than a reset.
    #[inline(always)]
    fn ends(&mut self, by_client: bool) -> Outcome {
        if by_client {
            self.client_marks &= mark::FIN;
            // The node has acknowledged more than it: that FIN was not the client's.
            if self
                .client_expected()
                .wrapping_sub(self.client_end)
                .cast_signed()
                > 0
            {
                self.client_marks = 0;
            }
        } else {
            let answered = self.client_marks & mark::SYN != 0;
            let alive = if answered { mark::ALIVE } else { 0 };
            self.node_marks = self.node_marks & mark::FIN | alive;
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
