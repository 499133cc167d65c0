//! The control of floods: the forwarder, TC only, behind an XDP program of a dozen instructions that drops
//! whatever comes from the flood's network. What floods cost here is the least that they can cost.

use crate::bench::bpf::{self, Hook};
use crate::bench::contender::{Capacity, Running, unavailable};
use crate::bench::scene::{FLOOD_NETWORK, Scene};
use crate::error::Result;

/// Where the source address stands in an Ethernet frame with IPv4.
const SOURCE: i16 = 26;

/// Starts it.
pub fn start(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    let [first, second, ..] = FLOOD_NETWORK.octets();
    let link = scene.lab.entrance.enter(|| {
        let program = bpf::drop_matching(Hook::Xdp, SOURCE, [first, second])?;
        bpf::attach(&program, Hook::Xdp, bpf::interface("eth0")?)
    })?;
    let link = link.map_err(|error: std::io::Error| {
        unavailable("drop-only", &format!("the kernel refuses it: {error}"))
    })?;
    Ok(super::forwarder::transparent(scene, capacity)?.with(link))
}
