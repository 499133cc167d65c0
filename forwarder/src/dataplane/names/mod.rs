//! Listed names: their numbers and texts, their tables, and how tables change in the maps.
//!
//! - [`store`]: numbers and texts of names.
//! - [`listed`]: what differs between two name tables.
//! - [`maps`]: the maps that hold names.
//! - [`retire`]: removes former tables on another thread.

pub mod listed;
pub mod maps;
pub mod retire;
pub mod store;
