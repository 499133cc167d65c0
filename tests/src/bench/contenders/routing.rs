//! The yardstick: the entrance routes, and the client knows the node's address.

use super::{node, node_v6};
use crate::bench::contender::{Capacity, Running};
use crate::bench::scene::Scene;
use crate::error::Result;

/// The scene's entrance routes already.
pub fn start(scene: &Scene, _: Capacity) -> Result<Running<'_>> {
    Ok(Running::at(node(scene)).and(node_v6(scene)))
}
