//! Programs and maps as the kernel knows them: loaded, pinned, attached, read and written.
//!
//! - [`object`]: the programs, embedded.
//! - [`load`]: loads them, with maps of the configured [`sizes`]; [`atomics`] are put in where the kernel has them.
//! - [`attach`], [`xdp`]: ingress hooks and the XDP filter; [`hooks`] tells what is attached in fact.
//! - [`pins`]: the tree under bpffs.
//! - [`maps`], [`batch`], [`counters`]: the maps with their types, many entries at once, sums over CPUs.
//! - [`source_flows`]: how many flows each source has, counted by programs and daemon alike.
//! - [`keys`]: the keys of the SYN cookies.

pub mod atomics;
pub mod attach;
pub mod batch;
pub mod counters;
pub mod hooks;
pub mod keys;
pub mod load;
pub mod maps;
pub mod object;
pub mod pins;
pub mod sizes;
pub mod source_flows;
pub mod xdp;
