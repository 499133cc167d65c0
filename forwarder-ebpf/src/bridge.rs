//! What the stages of a hello, which are not in the engine yet, use of it.

use forwarder_common::engine;
use forwarder_common::engine::Packet;

use crate::act::act;
use crate::packet::Skb;
use crate::store::{FlowRef, Maps};
use crate::work::Work;

/// The engine's, of a packet at a traffic-control hook.
impl Skb {
    /// # Safety
    /// See `load_raw`.
    #[inline(always)]
    pub unsafe fn load(&self, offset: u32, to: *mut u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { self.load_raw(offset, to, length) }
    }

    /// # Safety
    /// See `store_raw`.
    #[inline(always)]
    pub unsafe fn store(&self, offset: u32, from: *const u8, length: u64) -> bool {
        // SAFETY: by the caller.
        unsafe { self.store_raw(offset, from, length) }
    }

    #[inline(always)]
    pub fn resize(&self, length: u32) -> bool {
        Packet::resize(self, length)
    }

    #[inline(always)]
    pub fn add_ethernet(&self) -> bool {
        Packet::add_ethernet(self)
    }

    #[inline(always)]
    pub fn swap_ethernet(&self) -> bool {
        Packet::swap_ethernet(self)
    }

    #[inline(always)]
    pub fn clone_to(&self, ifindex: u32) -> bool {
        Packet::clone_to(self, ifindex)
    }

    #[inline(always)]
    pub fn put_headers<const V6: bool>(
        &self,
        l3: u32,
        headers: &forwarder_common::segment::Headers,
        payload: forwarder_common::checksum::Sum,
    ) -> bool {
        Packet::put_headers::<V6>(self, l3, headers, payload)
    }
}

pub mod answer {
    use forwarder_common::segment::Segment;
    use forwarder_common::verdict::DropReason;

    use super::{Maps, Skb, Work, act, engine};

    pub use engine::reply::{ALERT_LEN, end, segment};
    /// Drops without a count of its own: the reason was counted already.
    pub const COUNTED: i32 = aya_ebpf::bindings::TC_ACT_SHOT;

    #[inline(always)]
    pub fn reply<const V6: bool>(packet: Skb, work: &Work) -> i32 {
        act(packet, engine::reply::reply::<_, _, V6>(packet, work))
    }

    #[inline(always)]
    pub fn send<const V6: bool>(packet: Skb, work: &Work, segment: &Segment) -> i32 {
        act(
            packet,
            engine::reply::send::<_, _, V6>(packet, work, segment),
        )
    }

    #[inline(always)]
    pub fn send_alert<const V6: bool>(packet: Skb, work: &Work, segment: &Segment) -> i32 {
        act(
            packet,
            engine::reply::send_alert::<_, _, V6>(packet, work, segment),
        )
    }

    #[inline(always)]
    pub fn put<const V6: bool>(packet: Skb, work: &Work, segment: &Segment) -> bool {
        engine::reply::put(packet, work, segment)
    }

    #[inline(always)]
    pub fn reset_unknown(work: &mut Work, now_ns: u64) -> Result<(), DropReason> {
        engine::reply::reset_unknown(Maps, work, now_ns)
    }
}

pub mod closed {
    use forwarder_common::abi::FlowKey;
    use forwarder_common::closed::Ended;
    use forwarder_common::verdict::DropReason;

    use super::{Maps, Work, engine};

    #[inline(always)]
    pub fn of_cookie(key: &FlowKey, cookie: u32, now_ns: u64) -> Ended {
        engine::closed::of_cookie(Maps, key, cookie, now_ns)
    }

    #[inline(always)]
    pub fn last(key: &FlowKey, now_ns: u64) -> Ended {
        engine::closed::last(Maps, key, now_ns)
    }

    #[inline(always)]
    pub fn reply(work: &mut Work, ended: Ended, now_ns: u64) -> Result<(), DropReason> {
        engine::closed::reply(Maps, work, ended, now_ns)
    }
}

