//! Whose an address and port are: one that is claimed, or a node's.

use forwarder_common::abi::{Address, Endpoint, Node, Vip, same, slot};

use crate::maps::{NODE_INDEX, NODE_SLOTS, NODES, VIP_INDEX, VIP_SLOTS, VIPS};

/// The index of `VIPS` and what stands there, if this address and port are claimed.
#[inline(always)]
pub fn vip(address: &Address, port_be: u16) -> Option<(u32, &'static Vip)> {
    let entry = *VIP_SLOTS.get(slot::of(address, port_be))?;
    if entry == slot::NOTHING {
        return None;
    }
    if entry == slot::SEVERAL {
        // SAFETY: the number is copied at once.
        let id = *unsafe { VIP_INDEX.get(Endpoint::new(*address, port_be)) }?;
        return VIPS.get(id).map(|vip| (id, vip));
    }
    let id = entry.wrapping_sub(1);
    let vip = VIPS.get(id)?;
    (same(&vip.address, address) && vip.port_be == port_be).then_some((id, vip))
}

/// The index of `NODES` and what stands there, if this is a node's address and port.
#[inline(always)]
pub fn node(address: &Address, port_be: u16) -> Option<(u32, &'static Node)> {
    let entry = *NODE_SLOTS.get(slot::of(address, port_be))?;
    if entry == slot::NOTHING {
        return None;
    }
    let id = if entry == slot::SEVERAL {
        // SAFETY: the number is copied at once.
        *unsafe { NODE_INDEX.get(Endpoint::new(*address, port_be)) }?
    } else {
        entry.wrapping_sub(1)
    };
    let node = NODES.get(id)?;
    (same(&node.address, address) && node.port_be == port_be).then_some((id, node))
}
