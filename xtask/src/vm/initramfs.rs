//! What the guest has: busybox, a handful of real programs with their libraries, modules, a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::modules::{self, Module};
use crate::tools;
use crate::workspace::Workspace;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// What the test needs of the kernel, in the guest nothing is loaded by itself.
const MODULES: &[&str] = &[
    "wireguard",
    "veth",
    "tun",
    "dummy",
    "bridge",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
    "act_bpf",
    "nf_tables",
    "af_packet",
];

/// Programs of `<cache>/bin` that go along.
const PROGRAMS: &[&str] = &[
    "ip", "tc", "wg", "ethtool", "tcpdump", "curl", "openssl", "nginx",
];

/// Builds the file system: `programs` are further ones by path, and `test` is what `/init` runs.
pub fn build(
    workspace: &Workspace,
    kernel_modules: &Path,
    programs: &[PathBuf],
    test: &str,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in [
        "dev", "proc", "sys", "tmp", "run", "root", "etc", "var/run", "usr/bin",
    ] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("test", 0o755, test.as_bytes());
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n");
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");

    archive.file("etc/group", 0o644, b"root:x:0:\n");

    let (busybox, _) = tools::locate(workspace, "busybox")?;
    archive.copy("bin/busybox", &busybox)?;
    archive.link("bin/sh", "busybox");
    for name in PROGRAMS {
        let (program, libraries) = tools::locate(workspace, name)?;
        add_program(&mut archive, &program, &libraries)?;
    }
    for program in programs {
        add_program(&mut archive, program, &[])?;
    }
    add_modules(
        &mut archive,
        &modules::closure(workspace, kernel_modules, MODULES)?,
    );
    Ok(archive.finish())
}

/// A program as `/bin/NAME`, its libraries in `/lib`, and its loader where it asks for it.
fn add_program(archive: &mut Archive, program: &Path, search: &[PathBuf]) -> Result<()> {
    let real =
        fs::canonicalize(program).with_context(|| format!("there is no {}", program.display()))?;
    let name = program
        .file_name()
        .context("a program without a name")?
        .to_string_lossy();
    archive.copy(&format!("bin/{name}"), &real)?;

    let listing = Command::new("ldd")
        .arg(&real)
        .env("LD_LIBRARY_PATH", std::env::join_paths(search)?)
        .output()
        .context("cannot run ldd")?;
    // ldd fails for a static program, which needs nothing.
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        let line = line.trim();
        let path = match line.split_once(" => ") {
            Some((name, found)) if found.starts_with("not found") => {
                bail!("{} lacks the library {name}", real.display())
            }
            Some((_, found)) => found,
            None => line,
        };
        let Some(path) = path
            .split_whitespace()
            .next()
            .filter(|path| path.starts_with('/'))
        else {
            continue;
        };
        let path = Path::new(path);
        let file = path
            .file_name()
            .context("a library without a name")?
            .to_string_lossy();
        if file.starts_with("ld-linux") || file.starts_with("ld64") {
            archive.copy(path.strip_prefix("/")?.to_string_lossy().as_ref(), path)?;
        } else {
            archive.copy(&format!("lib/{file}"), path)?;
        }
    }
    Ok(())
}

fn add_modules(archive: &mut Archive, modules: &[Module]) {
    let mut order = String::new();
    for module in modules {
        archive.file(
            &format!("modules/{}.ko", module.name),
            0o644,
            &module.content,
        );
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
}
