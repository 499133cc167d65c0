//! The kernel programs, embedded: one file to install, and never a daemon with foreign programs.

/// The ELF object that `cargo xtask build` made of `forwarder-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!(
    "FORWARDER_BPF_OBJECT_PATH",
    "the kernel programs are not built yet: run `cargo xtask build` once"
));
