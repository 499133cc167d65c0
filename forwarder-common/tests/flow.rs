//! The end of a flow, against a model of two TCP endpoints and an attacker.

use forwarder_common::abi::{Flow, Node, address_v4, client_address, mark};
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
        node_end: entrance_isn.wrapping_add(1),
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

/// What somebody sends in the client's name who does not know a sequence number. Near numbers are what he meets by
/// chance.
#[derive(Clone, Debug)]
struct Guess {
    seq: u32,
    ack: u32,
    near: bool,
    flags: u8,
    payload_len: u32,
}

impl Guess {
    fn segment(&self, talk: &Conversation) -> Passing {
        let near = |number: u32, guess: u32| {
            if self.near {
                number.wrapping_add(guess % (1 << 25)).wrapping_sub(1 << 24)
            } else {
                guess
            }
        };
        Passing {
            seq: near(talk.client.seq(), self.seq),
            ack: near(talk.node.seq(), self.ack),
            flags: self.flags,
            payload_len: self.payload_len,
        }
    }

    /// Whether some number of it is one that an endpoint means at this moment, or will with its next few segments.
    fn is_hit(&self, talk: &Conversation) -> bool {
        let guess = self.segment(talk);
        let of = |end: &Endpoint, number: u32| {
            number
                .wrapping_sub(end.isn)
                .wrapping_sub(end.received_by_other(talk))
                < 1 << 18
                || number.wrapping_sub(end.seq()) < 4
        };
        let end = guess.seq.wrapping_add(guess.payload_len);
        of(&talk.client, guess.seq)
            || of(&talk.client, end)
            || of(&talk.client, end.wrapping_add(1))
            || of(&talk.node, guess.ack)
    }
}

impl Endpoint {
    /// How much of it the other end's segments have acknowledged.
    fn received_by_other(&self, talk: &Conversation) -> u32 {
        if self.isn == talk.client.isn {
            talk.node_told as u32
        } else {
            talk.client_told as u32
        }
    }
}

