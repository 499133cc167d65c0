//! The control: client and node share a link. What is left is the cost of the endpoints.

use crate::bench::contender::{Capacity, Running};
use crate::bench::scene::{DIRECT_NODE, DIRECT_NODE_V6, Scene};
use crate::error::Result;

/// There is nothing to start.
pub fn start(_: &Scene, _: Capacity) -> Result<Running<'_>> {
    Ok(Running::at(DIRECT_NODE.into()).and(DIRECT_NODE_V6.into()))
}
