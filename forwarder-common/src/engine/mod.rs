//! The decisions of a connection, generic over where packets and tables are.
//!
//! A stage takes a [`Store`] (tables, clock, chance), a [`Packet`] and what earlier stages found out about it
//! ([`work::Work`]), and returns a [`Verdict`](crate::verdict::Verdict), which whoever calls it carries out. The kernel
//! programs implement the traits over maps and helpers, tests over hash maps and byte vectors. Everything is inlined into each
//! caller, so the verifier sees what it would see of code without traits.
//!
//! **Rules for a stage.** It holds no `unsafe` code. It reads and writes memory of the store at a variable place through
//! [`Bounds`] only. It calls nothing that is not `#[inline(always)]`, closures included, because Linux 5.10 refuses calls
//! beside tail calls on arm64. A loop keeps its state in [`work::Work`] or another value of the store and calls
//! [`Bounds::clobber`] each round.
#![forbid(unsafe_code)]

pub mod admit;
pub mod bounds;
pub mod buffer;
pub mod close;
pub mod closed;
pub mod connect;
pub mod cookies;
pub mod counters;
pub mod egress;
pub mod extended;
pub mod failover;
pub mod header;
pub mod icmp;
pub mod lookup;
pub mod node_answer;
pub mod packet;
pub mod probe;
pub mod public;
pub mod reply;
pub mod reverse;
pub mod route;
pub mod select;
pub mod store;
pub mod syn;
pub mod too_big;
pub mod translate;
pub mod tunnel;
pub mod verify;
pub mod work;
pub mod xdp_filter;

pub use bounds::Bounds;
pub use packet::{Frame, Packet, Source};
pub use store::Store;

/// Length of an Ethernet header.
pub const ETHERNET: u32 = 14;

/// Milliseconds, modulo 2^32.
#[inline(always)]
#[must_use]
pub const fn ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

/// Microseconds, modulo 2^32.
#[inline(always)]
#[must_use]
pub const fn us(now_ns: u64) -> u32 {
    (now_ns / 1_000) as u32
}
