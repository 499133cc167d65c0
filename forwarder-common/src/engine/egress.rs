//! Where a finished packet leaves.

use super::packet::Packet;
use crate::abi::{Address, Node, is_v4, link};
use crate::verdict::{DropReason, Verdict};

/// Sends the finished packet, which comes from `source`, towards a node.
#[inline(always)]
pub fn to_node<H, P: Packet>(
    packet: P,
    node: &Node,
    source: &Address,
    has_ethernet: bool,
) -> Verdict<H> {
    if node.ifindex == 0 {
        return Verdict::Drop(DropReason::LinkDown);
    }
    if node.link == link::L3 {
        return Verdict::Redirect(node.ifindex);
    }
    if !has_ethernet && !packet.add_ethernet() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    forward(node.ifindex, source, &node.address)
}

/// Sends the finished packet from a VIP towards a client.
#[inline(always)]
pub fn to_client<H, P: Packet>(
    packet: P,
    public_link: u32,
    local: &Address,
    client: &Address,
    has_ethernet: bool,
) -> Verdict<H> {
    if public_link & link::NO_HEADER != 0 {
        return Verdict::Redirect(public_link & !link::NO_HEADER);
    }
    if !has_ethernet && !packet.add_ethernet() {
        return Verdict::Drop(DropReason::KernelRefused);
    }
    forward(public_link, local, client)
}

#[inline(always)]
const fn forward<H>(ifindex: u32, source: &Address, destination: &Address) -> Verdict<H> {
    let v4 = is_v4(destination);
    Verdict::Forward {
        ifindex,
        source: if v4 { source[3] } else { 0 },
        destination: if v4 { destination[3] } else { 0 },
    }
}
