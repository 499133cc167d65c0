//! The lab: a network of namespaces in which real programs meet.
//!
//! ```text
//!  client 0 ─┐            [wire]                   [wire]
//!  client 1 ─┼─ router ──────────── entrance ──────────────── node 0 …
//!            (the internet)         (forwarder)   tunnel
//! ```
//!
//! [`lab::Lab`] builds it from a [`lab::LabBuilder`] and takes it down when it is dropped, when the
//! process ends in any orderly way, and, should the process be killed, at the next start. Nothing
//! outside the namespaces is touched: interfaces, routes, sysctls and filters exist only inside.
//!
//! - [`wire`] loses, duplicates, reorders and delays packets on a link;
//! - [`capture`] records what passes an interface and verifies the raw checksums;
//! - [`server`] and [`client`] are real programs (nginx, HAProxy, curl, OpenSSL, Python, Java,
//!   rustls) and two of our own that tell more than those can;
//! - [`talk`] is many connections at once whose every byte both ends check;
//! - [`raw`] is TCP by hand, for the segments that no kernel would send;
//! - [`hello`] builds ClientHellos, from a browser's to a malicious one;
//! - [`forwarder`] runs the program under test; [`site`] is a lab with all of that at work;
//! - [`pinned`] reads what the kernel has been told of the configuration;
//! - [`terminal`] is a terminal for a program that wants one;
//! - [`machine`] is a whole Debian machine with systemd, to install the package on;
//! - [`programs`] runs the kernel programs alone, one packet at a time;
//! - [`bench`] measures the forwarder by the side of what it replaces.
//!
//! Everything here needs root: see [`require_root`].

pub mod bench;
pub mod busy;
pub mod capture;
pub mod cleanup;
pub mod client;
pub mod command;
pub mod dashboard;
pub mod document;
pub mod error;
pub mod ethtool;
pub mod flood;
pub mod forwarder;
pub mod hello;
pub mod lab;
pub mod machine;
pub mod mmdb;
pub mod netns;
pub mod packet;
pub mod pattern;
pub mod pinned;
pub mod pki;
pub mod process;
pub mod programs;
pub mod raw;
pub mod server;
pub mod site;
pub mod talk;
pub mod terminal;
pub mod wire;

mod link_socket;
mod socket;

pub use error::{Error, Result};

/// Fails with a clear word when the lab cannot work because the caller is not root.
pub fn require_root() -> Result<()> {
    // SAFETY: geteuid has no arguments, no memory effects and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        Ok(())
    } else {
        Err(Error::NotRoot)
    }
}
