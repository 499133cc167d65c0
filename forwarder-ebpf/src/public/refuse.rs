//! A connection that is not forwarded: answered as its listener says.

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{hello_state, on_refuse};
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::answer::{self, COUNTED};
use crate::buffer;
use crate::packet::Packet;
use crate::public::hello::window;
use crate::work::Work;
use crate::{clock, count, events};

/// The stage. The hello is held; `work.reason` says why.
#[inline(always)]
pub fn stage(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    if work.v6 == 0 {
        family::<false>(packet, work)
    } else {
        family::<true>(packet, work)
    }
}

/// Whether the name was listed, and something else was missing. An alert would say that it is not; who is reset tries
/// another address, or later.
const fn is_listed(reason: u32) -> bool {
    reason == DropReason::NoNode as u32
        || reason == DropReason::FlowTableFull as u32
        || reason == DropReason::SourcePortsExhausted as u32
        || reason == DropReason::SourceLimit as u32
}

#[inline(always)]
fn family<const V6: bool>(packet: Packet, work: &mut Work) -> i32 {
    let Some(held) = buffer::held(work.slot) else {
        return count::drop(DropReason::KernelRefused);
    };
    // SAFETY: held since an earlier stage.
    let hello = unsafe { &mut *held.hello };
    if hello.state == hello_state::REFUSED {
        count::reason(DropReason::AlreadyRefused);
    } else {
        hello.state = hello_state::REFUSED;
        hello.refused = work.reason;
        count::number(work.reason);
        count::add!(LISTENER_STATS, u32::from(work.listener), refused, 1);
        events::refused(&work.key, work.reason, held.hello, clock::now_ns());
    }
    let seq = hello.entrance_isn.wrapping_add(1);
    let ack = hello.client_isn.wrapping_add(1).wrapping_add(hello.stored);
    // A client to which no window is left cannot send its FIN, and keeps its half of the connection for minutes.
    let window = match window(hello) {
        0 => 1,
        room => room as u16,
    };
    let hello_reason = hello.refused;
    // A hello of one segment comes again whole if the answer is lost, and is judged again. Of a longer one
    // only the last part would come, so that it must be kept to be recognised.
    if hello.segments > 1 {
        buffer::unlock(held.hello);
    } else {
        buffer::release(&work.key, held);
    }
    let listed = is_listed(hello_reason);
    match work.on_refuse as u8 {
        on_refuse::ALERT if !listed => {
            let reply = answer::segment(work, flag::PSH | flag::ACK | flag::FIN, seq, ack, window);
            answer::send_alert::<V6>(packet, work, &reply)
        }
        on_refuse::ALERT | on_refuse::RESET => {
            let reply = answer::segment(work, flag::RST | flag::ACK, seq, ack, 0);
            answer::send::<V6>(packet, work, &reply)
        }
        _ => COUNTED,
    }
}