fn guess() -> impl Strategy<Value = Guess> {
    (
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
        any::<u8>(),
        0u32..65_536,
    )
        .prop_map(|(seq, ack, near, flags, payload_len)| Guess {
            seq,
            ack,
            near,
            flags,
            payload_len,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Somebody off the path guesses between any two segments of a conversation. Nothing of it ends the flow, and none
    /// of it keeps the flow from ending with the segment that tells both ends about both.
    #[test]
    fn guesses_neither_end_a_flow_nor_leak_it(
        client_isn: u32,
        entrance_isn: u32,
        deeds in prop::collection::vec((deed(), prop::option::of(guess())), 1..60),
        last in prop::collection::vec(guess(), 5),
    ) {
        prop_assume!(client_isn != entrance_isn);
        let mut talk = Conversation::new(client_isn, entrance_isn);
        let close = [
            Deed::Fin(End::Client, 0),
            Deed::Receive(End::Node),
            Deed::Fin(End::Node, 0),
            Deed::Ack(End::Node),
            Deed::Receive(End::Client),
            Deed::Ack(End::Client),
        ];
        let orderly = close.iter().zip(last.iter().map(Some).chain([None; 1]));
        let all = deeds.iter().map(|(deed, guess)| (deed, guess.as_ref())).chain(orderly);
        let mut outcome = Outcome::Open;
        for (deed, guess) in all {
            outcome = talk.act(deed).unwrap_or(outcome);
            if talk.is_finished() {
                prop_assert_eq!(outcome, Outcome::Finished, "it leaks");
                return Ok(());
            }
            prop_assert_eq!(outcome, Outcome::Open);
            let Some(guess) = guess.filter(|guess| !guess.is_hit(&talk)) else {
                continue;
            };
            let segment = guess.segment(&talk);
            prop_assert_eq!(pass(&mut talk.flow, End::Client, &segment), Outcome::Open, "{:?}", segment);
            prop_assert!(talk.flow.client_acked <= talk.node.next);
        }
        prop_assert_eq!(outcome, Outcome::Finished);
    }

    /// Acknowledgements ahead of what the node has sent, as the attacker sends them before it closes.
    #[test]
    fn an_acknowledgement_counts_up_to_what_was_sent(
        client_isn: u32,
        entrance_isn: u32,
        ahead in prop::collection::vec(1u32..=u32::MAX / 2, 1..5),
        len in 0u32..65_536,
    ) {
        let mut talk = Conversation::new(client_isn, entrance_isn);
        talk.act(&Deed::Send(End::Node, len + 1));
        for ahead in ahead {
            let beyond = Passing {
                seq: talk.client.seq(),
                ack: talk.node.seq().wrapping_add(ahead),
                flags: ACK,
                payload_len: 0,
            };
            prop_assert_eq!(pass(&mut talk.flow, End::Client, &beyond), Outcome::Open);
            prop_assert_eq!(talk.flow.client_acked, 1);
        }
        let mut outcome = None;
        for deed in [
            Deed::Fin(End::Client, 0),
            Deed::Receive(End::Node),
            Deed::Fin(End::Node, 0),
            Deed::Receive(End::Client),
            Deed::Ack(End::Client),
        ] {
            outcome = talk.act(&deed).or(outcome);
        }
        prop_assert_eq!(outcome, Some(Outcome::Finished));
    }
}

/// Windows of a gigabyte are allowed (RFC 7323 2.3): what is in flight may be more than a segment may leap.
#[test]
fn much_may_be_in_flight() {
    let mut talk = Conversation::new(7, 5);
    for _ in 0..240 {
        assert_eq!(talk.send(End::Node, 4 << 20, 0), Outcome::Open);
    }
    talk.act(&Deed::Receive(End::Client));
    talk.act(&Deed::Ack(End::Client));
    assert_eq!(talk.flow.client_acked, 1 + 240 * (4 << 20));
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
        let odd_ack = Passing { seq: own, ack: other.wrapping_add(far), flags: ACK, payload_len: 0 };
        prop_assert_eq!(pass(&mut after, from, &odd_ack), Outcome::Open);
        prop_assert_eq!(after, before);
    }
}

#[test]
fn the_acknowledgement_field_counts_only_with_its_flag() {
    for from in [End::Client, End::Node] {
        let mut flow = flow(10, 20);
        flow.node_end += 500;
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
        // The node has sent as much; what a client has sent nobody knows for sure.
        flow.node_end += 9;
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
            seq: own + 9,
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

/// SYNs change nothing but the mark, and ask the node a few times a second however many come.
#[test]
fn a_syn_asks_the_node_once_a_tick() {
    let before = flow(10, 20);
    let mut after = before;
    let asked = (1_000_000..1_010_000).filter(|now| after.client_syn(*now));
    let asked: Vec<u32> = asked.collect();
    assert!((33..=35).contains(&asked.len()), "{asked:?}");
    let again = asked
        .windows(2)
        .map(|two| two[1] - two[0])
        .collect::<Vec<_>>();
    assert!(again[1..].iter().all(|ms| *ms == 300), "{again:?}");
    assert_eq!(
        after.client_marks & ((1 << mark::TICK_SHIFT) - 1),
        mark::SYN
    );
    after.client_marks = 0;
    assert_eq!(after, before);
    // A client that repeats its SYN as RFC 6298 has it is never taken for a flood.
    for start in 0..10_000 {
        let mut flow = before;
        let mut at = start;
        for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000] {
            assert!(flow.client_syn(at), "{start} {wait}");
            at = at.wrapping_add(wait);
        }
    }
}

/// Whoever is asked has the byte already, and is told of nothing that it has not sent.
#[test]
fn the_question_is_a_byte_that_the_node_has() {
    let mut talk = Conversation::new(u32::MAX - 10, 5);
    for deed in [
        Deed::Send(End::Client, 700),
        Deed::Receive(End::Node),
        Deed::Send(End::Node, 90),
        Deed::Receive(End::Client),
        Deed::Send(End::Client, 40),
    ] {
        talk.act(&deed);
    }
    let flow = Flow {
        delta: 5_000,
        source_port_be: 7,
        client_address: client_address::TRANSPARENT,
        ..talk.flow
    };
    let (client, local) = (address_v4([198, 51, 100, 4]), address_v4([10, 0, 0, 1]));
    let node = Node {
        address: address_v4([10, 0, 0, 2]),
        local,
        port_be: 9,
        mss: 0,
        ifindex: 0,
        link: 0,
        closed: 0,
        first: 0,
        transparent: 0,
        mtu: 0,
        homes: [0; 4],
    };
    let probe = flow.probe(&client, &node);
    assert_eq!(probe.seq, (u32::MAX - 10).wrapping_add(700));
    assert_eq!(probe.ack.wrapping_add(5_000), 5 + 91);
    assert_eq!((probe.flags, probe.payload_len), (ACK, 1));
    assert_eq!((probe.source, probe.destination), (client, node.address));
    assert_eq!((probe.source_port_be, probe.destination_port_be), (7, 9));
    assert_ne!(probe.window, 0, "a node may take that for a full client");
    let hidden = Flow {
        client_address: client_address::MASQUERADE,
        ..flow
    };
    assert_eq!(hidden.probe(&client, &node).source, local);
}

/// The node's answer is seen, and the client's next word takes everything back.
#[test]
fn a_syn_is_forgotten_when_the_client_goes_on() {
    let mut flow = flow(10, 20);
    assert!(flow.client_syn(90_000));
    let answer = Passing {
        seq: 21,
        ack: 11,
        flags: ACK,
        payload_len: 0,
    };
    assert_eq!(pass(&mut flow, End::Node, &answer), Outcome::Open);
    assert_ne!(flow.client_marks & mark::SYN, 0);
    assert_eq!(flow.node_marks, mark::ALIVE);
    let data = Passing {
        seq: 11,
        ack: 21,
        flags: ACK,
        payload_len: 3,
    };
    assert_eq!(pass(&mut flow, End::Client, &data), Outcome::Open);
    assert_eq!(flow.client_marks, 0);
    assert_eq!(pass(&mut flow, End::Node, &answer), Outcome::Open);
    assert_eq!(flow.node_marks, 0);
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