pub mod cookies {
    use forwarder_common::cookie::Fit;

    use super::{Maps, Work, engine};

    #[inline(always)]
    pub fn fit(work: &Work, client_isn: u32, cookie: u32, now_ns: u64) -> Fit {
        engine::cookies::fit(Maps, work, client_isn, cookie, now_ns)
    }

    #[inline(always)]
    pub fn acknowledged<const N: usize>(work: &Work, further: [u32; N], now_ns: u64) -> bool {
        engine::cookies::acknowledged(Maps, work, further, now_ns)
    }
}

pub mod ends {
    use forwarder_common::abi::{Flow, FlowKey};

    use super::{FlowRef, Maps, engine};

    #[inline(always)]
    pub fn remove(key: &FlowKey, flow: &Flow, reason: u32) {
        let flow = FlowRef((&raw const *flow).cast_mut());
        engine::close::remove(Maps, key, &flow, reason);
    }
}

pub mod failover {
    use forwarder_common::abi::{Flow, Hello, Node};

    use super::{FlowRef, Maps, Work, engine};

    pub type Next = engine::failover::Next<&'static Node>;

    #[inline(always)]
    pub fn again(work: &Work, flow: &mut Flow, hello: &mut Hello) -> Next {
        engine::failover::again(Maps, work, &mut FlowRef(flow), hello)
    }

    #[inline(always)]
    pub fn next(work: &Work, flow: &mut Flow, hello: &mut Hello, timed_out: bool) -> Next {
        engine::failover::next(Maps, work, &mut FlowRef(flow), hello, timed_out)
    }
}

pub mod hops {
    use forwarder_common::abi::{Address, is_v4};

    use super::Skb;
    use crate::next_hop;

    #[inline(always)]
    pub fn send(packet: Skb, ifindex: u32, source: &Address, destination: &Address) -> i32 {
        if is_v4(destination) {
            next_hop::send(packet, ifindex, source[3], destination[3])
        } else {
            next_hop::send(packet, ifindex, 0, 0)
        }
    }
}

pub mod node {
    use forwarder_common::abi::{Hello, Node};
    use forwarder_common::engine::select::Choice;

    use super::{Maps, Skb, Work, act, engine};

    #[inline(always)]
    pub fn send_syn<const V6: bool>(
        packet: Skb,
        work: &Work,
        hello: &mut Hello,
        choice: &Choice<&'static Node>,
        source_port_be: u16,
        now_ns: u64,
    ) -> i32 {
        let verdict =
            engine::connect::send_syn(Maps, packet, work, hello, choice, source_port_be, now_ns);
        act(packet, verdict)
    }
}

pub mod predecessor {
    use super::{Maps, engine};

    #[inline(always)]
    pub fn is_behind() -> bool {
        engine::admit::has_predecessor(Maps)
    }
}

pub mod sources {
    use forwarder_common::abi::Address;
    use forwarder_common::verdict::DropReason;

    use super::{Maps, engine};

    #[inline(always)]
    pub fn refused<const V6: bool>(source: &Address, local: &Address) -> Option<DropReason> {
        engine::admit::source::<_, V6>(Maps, source, local)
    }
}

pub mod verify {
    use forwarder_common::abi::Address;

    use super::{Maps, Skb, Work, engine};

    #[inline(always)]
    pub fn control<const V6: bool>(
        packet: Skb,
        work: &mut Work,
        source: Address,
        destination: Address,
    ) -> bool {
        engine::verify::control::<Maps, _, V6>(packet, work, source, destination)
    }

    #[inline(always)]
    pub fn checksum<const V6: bool>(
        packet: Skb,
        work: &mut Work,
        source: Address,
        destination: Address,
    ) -> bool {
        engine::verify::checksum::<Maps, _, V6>(packet, work, source, destination)
    }
}
