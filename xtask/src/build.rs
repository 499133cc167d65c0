//! `cargo xtask build`: the kernel programs first, then the daemon that embeds them.
//!
//! The kernel programs are a crate of their own for the target `bpfel-unknown-none`, built by the
//! same stable toolchain. They end up as one object at `<target>/bpf/forwarder.o`, where the
//! daemon's build script finds it; from then on plain `cargo build` and `cargo test` work too.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::calls;
use crate::linker;
use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

const BPF_TARGET: &str = "bpfel-unknown-none";

/// Arguments of `build`.
#[derive(Args)]
pub struct Arguments {
    /// Optimise the daemon (the kernel programs always are).
    #[arg(long)]
    release: bool,
    /// Build only the kernel programs.
    #[arg(long)]
    bpf_only: bool,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::prepare(workspace, Purpose::Build)?;
    kernel_programs(workspace)?;
    if !arguments.bpf_only {
        user_programs(workspace, arguments.release)?;
    }
    Ok(())
}

/// Where the daemon's build script looks for the kernel programs.
pub fn object(workspace: &Workspace) -> PathBuf {
    workspace.target().join("bpf/forwarder.o")
}

/// Builds the kernel programs; leaves the object untouched when nothing changed.
pub fn kernel_programs(workspace: &Workspace) -> Result<()> {
    eprintln!("kernel programs");
    let started = Instant::now();
    let folder = workspace.target().join("bpf-build");
    process::run(
        bpf_cargo(workspace, "build")
            .arg("--release")
            .arg("--target-dir")
            .arg(&folder),
    )?;

    let built = folder.join(BPF_TARGET).join("release/forwarder");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    calls::check(&bytes)?;
    let object = object(workspace);
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        eprintln!("  {}: unchanged", workspace.shown(&object));
        return Ok(());
    }
    fs::create_dir_all(workspace.target().join("bpf"))?;
    fs::write(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
    eprintln!(
        "  {}: {} KB in {:.1} s",
        workspace.shown(&object),
        bytes.len() / 1024,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Builds the daemon and everything else of the workspace.
pub fn user_programs(workspace: &Workspace, release: bool) -> Result<()> {
    eprintln!("user programs");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--workspace", "--exclude", "xtask"])
        .current_dir(workspace.root());
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}

/// Builds kernel programs and daemon, optimised, and returns the daemon.
pub fn daemon(workspace: &Workspace) -> Result<PathBuf> {
    kernel_programs(workspace)?;
    eprintln!("daemon");
    process::run(
        Command::new("cargo")
            .args(["build", "--release", "--package", "forwarder"])
            .current_dir(workspace.root()),
    )?;
    Ok(workspace.target().join("release/forwarder"))
}

/// Builds a program of the lab as its tests do, and returns it.
pub fn lab_program(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    eprintln!("{name}");
    process::run(
        Command::new("cargo")
            .args(["build", "--package", "forwarder-tests", "--bin", name])
            .current_dir(workspace.root()),
    )?;
    Ok(workspace.target().join("debug").join(name))
}

/// `cargo <verb>` for the crate of the kernel programs.
///
/// `RUSTC_BOOTSTRAP` lets the stable toolchain compile `core` for the BPF target; it reaches
/// nothing but that crate. BTF comes from the debug information, hence `debuginfo=2`.
pub fn bpf_cargo(workspace: &Workspace, verb: &str) -> Command {
    let mut linker = OsString::from("linker=");
    linker.push(linker::program(workspace));
    let architecture = format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    let flags = [
        "--cfg".into(),
        OsString::from(architecture),
        "-C".into(),
        "debuginfo=2".into(),
        "-C".into(),
        "link-arg=--btf".into(),
        // Left on, it turns every small memset into a call of a BPF function, and kernels that
        // refuse those beside tail calls are among those we run on.
        "-C".into(),
        "link-arg=--disable-expand-memcpy-in-order".into(),
        "-C".into(),
        linker,
    ];
    let mut cargo = Command::new("cargo");
    cargo
        .arg(verb)
        .args(["-Z", "build-std=core", "--target", BPF_TARGET])
        .current_dir(workspace.root().join("forwarder-ebpf"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags.join(&OsString::from("\x1f")),
        )
        .env_remove("RUSTFLAGS");
    cargo
}
