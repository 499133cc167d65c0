//! Open flows: listed, swept, ended, and the events they cause.
//!
//! - [`open`]: the flows that match a selection, and how they are ended.
//! - [`sweep`]: removes flows that went silent; [`expired`] counts them.
//! - [`reset`]: the segments that the sweeper sends.
//! - [`events`]: records of the event ring.

pub mod events;
pub mod expired;
pub mod open;
pub mod reset;
pub mod sweep;
