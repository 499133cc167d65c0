//! The kernel programs, packet by packet: what goes in, the verdict, what comes out, what is counted.
//!
//! Every answer is compared byte for byte, IP and TCP checksums included. Where a redirect leads is for
//! the tests with real interfaces to see: a test run tells only that there is one. Nor can a test run
//! hand in a packet whose checksum the device has yet to finish (`CHECKSUM_PARTIAL`).

mod admit;
mod answer;
mod armour;
mod before_hello;
mod blank;
mod budget;
mod challenge;
mod closed;
mod ends;
mod failover;
mod foreign;
mod fuzz;
mod hello;
mod icmp;
mod leaving;
mod names;
mod open;
mod races;
mod segment_size;
mod source_limit;
mod splice;
mod starved;
mod syn;
mod verdicts;
