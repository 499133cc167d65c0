//! The end of a flow, against a model of two TCP endpoints and an attacker.

use forwarder_common::abi::{Flow, mark};
use forwarder_common::flow::{Outcome, Passing};
use forwarder_common::node_options::NodeOptions;
use forwarder_common::tcp::flag::{ACK, FIN, RST};
use proptest::prelude::*;

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Node,
}

fn flow(client_isn: u32, entrance_isn: u32) -> Flow {
    Flow {
        client_isn,
        entrance_isn,
        delta: 0,
        name: 0,
        opened_ms: 0,
        seen_ms: 0,
        client_end: 0,
        node_end: 0,
        // The SYNs were acknowledged.
        client_acked: 1,
        node_acked: 1,
        public_link: 0,
        node: 0,
        path: 0,
        source_port_be: 0,
        client_address: 0,
        state: 0,
        node_options: NodeOptions::NONE.0,
        client_marks: 0,
        node_marks: 0,
    }
}

fn pass(flow: &mut Flow, from: End, segment: &Passing) -> Outcome {
    match from {
        End::Client => flow.client_segment(segment),
        End::Node => flow.node_segment(segment),
    }
}

/// One endpoint. Positions count from its first sequence number, the SYN being
/// at 0, so they do not wrap.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    isn: u32,
    /// Next position to send.
    next: u64,
    /// Position behind the FIN, once it was sent.
    end: Option<u64>,
    /// Position of the other end that is expected next.
    received: u64,
}

impl Endpoint {
    fn new(isn: u32) -> Self {
        Self {
            isn,
            next: 1,
            end: None,
            received: 1,
        }
    }

    fn seq(&self) -> u32 {
        self.isn.wrapping_add(self.next as u32)
    }
}

/// A conversation that the entrance watches.
struct Conversation {
    client: Endpoint,
    node: Endpoint,
    flow: Flow,
    /// Highest position of the other that each end's segments acknowledged.
    client_told: u64,
    node_told: u64,
    passed: Vec<(End, Passing)>,
}

/// What an endpoint does next.
#[derive(Clone, Debug)]
enum Deed {
    Send(End, u32),
    Fin(End, u32),
    /// Everything sent so far arrives.
    Receive(End),
    Ack(End),
    /// An old segment passes again.
    Repeat(prop::sample::Index),
}

impl Conversation {
    fn new(client_isn: u32, entrance_isn: u32) -> Self {
        Self {
            client: Endpoint::new(client_isn),
            node: Endpoint::new(entrance_isn),
            flow: flow(client_isn, entrance_isn),
            client_told: 1,
            node_told: 1,
            passed: Vec::new(),
        }
    }

    fn ends(&mut self, end: End) -> (&mut Endpoint, &mut Endpoint) {
        match end {
            End::Client => (&mut self.client, &mut self.node),
            End::Node => (&mut self.node, &mut self.client),
        }
    }

    /// A new segment of this end with the acknowledgement it owes.
    fn send(&mut self, end: End, payload_len: u32, flags: u8) -> Outcome {
        let (own, other) = self.ends(end);
        let segment = Passing {
            seq: own.seq(),
            ack: other.isn.wrapping_add(own.received as u32),
            flags: flags | ACK,
            payload_len,
        };
        own.next += u64::from(payload_len) + u64::from(flags & FIN != 0);
        if flags & FIN != 0 {
            own.end = Some(own.next);
        }
        let received = own.received;
        match end {
            End::Client => self.client_told = received,
            End::Node => self.node_told = received,
        }
        self.passed.push((end, segment));
        pass(&mut self.flow, end, &segment)
    }

