//! x
pub mod attach;
pub mod batch;
pub mod clock;
pub mod keys;
pub mod load;
pub mod maps;
pub mod pins;
pub mod plan;
pub mod registry;
pub mod sizes;
pub mod sweep;
pub mod write;
