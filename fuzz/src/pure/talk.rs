//! Two TCP endpoints, what the entrance makes of them, and somebody who is on neither side.

use forwarder_common::abi::Flow;
use forwarder_common::flow::{Outcome, Passing};
use forwarder_common::tcp::flag::{ACK, FIN, RST, SYN};

use super::flow::spliced;

/// Beyond this distance from what is expected nobody's segment may change a flow.
const FAR: u32 = 1 << 25;

/// One endpoint. Positions count from its first sequence number, so they do not wrap.
#[derive(Clone, Copy)]
struct Endpoint {
    isn: u32,
    /// Next position to send.
    next: u64,
    /// Position behind the FIN, once it was sent.
    end: Option<u64>,
    /// Position of the other end that is expected next.
    received: u64,
    /// The same, as far as it has told.
    told: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Node,
}

struct Talk {
    ends: [Endpoint; 2],
    flow: Flow,
    passed: Vec<(End, Passing)>,
}

impl Talk {
    fn pass(&mut self, from: End, segment: &Passing) -> Outcome {
        match from {
            End::Client => self.flow.client_segment(segment),
            End::Node => self.flow.node_segment(segment),
        }
    }

    /// Own and other.
    fn pair(&mut self, from: End) -> (&mut Endpoint, &mut Endpoint) {
        let [client, node] = &mut self.ends;
        match from {
            End::Client => (client, node),
            End::Node => (node, client),
        }
    }

    fn send(&mut self, from: End, payload_len: u32, flags: u8) -> Outcome {
        let (own, other) = self.pair(from);
        let segment = Passing {
            seq: own.isn.wrapping_add(own.next as u32),
            ack: other.isn.wrapping_add(own.received as u32),
            flags: flags | ACK,
            payload_len,
        };
        own.told = own.received;
        own.next += u64::from(payload_len) + u64::from(flags & FIN != 0);
        if flags & FIN != 0 {
            own.end = Some(own.next);
        }
        self.passed.push((from, segment));
        self.pass(from, &segment)
    }

    /// Both ends have closed and have told so of each other.
    fn is_finished(&self) -> bool {
        let [client, node] = &self.ends;
        client.end == Some(node.told) && node.end == Some(client.told)
    }

    /// What the flow should expect next from this end.
    fn expected(&mut self, from: End) -> u32 {
        let (own, other) = self.pair(from);
        own.isn.wrapping_add(other.told as u32)
    }
}

/// Eight bytes a step, both directions. Half-close, simultaneous close, old segments and an off-path sender included:
/// the flow ends at exactly the segment that tells both ends about both ends, or at a reset with exactly the expected
/// number; segments from far outside of the windows leave it as it is; nothing else ends it.
pub fn talk(data: &[u8]) {
    let (steps, _) = data.as_chunks::<8>();
    let Some(([a, b, c, d, e, f, g, h], steps)) = steps.split_first() else {
        return;
    };
    let isns = [[*a, *b, *c, *d], [*e, *f, *g, *h]].map(u32::from_be_bytes);
    let mut talk = Talk {
        ends: isns.map(|isn| Endpoint {
            isn,
            next: 1,
            end: None,
            received: 1,
            told: 1,
        }),
        flow: spliced(isns[0], isns[1]),
        passed: Vec::new(),
    };
    for [deed, n0, n1, n2, n3, flags, l0, l1] in steps {
        let from = match deed & 1 {
            0 => End::Client,
            _ => End::Node,
        };
        let number = u32::from_be_bytes([*n0, *n1, *n2, *n3]);
        let length = u32::from(u16::from_be_bytes([*l0, *l1]));
        let may_send = talk.pair(from).0.end.is_none();
        let outcome = match deed >> 1 & 7 {
            0 if may_send => talk.send(from, length, 0),
            1 if may_send => talk.send(from, length, FIN),
            0..=2 => talk.send(from, 0, 0),
            3 | 4 => {
                let (own, other) = talk.pair(from);
                own.received = other.next;
                continue;
            }
            5 => {
                let count = talk.passed.len();
                if count == 0 {
                    continue;
                }
                let (from, segment) = talk.passed[number as usize % count];
                talk.pass(from, &segment)
            }
            // From far outside: any flags, any acknowledgement.
            6 => {
                let (own, other) = talk.pair(from);
                let in_flight = (own.next - other.told) as u32;
                let far = FAR + number % (u32::MAX - 2 * FAR - in_flight);
                let before = talk.flow;
                let stray = Passing {
                    seq: talk
                        .expected(from)
                        .wrapping_add(in_flight)
                        .wrapping_add(far),
                    ack: number.rotate_left(16),
                    flags: *flags & !SYN,
                    payload_len: length,
                };
                assert_eq!(talk.pass(from, &stray), Outcome::Open);
                assert_eq!(talk.flow, before, "{stray:?}");
                continue;
            }
            // A reset at a number that is near.
            _ => {
                let expected = talk.expected(from);
                let (own, other) = talk.pair(from);
                let behind_fin = own.end == Some(other.told);
                let seq = expected.wrapping_add(number % 131_072).wrapping_sub(65_536);
                let exact = seq == expected || behind_fin && seq == expected.wrapping_sub(1);
                let reset = Passing {
                    seq,
                    ack: 0,
                    flags: RST,
                    payload_len: 0,
                };
                let outcome = talk.pass(from, &reset);
                assert_eq!(outcome == Outcome::Reset, exact, "{reset:?}");
                assert_ne!(outcome, Outcome::Finished);
                // What a mark of it may do later is the other target's matter.
                return;
            }
        };
        let finished = talk.is_finished();
        let expected = match finished {
            true => Outcome::Finished,
            false => Outcome::Open,
        };
        assert_eq!(outcome, expected);
        if finished {
            return;
        }
        let [client, node] = &talk.ends;
        assert_eq!(talk.flow.client_acked, client.told);
        assert_eq!(talk.flow.node_acked, node.told);
    }
}
