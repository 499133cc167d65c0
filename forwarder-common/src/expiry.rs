//! When a flow that nobody ends is over, and when its node is asked first.
//!
//! Only the time of the last segment, the marks and the fill of the table decide. Silence alone ends a flow that no
//! node accepted, one whose hello was never acknowledged, and one that was idle for the whole `idle_timeout`. Any
//! other doubt rests on segments that anybody could have sent in the client's name (a FIN, a reset, a SYN), so the
//! node is asked ([`crate::abi::Flow::probe`]) and ends the flow or keeps it.
//!
//! Times grow shorter as the table fills, along the line that `pf` draws with `adaptive.start` and `adaptive.end`
//! (pf.conf(5)): whole up to 60 % of the table, then straight down towards nothing at 120 %, which leaves a third of
//! each when the table is full.

use crate::abi::{Flow, mark, state};

/// A node that has not answered by then will not: the data path has tried others by now.
pub const UNANSWERED_MS: u64 = 10_000;
/// A flow whose hello the node has not acknowledged.
pub const UNCONFIRMED_MS: u64 = 30_000;
/// Both ends have sent FIN and one acknowledgement got lost; the time of TIME_WAIT on most systems.
pub const CLOSING_MS: u64 = 120_000;
/// One end has sent FIN. The other may go on for long, and then the node says so when it is asked.
pub const HALF_CLOSED_MS: u64 = 120_000;
/// A reset passed that did not match exactly, and nobody has said a word since.
pub const RESET_MS: u64 = 60_000;
/// A SYN came from the client's port, and neither end has said a word since. A node that answered the question then
/// is asked again as after a FIN.
pub const SYN_MS: u64 = 10_000;
/// Without the right to ask, silence after a FIN, a reset or a SYN must last this long, ms.
pub const UNASKED_MS: u64 = 3_600_000;

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// No node answered.
    Unanswered,
    /// The node never acknowledged the hello.
    Unconfirmed,
    /// Both ends had closed.
    Closing,
    /// Reset, then silence.
    Reset,
    /// A SYN from the client's port, then silence.
    Abandoned,
    /// One end had closed, then silence.
    HalfClosed,
    /// Silence.
    Idle,
}

impl Expiry {
    /// The word in logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Unconfirmed => "unconfirmed",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Abandoned => "abandoned",
            Self::HalfClosed => "half_closed",
            Self::Idle => "idle",
        }
    }
}

/// What is to be done about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// It goes on.
    Stays,
    /// Its node is asked; if it says nothing the flow is over.
    Asked(Expiry),
    /// It is over.
    Over(Expiry),
}

/// `ms` while `flows` of `capacity` entries are in use.
#[must_use]
pub const fn shortened(ms: u64, flows: u32, capacity: u32) -> u64 {
    let (flows, capacity) = (flows as u64, capacity as u64);
    // In units of a tenth of the table.
    let (start, end) = (6 * capacity, 12 * capacity);
    if 10 * flows <= start {
        return ms;
    }
    ms.saturating_mul(end.saturating_sub(10 * flows)) / (end - start)
}

/// Milliseconds from `then` to `now`, of a clock that wraps after 49 days; none if `then` is ahead by up to a minute,
/// as it may be by the time it is looked at.
#[must_use]
pub const fn elapsed_ms(then: u32, now: u32) -> u32 {
    let elapsed = now.wrapping_sub(then);
    if elapsed > u32::MAX - 60_000 {
        0
    } else {
        elapsed
    }
}

