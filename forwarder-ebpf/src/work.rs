//! What one stage of the slow path hands to the next.

pub use forwarder_common::engine::work::{Reply, Work};

/// Bytes summed at a time: the most `bpf_csum_diff` takes before 6.13.
pub const CHUNK: usize = 512;
