//! `cargo xtask dist`: a Debian package of the daemon, made with `dpkg-deb`.
//!
//! The daemon holds the kernel programs, so the package is one program and a few text files. Maintainer
//! scripts are in `packaging/debian/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{build, process};

/// Arguments of `dist`.
#[derive(Args)]
pub struct Arguments {
    /// Package this program instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// From the checkout (a file, or a folder whose files are taken) to the installed system.
const FILES: &[(&str, &str)] = &[
    (
        "packaging/forwarder.toml.example",
        "etc/forwarder/forwarder.toml",
    ),
    (
        "packaging/forwarder.service",
        "usr/lib/systemd/system/forwarder.service",
    ),
    ("packaging/prometheus", "usr/share/forwarder/prometheus"),
    ("dashboards", "usr/share/forwarder/dashboards"),
    ("docs", "usr/share/doc/forwarder"),
    ("LICENSE-MIT", "usr/share/doc/forwarder/copyright"),
    ("LICENSE-APACHE", "usr/share/doc/forwarder/LICENSE-APACHE"),
];

/// Shell and where it looks for completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/forwarder"),
    ("zsh", "usr/share/zsh/vendor-completions/_forwarder"),
    ("fish", "usr/share/fish/vendor_completions.d/forwarder.fish"),
];

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => {
            setup::prepare(workspace, Purpose::Build)?;
            build::daemon(workspace)?
        }
    };
    let root = workspace.target().join("dist/root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fill(workspace.root(), &binary, &root)?;

    let version = version(&binary)?;
    let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    write_control(workspace.root(), &binary, &root, &version, architecture)?;
    let package = workspace
        .target()
        .join(format!("dist/forwarder_{version}_{architecture}.deb"));
    process::output(
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group"])
            .arg(&root)
            .arg(&package),
    )?;
    eprintln!("  {}", workspace.shown(&package));
    Ok(())
}

/// Lays out what will be installed.
fn fill(checkout: &Path, binary: &Path, root: &Path) -> Result<()> {
    install(binary, &root.join("usr/bin/forwarder"), 0o755)?;
    for (from, to) in FILES {
        let (from, to) = (checkout.join(from), root.join(to));
        if from.is_dir() {
            install_folder(&from, &to)?;
        } else {
            install(&from, &to, 0o644)?;
        }
    }
    for (shell, to) in COMPLETIONS {
        let script = process::output(Command::new(binary).args(["completions", shell]))?;
        write(&root.join(to), &script, 0o644)?;
    }
    Ok(())
}

fn install_folder(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            install_folder(&from, &to)?;
        } else {
            install(&from, &to, 0o644)?;
        }
    }
    Ok(())
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Whatever the caller's umask is, folders of the package are open.
fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// `forwarder 0.1.0` → `0.1.0`.
fn version(binary: &Path) -> Result<String> {
    let said = process::output(Command::new(binary).arg("--version"))?;
    let version = said.trim().strip_prefix("forwarder ");
    Ok(version
        .context("the daemon does not tell its version")?
        .to_owned())
}

fn write_control(
    checkout: &Path,
    binary: &Path,
    root: &Path,
    version: &str,
    architecture: &str,
) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let libc = needed_glibc(&bytes).context("the daemon names no version of glibc")?;
    let control = format!(
        "Package: forwarder\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: the forwarder developers <forwarder@localhost>\n\
         Section: net\n\
         Priority: optional\n\
         Depends: libc6 (>= {}.{}), libgcc-s1\n\
         Suggests: wireguard-tools, prometheus\n\
         Description: TLS entrance of a home cluster, in the kernel\n \
         Answers TLS on a public machine, reads the server name, and splices connections of\n \
         listed names through a tunnel to nodes at home, in eBPF programs.\n",
        libc.0, libc.1
    );
    let folder = root.join("DEBIAN");
    write(&folder.join("control"), &control, 0o644)?;
    write(
        &folder.join("conffiles"),
        "/etc/forwarder/forwarder.toml\n",
        0o644,
    )?;
    for script in ["postinst", "prerm", "postrm"] {
        let from = checkout.join("packaging/debian").join(script);
        install(&from, &folder.join(script), 0o755)?;
    }
    Ok(())
}

/// The newest `GLIBC_x.y` among the symbol versions that a program asks for.
fn needed_glibc(program: &[u8]) -> Option<(u32, u32)> {
    let mark = b"GLIBC_";
    let places = program
        .windows(mark.len())
        .enumerate()
        .filter(|(_, window)| *window == mark);
    let read = |at: usize| {
        let rest = program.get(at + mark.len()..)?;
        let length = rest
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let text = std::str::from_utf8(&rest[..length]).ok()?;
        let mut numbers = text.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    places.filter_map(|(at, _)| read(at)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_counts() {
        let program = b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.5\0";
        assert_eq!(needed_glibc(program), Some((2, 34)));
        assert_eq!(needed_glibc(b"static"), None);
    }

    /// With a script in place of the daemon: what matters here is where things go, and their modes.
    #[test]
    fn the_package_holds_what_it_should() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = std::env::temp_dir().join(format!("forwarder-dist-{}", std::process::id()));
        let made = package(checkout, &folder);
        let _ = fs::remove_dir_all(&folder);
        let (listing, information) = made.unwrap();
        for (mode, path) in [
            ("-rwxr-xr-x root/root", "./usr/bin/forwarder"),
            (
                "-rw-r--r-- root/root",
                "./usr/lib/systemd/system/forwarder.service",
            ),
            ("-rw-r--r-- root/root", "./etc/forwarder/forwarder.toml"),
            (
                "-rw-r--r-- root/root",
                "./usr/share/doc/forwarder/config.md",
            ),
            (
                "-rw-r--r-- root/root",
                "./usr/share/doc/forwarder/metrics.md",
            ),
            (
                "-rw-r--r-- root/root",
                "./usr/share/zsh/vendor-completions/_forwarder",
            ),
            ("drwxr-xr-x root/root", "./usr/share/forwarder/dashboards/"),
        ] {
            let found = listing
                .lines()
                .any(|line| line.starts_with(mode) && line.ends_with(&format!(" {path}")));
            assert!(found, "{mode} {path} is not in\n{listing}");
        }
        for line in [
            "Package: forwarder",
            "Version: 9.8.7",
            "libc6 (>= 2.36)",
            "conffiles",
        ] {
            assert!(
                information.contains(line),
                "{line} is not in\n{information}"
            );
        }
    }

    fn package(checkout: &Path, folder: &Path) -> Result<(String, String)> {
        let program = folder.join("program");
        let script = "#!/bin/sh\n# GLIBC_2.36\necho forwarder 9.8.7\n";
        write(&program, script, 0o755)?;
        let root = folder.join("root");
        fill(checkout, &program, &root)?;
        write_control(checkout, &program, &root, &version(&program)?, "amd64")?;
        let package = folder.join("forwarder.deb");
        let deb = |action: &str| {
            let mut command = Command::new("dpkg-deb");
            command.arg(action);
            command
        };
        process::output(
            deb("--build")
                .arg("--root-owner-group")
                .arg(&root)
                .arg(&package),
        )?;
        Ok((
            process::output(deb("--contents").arg(&package))?,
            process::output(deb("--info").arg(&package))?,
        ))
    }
}