    fn act(&mut self, deed: &Deed) -> Option<Outcome> {
        match *deed {
            Deed::Send(end, len) => {
                if self.ends(end).0.end.is_some() {
                    return None;
                }
                Some(self.send(end, len, 0))
            }
            Deed::Fin(end, len) => {
                if self.ends(end).0.end.is_some() {
                    return None;
                }
                Some(self.send(end, len, FIN))
            }
            Deed::Receive(end) => {
                let (own, other) = self.ends(end);
                own.received = other.next;
                None
            }
            Deed::Ack(end) => Some(self.send(end, 0, 0)),
            Deed::Repeat(which) => {
                if self.passed.is_empty() {
                    return None;
                }
                let (end, segment) = self.passed[which.index(self.passed.len())];
                Some(pass(&mut self.flow, end, &segment))
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.client.end == Some(self.node_told) && self.node.end == Some(self.client_told)
    }
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Client), Just(End::Node)]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (end(), 1u32..65_536).prop_map(|(end, len)| Deed::Send(end, len)),
        1 => (end(), 0u32..2_000).prop_map(|(end, len)| Deed::Fin(end, len)),
        4 => end().prop_map(Deed::Receive),
        4 => end().prop_map(Deed::Ack),
        3 => any::<prop::sample::Index>().prop_map(Deed::Repeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Finished at exactly the segment that tells both ends about both ends,
    /// half-close and simultaneous close included, and never a reset.
    #[test]
    fn finished_when_both_ends_know(
        client_isn: u32,
        entrance_isn: u32,
        deeds in prop::collection::vec(deed(), 1..100),
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        for deed in &deeds {
            let Some(outcome) = talk.act(deed) else { continue };
            let expected = if talk.is_finished() { Outcome::Finished } else { Outcome::Open };
            prop_assert_eq!(outcome, expected, "after {:?}", deed);
            prop_assert_eq!(talk.flow.client_acked, talk.client_told);
            prop_assert_eq!(talk.flow.node_acked, talk.node_told);
            if expected == Outcome::Finished {
                return Ok(());
            }
        }
        // Whatever is left undone is done in the usual order, and ends the flow.
        let mut last = Outcome::Open;
        for deed in [
            Deed::Fin(End::Client, 0),
            Deed::Receive(End::Node),
            Deed::Fin(End::Node, 0),
            Deed::Ack(End::Node),
            Deed::Receive(End::Client),
            Deed::Ack(End::Client),
        ] {
            last = talk.act(&deed).unwrap_or(last);
        }
        prop_assert_eq!(last, Outcome::Finished);
    }

    /// A reset ends a flow only at exactly the sequence number that the other
    /// end expects; the next one a sender has is such a number when nothing is
    /// in flight.
    #[test]
    fn only_an_exact_reset_counts(
        client_isn: u32,
        entrance_isn: u32,
        deeds in prop::collection::vec(deed(), 0..30),
        from in end(),
        guesses in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 1..50),
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        for deed in &deeds {
            if talk.act(deed) == Some(Outcome::Finished) {
                return Ok(());
            }
        }
        let exact = match from {
            End::Client => client_isn.wrapping_add(talk.node_told as u32),
            End::Node => entrance_isn.wrapping_add(talk.client_told as u32),
        };
        for (seq, ack, near) in guesses {
            let seq = if near { exact.wrapping_add(seq % 131_072).wrapping_sub(65_536) } else { seq };
            // One less counts behind a FIN, as for Linux.
            let end = talk.ends(from).0.end;
            let told = if from == End::Client { talk.node_told } else { talk.client_told };
            let least = if end == Some(told) { exact.wrapping_sub(1) } else { exact };
            prop_assume!(seq != exact && seq != least);
            let reset = Passing { seq, ack, flags: RST, payload_len: 0 };
            prop_assert_eq!(pass(&mut talk.flow, from, &reset), Outcome::Open);
        }
        let reset = Passing { seq: exact, ack: 0, flags: RST, payload_len: 0 };
        prop_assert_eq!(pass(&mut talk.flow, from, &reset), Outcome::Reset);
    }

