//! The kernel programs alone: packet in, verdict and packet out, counters.
//!
//! `BPF_PROG_TEST_RUN` hands one packet to an entry program in the kernel and returns what became of it
//! (Linux `net/bpf/test_run.c`). Nothing is sent by it but what the programs send as clones; those leave
//! by interfaces of a network namespace that belongs to the calling thread and ends with it.
//!
//! - [`kernel`] loads the programs with maps of a small size and hands packets to them;
//! - [`bench`] holds them, with maps filled as [`entrance`] says and interfaces of a [`shape`], and checks
//!   what must hold of anything that is [`seen`];
//! - [`lease`] lends them to one bench after the other, with maps that [`blank`] has emptied;
//! - [`client`] plays a client, and the node it is led to, on a bench;
//! - [`budget`] says what the verifier made of each program;
//! - [`path`] says what one packet costs on each way through them.
//!
//! A program for an interface without Ethernet header gets the packet's protocol from the kernel, and in
//! a test run the kernel takes it from bytes 12 and 13, as if there were such a header. In an IP packet
//! those belong to the source address: hence the odd addresses here, `8.0.0.0/16` and
//! `2001:db8:86dd::/48`, which read as the EtherTypes of IPv4 and IPv6.

pub mod bench;
pub mod blank;
pub mod budget;
pub mod client;
pub mod entrance;
pub mod kernel;
pub mod lease;
pub mod maps;
pub mod path;
pub mod seen;
pub mod shape;
