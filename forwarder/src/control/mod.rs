//! What others may ask of the daemon while it runs: HTTP/1.1 and JSON by a Unix socket.
//!
//! ```text
//! curl, forwarder reload … ──socket──▶ server ──Command──▶ daemon (one thing at a time)
//!                                        ├── reads maps itself (status, flows)
//!                                        └── events by SSE  ◀──broadcast── daemon
//! ```
//!
//! `docs/control.md` is the contract. Changes go through the daemon's own loop, so that no two meet; looking
//! costs the daemon no more than a copy of what it knows.

mod change;
pub mod client;
pub mod events;
mod parameters;
pub mod peer;
pub mod problem;
pub mod server;
pub mod socket;
pub mod view;
