//! The kernel programs of the forwarder.
//!
//! Entry points, each an attribute and one call: what is decided, and in which order, is in
//! [`forwarder_common::engine`]. Four of them (public and tunnel side, with and without an Ethernet header) translate
//! segments of spliced flows on the spot; everything rarer is a stage that is tail-called, so that each is verified on its
//! own.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![deny(clippy::unwrap_used, clippy::panic)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or value that is borrowed is not copied to the stack, which has 512 bytes"
)]

mod act;
mod bridge;
mod buffer;
mod clock;
mod count;
mod displace;
mod events;
mod hook;
mod maps;
mod next_hop;
mod packet;
mod public;
mod replay;
mod source_flows;
mod store;
mod work;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use forwarder_common::engine;
use forwarder_common::verdict::DropReason;

use crate::act::act;
use crate::bridge::{
    answer, closed, cookies, ends, failover, hops, node, predecessor, sources, verify,
};
use crate::packet::{Skb, XdpFrame, bounds};
use crate::store::Maps;

/// Goes on in another stage. Comes back only when the kernel's limit of tail calls is reached, or the slot
/// is empty while programs are being replaced.
#[inline(always)]
fn next(context: &TcContext, slot: u32) -> i32 {
    // SAFETY: all stages take the same context.
    unsafe { maps::STAGES.tail_call(context, slot) };
    count::drop(DropReason::KernelRefused)
}

/// Runs a stage on what the one before handed over. A macro, because LLVM does not inline every closure: the stage
/// would be a function of its own, and Linux 5.10 takes no tail calls beside calls on arm64.
macro_rules! run {
    ($context:ident, engine::$module:ident::$stage:ident) => {
        match maps::work() {
            Some(work) => {
                let packet = Skb::new($context.skb.skb);
                act(packet, engine::$module::$stage(Maps, packet, work))
            }
            None => count::drop(DropReason::KernelRefused),
        }
    };
    ($context:ident, $stage:path) => {
        match maps::work() {
            Some(work) => $stage(&$context, Skb::new($context.skb.skb), work),
            None => count::drop(DropReason::KernelRefused),
        }
    };
}

/// Ingress of a public Ethernet interface.
#[classifier]
#[inline(always)]
pub fn public_l2(context: TcContext) -> i32 {
    hook::tc_public::ingress::<14>(Skb::new(context.skb.skb))
}

/// Ingress of a public interface without link-layer header.
#[classifier]
#[inline(always)]
pub fn public_l3(context: TcContext) -> i32 {
    hook::tc_public::ingress::<0>(Skb::new(context.skb.skb))
}

/// Ingress of an Ethernet-like tunnel.
#[classifier]
#[inline(always)]
pub fn tunnel_l2(context: TcContext) -> i32 {
    hook::tc_tunnel::ingress::<14>(Skb::new(context.skb.skb))
}

/// Ingress of a tunnel without link-layer header.
#[classifier]
#[inline(always)]
pub fn tunnel_l3(context: TcContext) -> i32 {
    hook::tc_tunnel::ingress::<0>(Skb::new(context.skb.skb))
}

/// XDP on a public Ethernet interface, while it is flooded.
#[xdp]
#[inline(always)]
pub fn armour(context: XdpContext) -> u32 {
    hook::xdp_filter::ingress(XdpFrame::new(context.ctx, false))
}

/// The same for drivers that hand over frames in several buffers.
#[xdp(frags)]
#[inline(always)]
pub fn armour_frags(context: XdpContext) -> u32 {
    hook::xdp_filter::ingress(XdpFrame::new(context.ctx, true))
}

/// Answers a SYN with a cookie.
#[classifier]
#[inline(always)]
pub fn stage_syn(context: TcContext) -> i32 {
    run!(context, engine::syn::stage)
}

/// A segment of a connection without a flow.
#[classifier]
#[inline(always)]
pub fn stage_hello(context: TcContext) -> i32 {
    run!(context, public::hello::stage)
}

/// Keeps a segment of a hello.
#[classifier]
#[inline(always)]
pub fn stage_store(context: TcContext) -> i32 {
    run!(context, public::store::stage)
}

/// Reads the hello.
#[classifier]
#[inline(always)]
pub fn stage_parse(context: TcContext) -> i32 {
    run!(context, public::parse::stage)
}

/// Opens the connection to a node.
#[classifier]
#[inline(always)]
pub fn stage_route(context: TcContext) -> i32 {
    run!(context, engine::route::stage)
}

/// Answers what is not forwarded.
#[classifier]
#[inline(always)]
pub fn stage_refuse(context: TcContext) -> i32 {
    run!(context, public::refuse::stage)
}

/// A client segment that the node cannot have yet.
#[classifier]
#[inline(always)]
pub fn stage_pending(context: TcContext) -> i32 {
    run!(context, public::pending::stage)
}

/// Asks the node of a flow whether it still has the connection.
#[classifier]
#[inline(always)]
pub fn stage_probe(context: TcContext) -> i32 {
    run!(context, engine::probe::stage)
}

/// The node's answer to our SYN.
#[classifier]
#[inline(always)]
pub fn stage_node_answer(context: TcContext) -> i32 {
    run!(context, engine::node_answer::stage)
}

/// Sends PROXY header and hello to the node.
#[classifier]
#[inline(always)]
pub fn stage_replay(context: TcContext) -> i32 {
    run!(context, replay::stage)
}

/// Tells a client that its segment is too big for the node.
#[classifier]
#[inline(always)]
pub fn stage_too_big(context: TcContext) -> i32 {
    run!(context, engine::too_big::stage)
}

/// Translates ICMP errors.
#[classifier]
#[inline(always)]
pub fn stage_icmp(context: TcContext) -> i32 {
    run!(context, engine::icmp::stage)
}

/// TCP behind IP options, extension headers, or in pieces.
#[classifier]
#[inline(always)]
pub fn stage_extended(context: TcContext) -> i32 {
    run!(context, engine::extended::stage)
}

/// A client's SYN, FIN or reset of a flow.
#[classifier]
#[inline(always)]
pub fn stage_client_control(context: TcContext) -> i32 {
    run!(context, engine::public::control)
}

/// A node's FIN or reset of a flow.
#[classifier]
#[inline(always)]
pub fn stage_node_control(context: TcContext) -> i32 {
    run!(context, engine::tunnel::control)
}

/// A node's segment of no flow.
#[classifier]
#[inline(always)]
pub fn stage_stray(context: TcContext) -> i32 {
    run!(context, engine::tunnel::stray)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never linked: no code here can panic, and the verifier would reject the loop.
    loop {}
}

/// The kernel lets only GPL-compatible programs call some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
