//! The one place that carries out what a stage decided.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::programs::TcContext;
use forwarder_common::abi::tally;
use forwarder_common::engine::Store;
use forwarder_common::engine::xdp_filter::Filtered;
use forwarder_common::verdict::{DropReason, Verdict};

use crate::count::{self, PASS};
use crate::maps::STAGES;
use crate::next_hop;
use crate::packet::Skb;
use crate::packet::bounds::here;
use crate::store::{Held, Maps};

/// Returns the action.
#[inline(always)]
pub fn act(packet: Skb, verdict: Verdict<Held>) -> i32 {
    match verdict {
        Verdict::Pass => PASS,
        Verdict::Drop(reason) => count::drop(reason),
        Verdict::Counted => TC_ACT_SHOT,
        Verdict::Redirect(ifindex) => packet.redirect(here(ifindex)),
        Verdict::Forward {
            ifindex,
            source,
            destination,
        } => next_hop::send(packet, here(ifindex), here(source), here(destination)),
        Verdict::Next(stage) => next(packet, here(stage)),
        Verdict::NextHeld(stage, held) => {
            let action = next(packet, here(stage));
            Maps.unlock(held);
            action
        }
    }
}

/// Goes on in another stage. Comes back only when the kernel's limit of tail calls is reached, or the slot
/// is empty while programs are being replaced.
#[inline(always)]
fn next(packet: Skb, stage: u32) -> i32 {
    let context = TcContext::new(packet.context().cast());
    // SAFETY: all stages take the same context.
    unsafe { STAGES.tail_call(&context, stage) };
    count::drop(DropReason::KernelRefused)
}

/// The same at the XDP hook.
#[inline(always)]
pub fn on_frame(filtered: Filtered) -> u32 {
    match filtered {
        Filtered::Pass(slot) => {
            count::tally(slot);
            XDP_PASS
        }
        Filtered::Drop(reason) => {
            count::reason(reason);
            count::tally(tally::XDP_DROPPED);
            XDP_DROP
        }
        Filtered::Answer => {
            count::tally(tally::XDP_ANSWERED);
            XDP_TX
        }
    }
}
