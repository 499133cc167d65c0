//! XDP on a public Ethernet interface, while it is flooded.

use forwarder_common::abi::tally;
use forwarder_common::engine::xdp_filter::{Filtered, filter};

use crate::act;
use crate::hook::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::packet::XdpFrame;
use crate::store::Maps;

/// A frame. Returns the action.
#[inline(always)]
pub fn ingress(frame: XdpFrame) -> u32 {
    match frame.protocol_be() {
        ETHERTYPE_IPV4 => act::on_frame(filter::<_, _, false>(Maps, frame)),
        ETHERTYPE_IPV6 => act::on_frame(filter::<_, _, true>(Maps, frame)),
        _ => act::on_frame(Filtered::Pass(tally::XDP_FOREIGN)),
    }
}