    /// An endpoint that closes with data unread, having sent a FIN or not, sends a reset behind all that it sent. The
    /// other end gets that in order, tells of what came before, and is gone: then nobody says anything any more.
    #[test]
    fn a_reset_that_overtakes_an_acknowledgement_ends_the_flow_with_it(
        client_isn: u32,
        entrance_isn: u32,
        deeds in prop::collection::vec(deed(), 0..30),
        from in end(),
        closed: bool,
        len in 1u32..65_536,
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        let to = match from {
            End::Client => End::Node,
            End::Node => End::Client,
        };
        for deed in deeds.iter().chain([&Deed::Send(from, len)]) {
            if talk.act(deed) == Some(Outcome::Finished) {
                return Ok(());
            }
        }
        if closed && talk.act(&Deed::Fin(from, 0)) == Some(Outcome::Finished) {
            return Ok(());
        }
        let told = match from {
            End::Client => talk.node_told,
            End::Node => talk.client_told,
        };
        let own = talk.ends(from).0;
        prop_assume!(own.next != told);
        let reset = Passing { seq: own.seq(), ack: 0, flags: RST, payload_len: 0 };
        prop_assert_eq!(pass(&mut talk.flow, from, &reset), Outcome::Open);
        if talk.ends(from).0.next != talk.ends(to).0.received {
            prop_assert_eq!(talk.act(&Deed::Ack(to)), Some(Outcome::Open), "of what it had before");
        }
        talk.act(&Deed::Receive(to));
        prop_assert_eq!(talk.act(&Deed::Ack(to)), Some(Outcome::Finished));
    }

    /// An end that is gone answers what the other one sent before it knew of the FIN: it stood one before it then.
    #[test]
    fn a_reset_behind_an_acknowledged_fin_may_be_one_less(
        client_isn: u32,
        entrance_isn: u32,
        from in end(),
        len in 0u32..2_000,
        early: bool,
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        let to = match from {
            End::Client => End::Node,
            End::Node => End::Client,
        };
        talk.act(&Deed::Send(from, len + 1));
        talk.act(&Deed::Fin(from, len));
        let seq = talk.ends(from).0.seq().wrapping_sub(1);
        let answer = Passing { seq, ack: 0, flags: RST, payload_len: 0 };
        if early {
            prop_assert_eq!(pass(&mut talk.flow, from, &answer), Outcome::Open);
        }
        talk.act(&Deed::Receive(to));
        let acknowledged = talk.act(&Deed::Send(to, 24));
        if early {
            prop_assert_eq!(acknowledged, Some(Outcome::Finished));
            return Ok(());
        }
        prop_assert_eq!(acknowledged, Some(Outcome::Open));
        prop_assert_eq!(talk.act(&Deed::Fin(to, 0)), Some(Outcome::Open));
        let less = Passing { seq: seq.wrapping_sub(1), ..answer };
        prop_assert_eq!(pass(&mut talk.flow, from, &less), Outcome::Open);
        prop_assert_eq!(pass(&mut talk.flow, from, &answer), Outcome::Reset);
    }

    /// An attacker off the path guesses resets while both ends go on: the flow does too, unless the other end's very
    /// next acknowledgement is what was guessed.
    #[test]
    fn guessed_resets_do_not_finish_a_flow(
        client_isn: u32,
        entrance_isn: u32,
        from in end(),
        guesses in prop::collection::vec((any::<u32>(), any::<bool>(), 1u32..2_000), 1..50),
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        let to = match from {
            End::Client => End::Node,
            End::Node => End::Client,
        };
        for (seq, near, len) in guesses {
            let next = talk.ends(from).0.seq();
            let seq = if near { next.wrapping_add(seq % 8_192) } else { seq };
            let guessed = Passing { seq, ack: 0, flags: RST, payload_len: 0 };
            prop_assume!(seq != next && seq != next.wrapping_add(len));
            prop_assert_eq!(pass(&mut talk.flow, from, &guessed), Outcome::Open);
            prop_assert_eq!(talk.act(&Deed::Send(from, len)), Some(Outcome::Open));
            talk.act(&Deed::Receive(to));
            prop_assert_eq!(pass(&mut talk.flow, from, &guessed), Outcome::Open);
            prop_assert_eq!(talk.act(&Deed::Ack(to)), Some(Outcome::Open));
        }
    }

