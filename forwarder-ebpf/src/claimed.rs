//! Which of the claimed addresses and ports a packet is for.

use forwarder_common::abi::{Address, Endpoint, Vip, same, vip_slot};

use crate::maps::{VIP_INDEX, VIP_SLOTS, VIPS};

/// The index of `VIPS` and what stands there, if this address and port are claimed.
#[inline(always)]
pub fn find(address: &Address, port_be: u16) -> Option<(u32, &'static Vip)> {
    let slot = *VIP_SLOTS.get(vip_slot::of(address, port_be))?;
    if slot == vip_slot::NOTHING {
        return None;
    }
    if slot == vip_slot::SEVERAL {
        // SAFETY: the number is copied at once.
        let id = *unsafe { VIP_INDEX.get(Endpoint::new(*address, port_be)) }?;
        return VIPS.get(id).map(|vip| (id, vip));
    }
    let id = slot.wrapping_sub(1);
    let vip = VIPS.get(id)?;
    if !same(&vip.address, address) || vip.port_be != port_be {
        return None;
    }
    Some((id, vip))
}
