//! The Rust toolchain: which one it is, the LLVM in it, and the `rust-src` component.
//!
//! One stable toolchain builds everything. The kernel programs need `core` compiled for the BPF
//! target, hence its source, and a linker that shares the compiler's own LLVM.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// What `rustc` says about itself.
pub struct Toolchain {
    /// All of `rustc -vV`; differs for any two compilers.
    pub version: String,
    /// The folder the toolchain is installed in.
    pub sysroot: PathBuf,
    /// The major version of its LLVM.
    pub llvm_major: u32,
}

impl Toolchain {
    /// Asks the compiler that builds this checkout.
    pub fn query(workspace: &Workspace) -> Result<Self> {
        let rustc = || {
            let mut rustc = Command::new("rustc");
            rustc.current_dir(workspace.root());
            rustc
        };
        let version = process::output(rustc().arg("-vV"))?;
        let sysroot = process::output(rustc().args(["--print", "sysroot"]))?;
        let llvm_major = version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))
            .and_then(|version| version.split('.').next()?.parse().ok())
            .context("rustc does not tell its LLVM version")?;
        Ok(Self {
            version,
            sysroot: PathBuf::from(sysroot.trim_end()),
            llvm_major,
        })
    }

    /// Installs `rust-src` where it is absent.
    pub fn provide_source(&self, workspace: &Workspace) -> Result<()> {
        let core = self
            .sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if core.exists() {
            eprintln!("  rust-src is installed");
            return Ok(());
        }
        eprintln!(
            "  rust-src goes into {}: the kernel programs compile `core` for BPF",
            self.sysroot.display()
        );
        process::step(
            workspace,
            "rust-src",
            "rustup component add rust-src",
            Command::new("rustup")
                .args(["component", "add", "rust-src"])
                .current_dir(workspace.root()),
        )
        .with_context(|| {
            format!(
                "the source of `core` is missing at {}.\n\
                 With rustup: run `rustup component add rust-src` in this folder.\n\
                 Without: install your distribution's package of the Rust source \
                 (Debian: rust-src) for exactly this compiler.",
                core.display()
            )
        })?;
        if !core.exists() {
            bail!(
                "rustup added rust-src, but {} is still absent",
                core.display()
            );
        }
        Ok(())
    }

    /// The shared LLVM library that the compiler itself uses.
    pub fn llvm_library(&self) -> Result<PathBuf> {
        let folder = self.sysroot.join("lib");
        let prefix = format!("libLLVM.so.{}.", self.llvm_major);
        fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .with_context(|| {
                format!(
                    "no {prefix}* in {}: the BPF linker must share the compiler's LLVM.\n\
                     Toolchains from rustup have it; install one with `rustup toolchain install`.",
                    folder.display()
                )
            })
    }
}
