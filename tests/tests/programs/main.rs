//! The kernel programs, packet by packet: what goes in, the verdict, what comes out, what is counted.
//!
//! Every answer is compared byte for byte, IP and TCP checksums included. Where a redirect leads is for
//! the tests with real interfaces to see: a test run tells only that there is one.

mod before_hello;
mod budget;
mod hello;
mod syn;
mod verdicts;
