//! Tables of listed names, and how they change in the maps.
//!
//! - [`listed`]: what differs between two name tables.
//! - [`maps`]: the maps that hold names.
//! - [`retire`]: removes former tables on another thread.

pub mod listed;
pub mod maps;
pub mod retire;