/// What is to be done at `now_ms` about a flow of a table that holds `flows` of at most `capacity`.
pub const fn fate(flow: &Flow, now_ms: u32, idle_ms: u64, flows: u32, capacity: u32) -> Fate {
    let silent = elapsed_ms(flow.seen_ms, now_ms) as u64;
    let age = elapsed_ms(flow.opened_ms, now_ms) as u64;
    match flow.state {
        state::CONNECTING if age > UNANSWERED_MS => return Fate::Over(Expiry::Unanswered),
        state::REPLAYING if silent > UNCONFIRMED_MS => return Fate::Over(Expiry::Unconfirmed),
        _ => {}
    }
    if silent > shortened(idle_ms, flows, capacity) {
        return Fate::Over(Expiry::Idle);
    }
    let marks = flow.client_marks | flow.node_marks;
    let both = flow.client_marks & flow.node_marks;
    let (why, ms) = match flow.state {
        state::SPLICED if marks & (mark::SYN | mark::ALIVE) == mark::SYN => {
            (Expiry::Abandoned, SYN_MS)
        }
        state::SPLICED if both & mark::FIN != 0 => (Expiry::Closing, CLOSING_MS),
        state::SPLICED if marks & mark::RESET != 0 => (Expiry::Reset, RESET_MS),
        state::SPLICED if marks & mark::SYN != 0 => (Expiry::Abandoned, HALF_CLOSED_MS),
        state::SPLICED if marks & mark::FIN != 0 => (Expiry::HalfClosed, HALF_CLOSED_MS),
        _ => return Fate::Stays,
    };
    if silent > shortened(ms, flows, capacity) {
        Fate::Asked(why)
    } else {
        Fate::Stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE_MS: u64 = 7_440_000;

    fn flow(state: u8, client_marks: u8, node_marks: u8) -> Flow {
        Flow {
            client_isn: 0,
            entrance_isn: 0,
            delta: 0,
            name: 0,
            opened_ms: 1_000,
            seen_ms: 1_000,
            client_end: 0,
            node_end: 0,
            client_acked: 0,
            node_acked: 0,
            public_link: 0,
            node: 0,
            path: 0,
            source_port_be: 0,
            client_address: 0,
            state,
            node_options: crate::node_options::NodeOptions::NONE.0,
            client_marks,
            node_marks,
        }
    }

    #[test]
    fn each_state_has_its_time() {
        use Expiry::{Abandoned, Closing, HalfClosed, Idle, Reset, Unanswered, Unconfirmed};
        use Fate::{Asked, Over};
        use state::{CONNECTING, REPLAYING, SPLICED};
        let (fin, syn, reset, alive) = (mark::FIN, mark::SYN, mark::RESET, mark::ALIVE);
        let cases = [
            (CONNECTING, 0, 0, 10, Over(Unanswered)),
            (REPLAYING, 0, 0, 30, Over(Unconfirmed)),
            (SPLICED, fin, fin, 120, Asked(Closing)),
            (SPLICED, reset, 0, 60, Asked(Reset)),
            (SPLICED, 0, reset | fin, 60, Asked(Reset)),
            (SPLICED, syn, 0, 10, Asked(Abandoned)),
            (SPLICED, syn, fin, 10, Asked(Abandoned)),
            (SPLICED, syn, alive, 120, Asked(Abandoned)),
            (SPLICED, fin, 0, 120, Asked(HalfClosed)),
            (SPLICED, 0, fin, 120, Asked(HalfClosed)),
            (SPLICED, 0, 0, 7_440, Over(Idle)),
        ];
        for (state, client, node, seconds, what) in cases {
            let flow = flow(state, client, node);
            let at = 1_000 + seconds * 1_000;
            assert_eq!(
                fate(&flow, at, IDLE_MS, 6, 10),
                Fate::Stays,
                "{what:?} too early"
            );
            assert_eq!(fate(&flow, at + 1, IDLE_MS, 6, 10), what);
        }
    }

    #[test]
    fn what_no_node_took_was_never_idle() {
        let unanswered = fate(&flow(state::CONNECTING, 0, 0), 9_000_000, IDLE_MS, 0, 10);
        assert_eq!(unanswered, Fate::Over(Expiry::Unanswered));
        let unconfirmed = fate(&flow(state::REPLAYING, 0, 0), 9_000_000, IDLE_MS, 0, 10);
        assert_eq!(unconfirmed, Fate::Over(Expiry::Unconfirmed));
    }

    #[test]
    fn silence_of_a_month_is_seen() {
        let flow = flow(state::SPLICED, 0, 0);
        let idle = 30 * 24 * 3_600_000_u32;
        let at = flow.seen_ms.wrapping_add(idle);
        assert_eq!(fate(&flow, at, idle.into(), 0, 10), Fate::Stays);
        assert_eq!(
            fate(&flow, at + 1, idle.into(), 0, 10),
            Fate::Over(Expiry::Idle)
        );
    }

    #[test]
    fn a_flow_that_is_heard_goes_on() {
        let mut flow = flow(state::SPLICED, mark::FIN, 0);
        flow.seen_ms = 10_000_000;
        assert_eq!(fate(&flow, 10_000_500, IDLE_MS, 0, 10), Fate::Stays);
        let earlier = fate(&flow, 9_999_990, IDLE_MS, 0, 10);
        assert_eq!(earlier, Fate::Stays, "seen after the sweep began");
    }

    #[test]
    fn a_short_idle_time_wins() {
        let flow = flow(state::SPLICED, mark::FIN, 0);
        assert_eq!(fate(&flow, 62_000, 60_000, 0, 10), Fate::Over(Expiry::Idle));
    }

    #[test]
    fn times_shrink_to_a_third_and_never_grow() {
        for capacity in [1, 64, 65_536, 4_194_304, u32::MAX] {
            let whole = (u64::from(capacity) * 6 / 10) as u32;
            assert_eq!(shortened(IDLE_MS, whole, capacity), IDLE_MS);
            let third = shortened(IDLE_MS, capacity, capacity);
            assert!(third.abs_diff(IDLE_MS / 3) <= 1, "{third}");
            let times = (0..=50)
                .map(|n| shortened(IDLE_MS, (u64::from(capacity) * n / 50) as u32, capacity));
            assert!(times.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
        }
        assert_eq!(shortened(IDLE_MS, 8, 10), IDLE_MS * 2 / 3);
        assert_eq!(shortened(u64::MAX, 5, 10), u64::MAX);
        assert_eq!(shortened(IDLE_MS, 20, 10), 0, "more than there is room for");
    }
}
