//! Ingress of a public interface.

use forwarder_common::engine::public;

use crate::act::act;
use crate::count::PASS;
use crate::hook::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::packet::Skb;
use crate::store::Maps;

/// A packet with `L3` bytes of link-layer header. Returns the action.
#[inline(always)]
pub fn ingress<const L3: usize>(packet: Skb) -> i32 {
    if L3 != 0 && !packet.is_for_this_host() {
        return PASS;
    }
    match packet.protocol_be() {
        ETHERTYPE_IPV4 => act(packet, public::ingress::<_, _, L3, false>(Maps, packet)),
        ETHERTYPE_IPV6 => act(packet, public::ingress::<_, _, L3, true>(Maps, packet)),
        _ => PASS,
    }
}
