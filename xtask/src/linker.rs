//! The BPF linker, built once per toolchain into the cache.
//!
//! `bpf-linker` reads the compiler's bitcode, so it must be linked with the same LLVM. Instead of
//! a system LLVM it gets the library inside the toolchain: a folder with the names it looks for,
//! linked to that library, which its build script also records as run path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::toolchain::Toolchain;
use crate::workspace::Workspace;

const VERSION: &str = "0.13.0";

/// Where the linker is, whether or not it was built yet.
pub fn program(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("bin/bpf-linker")
}

/// Builds the linker where it is absent or belongs to another toolchain.
pub fn provide(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let folder = folder(workspace);
    let program = program(workspace);
    let stamp = folder.join("built-for");
    let built_for = format!("bpf-linker {VERSION}\n{}", toolchain.version);
    if fs::read_to_string(&stamp).is_ok_and(|it| it.starts_with(&built_for))
        && starts(&program).is_ok()
    {
        eprintln!("  bpf-linker {VERSION} is in {}", workspace.shown(&folder));
        return Ok(());
    }
    eprintln!(
        "  bpf-linker {VERSION} goes into {}: it links the kernel programs with the LLVM {} of \
         this toolchain; takes one to two minutes, once",
        workspace.shown(&folder),
        toolchain.llvm_major
    );
    let prefix = folder.join("llvm");
    link_llvm(&toolchain.llvm_library()?, &prefix.join("lib"))?;
    let build = folder.join("build");
    process::step(
        workspace,
        "bpf-linker",
        "building bpf-linker",
        Command::new("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--force",
            ])
            .args(["--no-default-features", "--features"])
            .arg(format!("llvm-{}", toolchain.llvm_major))
            .arg("--root")
            .arg(&folder)
            .current_dir(workspace.root())
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_TARGET_DIR", &build)
            .env_remove("RUSTFLAGS"),
    )?;
    starts(&program).context("bpf-linker was built but does not start")?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    fs::write(&stamp, built_for).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Whether it finds its LLVM, which it does not after the cache or the toolchain was moved.
fn starts(program: &Path) -> Result<()> {
    process::output(Command::new(program).arg("--version")).map(|_| ())
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.cache().join("bpf-linker")
}

/// The name for the linker's build (`libLLVM.so`) and the one for its start (the library's own).
fn link_llvm(library: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let own_name = library
        .file_name()
        .context("the LLVM library has no name")?;
    for name in [Path::new("libLLVM.so"), Path::new(own_name)] {
        let link = folder.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(library, &link)
            .with_context(|| format!("cannot link {} in {}", name.display(), folder.display()))?;
    }
    Ok(())
}
