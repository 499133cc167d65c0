//! When public interfaces have the XDP filter attached, and what is known of it.
//!
//! The flood is told from what both hooks count: SYNs that no hello follows, and ACKs that fit no cookie.
//! [`flood`] decides, the daemon acts, [`report`] keeps what was seen beside the registry, so that `status`
//! and metrics tell it whether a daemon runs or not.

pub mod filter;
pub mod flood;
pub mod report;