    /// An attacker off the path guesses segments of the client, FINs included,
    /// while the node has closed its side: the client's upload goes on.
    #[test]
    fn spoofed_fins_do_not_finish_a_flow(
        client_isn: u32,
        entrance_isn: u32,
        guesses in prop::collection::vec((any::<u32>(), any::<bool>(), 0u32..1500, any::<u8>()), 1..50),
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        for deed in [
            Deed::Send(End::Client, 5_000),
            Deed::Receive(End::Node),
            Deed::Fin(End::Node, 700),
            Deed::Receive(End::Client),
            Deed::Ack(End::Client),
        ] {
            prop_assert_ne!(talk.act(&deed), Some(Outcome::Finished));
        }
        let next = talk.client.seq();
        for (seq, near, payload_len, flags) in guesses {
            let seq = if near { next.wrapping_add(seq % 131_072).wrapping_sub(65_536) } else { seq };
            prop_assume!(seq.wrapping_add(payload_len).wrapping_add(1) != next);
            let spoofed = Passing { seq, ack: 0, flags: flags & !(ACK | RST), payload_len };
            prop_assert_eq!(pass(&mut talk.flow, End::Client, &spoofed), Outcome::Open);
            let still_sending = talk.act(&Deed::Ack(End::Node));
            prop_assert_eq!(still_sending, Some(Outcome::Open), "after {:?}", spoofed);
        }
    }
}

proptest! {
    /// Numbers that no endpoint can mean leave the flow as it is.
    #[test]
    fn segments_far_from_what_is_expected_change_nothing(
        from in end(),
        seq: u32,
        ack: u32,
        flags: u8,
        far in (1u32 << 25)..=u32::MAX - (1 << 25),
    ) {
        let before = flow(seq, ack);
        let (own, other) = match from {
            End::Client => (before.client_expected(), before.node_expected()),
            End::Node => (before.node_expected(), before.client_expected()),
        };
        let stray = Passing { seq: own.wrapping_add(far), ack: other, flags, payload_len: 1 };
        let mut after = before;
        prop_assert_eq!(pass(&mut after, from, &stray), Outcome::Open);
        prop_assert_eq!(after, before);
        let odd_ack = Passing { seq: own, ack: other.wrapping_add(far), flags: ACK, payload_len: 1 };
        prop_assert_eq!(pass(&mut after, from, &odd_ack), Outcome::Open);
        prop_assert_eq!(after, before);
    }
}

#[test]
fn the_acknowledgement_field_counts_only_with_its_flag() {
    for from in [End::Client, End::Node] {
        let mut flow = flow(10, 20);
        let (seq, ack) = match from {
            End::Client => (11, 21 + 500),
            End::Node => (21, 11 + 500),
        };
        let silent = Passing {
            seq,
            ack,
            flags: 0,
            payload_len: 1,
        };
        assert_eq!(pass(&mut flow, from, &silent), Outcome::Open);
        assert_eq!((flow.client_acked, flow.node_acked), (1, 1));
        let telling = Passing {
            flags: ACK,
            ..silent
        };
        assert_eq!(pass(&mut flow, from, &telling), Outcome::Open);
        assert_eq!(flow.client_acked + flow.node_acked, 2 + 500);
    }
}

/// An inexact reset leaves a mark, which its sender takes back by going on.
#[test]
fn inexact_resets_are_remembered_until_the_flow_shows_life() {
    let marks = |flow: &Flow, from| match from {
        End::Client => (flow.client_marks, flow.node_marks),
        End::Node => (flow.node_marks, flow.client_marks),
    };
    for (from, other) in [(End::Client, End::Node), (End::Node, End::Client)] {
        let mut flow = flow(10, 20);
        let (own, others) = match from {
            End::Client => (11, 21),
            End::Node => (21, 11),
        };
        let reset = Passing {
            seq: own + 9,
            ack: 0,
            flags: RST,
            payload_len: 0,
        };
        assert_eq!(pass(&mut flow, from, &reset), Outcome::Open);
        assert_eq!(marks(&flow, from), (mark::RESET | mark::RESET_AT_END, 0));

        let alive = Passing {
            seq: others,
            ack: own,
            flags: ACK,
            payload_len: 3,
        };
        assert_eq!(pass(&mut flow, other, &alive), Outcome::Open);
        assert_eq!(
            marks(&flow, from),
            (mark::RESET | mark::RESET_AT_END, 0),
            "it may have been sent before the reset arrived"
        );

        let goes_on = Passing {
            seq: own,
            ack: others,
            flags: ACK,
            payload_len: 3,
        };
        assert_eq!(pass(&mut flow, from, &goes_on), Outcome::Open);
        assert_eq!(marks(&flow, from).0 & mark::RESET, 0);

        let fin = Passing {
            seq: own,
            ack: others,
            flags: ACK | FIN,
            payload_len: 3,
        };
        assert_eq!(pass(&mut flow, from, &fin), Outcome::Open);
        assert_eq!(pass(&mut flow, from, &reset), Outcome::Open);
        assert_eq!(
            marks(&flow, from).0 & (mark::FIN | mark::RESET),
            mark::FIN | mark::RESET
        );
    }
}

