//! Finds the kernel programs for `src/dataplane/bpf/object.rs` to embed.
//!
//! `cargo xtask build` makes them; this script only says where they are, so that a plain
//! `cargo build` works after it. `FORWARDER_BPF_OBJECT` names another object.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=FORWARDER_BPF_OBJECT");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let object = object();
    println!("cargo::rerun-if-changed={}", object.display());
    // Where it is absent the variable stays unset, and `object.rs` says what to do.
    if object.is_file() {
        println!(
            "cargo::rustc-env=FORWARDER_BPF_OBJECT_PATH={}",
            object.display()
        );
    }
}

fn object() -> PathBuf {
    // When it runs, not when it was compiled: a copied build folder brings the script of another checkout along.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let workspace = Path::new(&package).join("..");
    if let Some(object) = env::var_os("FORWARDER_BPF_OBJECT") {
        return workspace.join(object);
    }
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("bpf/forwarder.o")
}
