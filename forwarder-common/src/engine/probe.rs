//! A SYN from the ports of an open flow. Anybody can send one, so nothing of it goes further and nothing of it ends the
//! flow: the node is asked whether it still has the connection (`Flow::probe`). A node that has it acknowledges; a
//! client that has begun anew answers that with an exact reset (RFC 9293 3.10.7.3), and its next SYN gets a cookie. A
//! node that has forgotten it resets it. If a node says nothing the sweeper asks again, and ends the flow.

use super::packet::Packet;
use super::store::Store;
use super::work::Work;
use super::{egress, ms};
use crate::abi::{Flow, Node, stage, state};
use crate::checksum::Sum;
use crate::verdict::{DropReason, Verdict};

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let Some(mut flow) = store.flow(&work.key) else {
        // It has ended since the entry.
        return Verdict::Next(stage::SYN);
    };
    if flow.state != state::SPLICED || !flow.client_syn(ms(store.now_ns())) {
        return Verdict::Drop(DropReason::Absorbed);
    }
    let Some(node) = store.node(u32::from(flow.node)) else {
        return Verdict::Drop(DropReason::LinkDown);
    };
    if work.v6 == 0 {
        ask::<S::Held, P, false>(packet, work, &flow, &node)
    } else {
        ask::<S::Held, P, true>(packet, work, &flow, &node)
    }
}

/// Rebuilds the packet as the question, and sends it.
#[inline(always)]
fn ask<H, P: Packet, const V6: bool>(
    packet: P,
    work: &Work,
    flow: &Flow,
    node: &Node,
) -> Verdict<H> {
    let probe = flow.probe(&work.key.client, node);
    let headers = probe.headers::<V6>();
    let at = work.l3 + headers.len;
    if packet.resize(at + 1)
        && packet.put_bytes::<1, 1>(at, &[0])
        && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO)
    {
        egress::to_node(packet, node, &probe.source, work.l3 != 0)
    } else {
        Verdict::Drop(DropReason::KernelRefused)
    }
}
