//! The control of floods: the forwarder, TC only, behind an XDP program of a dozen instructions that drops
//! whatever comes from the flood's network. What floods cost here is the least that they can cost.

use crate::bench::bpf::{self, Hook};
use crate::bench::contender::{Capacity, Running, unavailable};
use crate::bench::load::flood::{End, drop_flood};
use crate::bench::scene::Scene;
use crate::error::Result;

/// Starts it.
pub fn start(scene: &Scene, capacity: Capacity) -> Result<Running<'_>> {
    let link = scene.lab.entrance.enter(|| {
        let program = drop_flood(Hook::Xdp, End::Source)?;
        bpf::attach(&program, Hook::Xdp, bpf::interface("eth0")?)
    })?;
    let link = link.map_err(|error: std::io::Error| {
        unavailable("drop-only", &format!("the kernel refuses it: {error}"))
    })?;
    Ok(super::forwarder::transparent(scene, capacity)?.with(link))
}
