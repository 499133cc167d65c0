//! Looks up a VIP or a node by address and port.

use super::store::Store;
use crate::abi::{Address, Endpoint, same, slot};

/// The number of the VIP with this address and port, and what is configured for it.
#[inline(always)]
pub fn vip<S: Store>(store: S, address: &Address, port_be: u16) -> Option<(u32, S::Vip)> {
    let entry = store.vip_slot(slot::of(address, port_be))?;
    if entry == slot::NOTHING {
        return None;
    }
    if entry == slot::SEVERAL {
        let number = store.vip_number(&Endpoint::new(*address, port_be))?;
        return store.vip(number).map(|vip| (number, vip));
    }
    let number = entry.wrapping_sub(1);
    let vip = store.vip(number)?;
    (same(&vip.address, address) && vip.port_be == port_be).then_some((number, vip))
}

/// The number of the node with this address and port, and what is configured for it.
#[inline(always)]
pub fn node<S: Store>(store: S, address: &Address, port_be: u16) -> Option<(u32, S::Node)> {
    let entry = store.node_slot(slot::of(address, port_be))?;
    if entry == slot::NOTHING {
        return None;
    }
    let number = if entry == slot::SEVERAL {
        store.node_number(&Endpoint::new(*address, port_be))?
    } else {
        entry.wrapping_sub(1)
    };
    let node = store.node(number)?;
    (same(&node.address, address) && node.port_be == port_be).then_some((number, node))
}