/// A SYN on a live flow: only silence of the node for as long as a client waits gives the flow up.
#[test]
fn a_flow_is_abandoned_only_if_nobody_answers_a_syn() {
    let mut silent = flow(10, 20);
    silent.seen_ms = 5_000;
    assert!(!silent.is_abandoned(90_000), "no SYN");
    silent.client_syn(90_000);
    assert!(!silent.is_abandoned(90_899));
    silent.client_syn(90_500);
    assert!(silent.is_abandoned(90_900), "repetitions are no life");
    assert!(
        !silent.is_abandoned(89_999),
        "the other side's clock was read later"
    );

    let mut answered = silent;
    let challenge = Passing {
        seq: 21,
        ack: 11,
        flags: ACK,
        payload_len: 0,
    };
    assert_eq!(pass(&mut answered, End::Node, &challenge), Outcome::Open);
    assert!(!answered.is_abandoned(99_000));

    let mut goes_on = silent;
    let data = Passing {
        seq: 11,
        ack: 21,
        flags: ACK,
        payload_len: 3,
    };
    assert_eq!(pass(&mut goes_on, End::Client, &data), Outcome::Open);
    assert!(!goes_on.is_abandoned(99_000));
}

/// Ends are zero until a FIN is seen, and zero is also a sequence number.
#[test]
fn half_closed_flow_goes_on_at_sequence_number_zero() {
    for (closing, mut flow) in [
        (End::Client, flow(10, u32::MAX)),
        (End::Node, flow(u32::MAX, 20)),
    ] {
        let (own, other_isn) = match closing {
            End::Client => (11, flow.entrance_isn),
            End::Node => (21, flow.client_isn),
        };
        let open = match closing {
            End::Client => End::Node,
            End::Node => End::Client,
        };
        assert_eq!(other_isn.wrapping_add(1), 0);
        let fin = Passing {
            seq: own,
            ack: 0,
            flags: FIN | ACK,
            payload_len: 0,
        };
        assert_eq!(pass(&mut flow, closing, &fin), Outcome::Open);
        let ack = Passing {
            seq: 0,
            ack: own + 1,
            flags: ACK,
            payload_len: 0,
        };
        assert_eq!(pass(&mut flow, open, &ack), Outcome::Open);
        let data = Passing {
            seq: 0,
            ack: own + 1,
            flags: ACK,
            payload_len: 700,
        };
        assert_eq!(pass(&mut flow, open, &data), Outcome::Open);
    }
}

#[test]
fn the_unique_id_is_the_time_and_the_cookie() {
    let flow = Flow {
        opened_ms: 0x0102_0304,
        ..flow(1, 0xa0b0_c0d0)
    };
    assert_eq!(flow.unique_id(), 0x0102_0304_a0b0_c0d0);
}

#[test]
fn counts_survive_the_wrap_of_32_bits() {
    let mut talk = Conversation::new(u32::MAX - 10, 5);
    for _ in 0..3_000 {
        assert_eq!(talk.send(End::Client, 4 << 20, 0), Outcome::Open);
        talk.act(&Deed::Receive(End::Node));
        talk.act(&Deed::Ack(End::Node));
    }
    assert_eq!(talk.flow.node_acked, 1 + 3_000 * (4 << 20));
}
