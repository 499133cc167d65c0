//! A SYN from the ports of an open flow. Anybody can send one, so nothing of it goes further and nothing of it ends the
//! flow: the node is asked whether it still has the connection (`Flow::probe`). A node that has it acknowledges; a
//! client that has begun anew answers that with an exact reset (RFC 9293 3.10.7.3), and its next SYN gets a cookie. A
//! node that has forgotten it resets it. Of a node that says nothing the sweeper makes sure.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{Flow, Node, stage, state};
use forwarder_common::checksum::Sum;
use forwarder_common::verdict::DropReason;

use crate::maps::{FLOWS, NODES};
use crate::packet::Packet;
use crate::work::Work;
use crate::{clock, count, next, node};

/// The stage.
#[inline(always)]
pub fn stage(context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let Some(flow) = FLOWS.get_ptr_mut(work.key) else {
        // It has ended since the entry.
        return next(context, stage::SYN);
    };
    // SAFETY: a map value; its fields have one writer each.
    let flow = unsafe { &mut *flow };
    if flow.state != state::SPLICED || !flow.client_syn(clock::ms(clock::now_ns())) {
        return count::drop(DropReason::Absorbed);
    }
    let Some(target) = NODES.get(u32::from(flow.node)) else {
        return count::drop(DropReason::LinkDown);
    };
    if work.v6 == 0 {
        ask::<false>(packet, work, flow, target)
    } else {
        ask::<true>(packet, work, flow, target)
    }
}

/// Rebuilds the packet as the question, and sends it.
#[inline(always)]
fn ask<const V6: bool>(packet: Packet, work: &Work, flow: &Flow, target: &Node) -> i32 {
    let probe = flow.probe(&work.key.client, target);
    let headers = probe.headers::<V6>();
    let at = work.l3 + headers.len;
    let byte = [0_u8];
    // SAFETY: `byte` has one byte.
    let built = packet.resize(at + 1)
        && unsafe { packet.store(at, byte.as_ptr(), 1) }
        && packet.put_headers::<V6>(work.l3, &headers, Sum::ZERO);
    if built {
        node::send_to(packet, target, &probe.source, work.l3 != 0)
    } else {
        count::drop(DropReason::KernelRefused)
    }
}
