//! Pure logic of the forwarder, and the layout it shares with the kernel.
//!
//! Everything here is `no_std`, allocates nothing, reads no clock and touches no map: bytes, state and
//! `now` go in, a verdict comes out. The same code is compiled into the kernel programs, runs in the
//! daemon, and is what the tests and fuzz targets exercise on the host.
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test may panic: that is how it fails"
    )
)]

pub mod abi;
pub mod admit;
pub mod checksum;
pub mod closed;
pub mod cookie;
pub mod engine;
pub mod expiry;
pub mod flow;
pub mod handshake;
pub mod hello;
pub mod maglev;
pub mod name;
pub mod name_key;
pub mod node_options;
pub mod pace;
pub mod proxy;
pub mod segment;
pub mod seq;
pub mod share;
pub mod siphash;
pub mod source_flows;
pub mod tcp;
pub mod token_bucket;
pub mod verdict;
mod window;
