//! The end of a flow.

use forwarder_common::abi::{Flow, mark};
use forwarder_common::flow::{Outcome as FlowOutcome, Passing};
use forwarder_common::node_options::NodeOptions;
use forwarder_common::tcp::flag;

/// Any segments on a flow: counts only grow, the client's to what the node has sent, the node's by what is plausible;
/// it ends only at an exact reset, when what precedes a reset is acknowledged, or after a FIN from each side.
pub fn flow(data: &[u8]) {
    let (segments, _) = data.as_chunks::<12>();
    let Some(([a, b, c, d, e, f, g, h, ..], segments)) = segments.split_first() else {
        return;
    };
    let mut flow = spliced(
        u32::from_be_bytes([*a, *b, *c, *d]),
        u32::from_be_bytes([*e, *f, *g, *h]),
    );
    let (mut client_fin, mut node_fin) = (false, false);
    for [s0, s1, s2, s3, a0, a1, a2, a3, flags, from, p0, p1] in segments {
        let from_client = from & 1 == 0;
        // Small numbers are near what is expected, so that they matter.
        let (own, other) = match from_client {
            true => (flow.client_expected(), flow.node_expected()),
            false => (flow.node_expected(), flow.client_expected()),
        };
        let near = |expected: u32, bytes: [u8; 4]| {
            if from & 2 == 0 {
                expected.wrapping_add(bytes[0].into())
            } else {
                u32::from_be_bytes(bytes)
            }
        };
        let segment = Passing {
            seq: near(own, [*s0, *s1, *s2, *s3]),
            ack: near(other, [*a0, *a1, *a2, *a3]),
            flags: *flags,
            payload_len: u16::from_be_bytes([*p0, *p1]).into(),
        };
        let fin = segment.flags & (flag::FIN | flag::RST) == flag::FIN;
        let before = flow;
        let outcome = if from_client {
            client_fin |= fin;
            flow.client_segment(&segment)
        } else {
            node_fin |= fin;
            flow.node_segment(&segment)
        };
        let unacknowledged = before.node_end.wrapping_sub(before.node_expected());
        for (before, after, most) in [
            (before.client_acked, flow.client_acked, unacknowledged),
            (before.node_acked, flow.node_acked, 1 << 25),
        ] {
            assert!((before..=before + u64::from(most)).contains(&after));
        }
        match outcome {
            FlowOutcome::Open => {}
            FlowOutcome::Finished => {
                assert!(
                    client_fin && node_fin
                        || (flow.client_marks | flow.node_marks) & mark::RESET_AT_END != 0,
                    "finished without a FIN of each side or a reset that was met"
                );
                return;
            }
            FlowOutcome::Reset => {
                let (fin, end) = if from_client {
                    (before.client_marks & mark::FIN != 0, before.client_end)
                } else {
                    (before.node_marks & mark::FIN != 0, before.node_end)
                };
                let behind_fin = fin && end == own && segment.seq == own.wrapping_sub(1);
                assert!(segment.flags & flag::RST != 0);
                assert!(segment.seq == own || behind_fin);
                return;
            }
        }
    }
}

/// A flow whose SYNs were acknowledged.
pub fn spliced(client_isn: u32, entrance_isn: u32) -> Flow {
    Flow {
        client_isn,
        entrance_isn,
        delta: 0,
        name: 0,
        opened_ms: 0,
        seen_ms: 0,
        client_end: 0,
        node_end: entrance_isn.wrapping_add(1),
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
