//! Weights that nodes have for now instead of their configured ones: health takes a node out, and lets it come
//! back by and by.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::config::model::{Node, Pool};

/// Weights by pool and node address; whoever is not listed has the configured one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(HashMap<String, HashMap<SocketAddr, u16>>);

impl Weights {
    /// Gives a node of a pool another weight; 0 leaves it out.
    pub fn set(&mut self, pool: &str, node: SocketAddr, weight: u16) {
        self.0
            .entry(pool.to_owned())
            .or_default()
            .insert(node, weight);
    }

    /// The weight that counts.
    pub fn of(&self, pool: &Pool, node: &Node) -> u32 {
        let listed = self.0.get(pool.name.get_ref());
        let listed = listed.and_then(|nodes| nodes.get(node.address.get_ref()));
        match (node.share(), listed) {
            // Who has none by configuration gets none.
            (0, _) => 0,
            (own, None) => u32::from(own),
            (_, Some(listed)) => u32::from(*listed),
        }
    }
}
