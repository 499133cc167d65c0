//! The tunnel side: segments from nodes.

pub mod answer;
pub mod ingress;
pub mod splice;
