//! The lab's programs and how they get to `<cache>/bin`, the folder the lab puts first in `PATH`.
//!
//! A program that the machine has becomes a link to it. One that it lacks is unpacked from its
//! Debian package together with the libraries it needs, and a small wrapper runs it from there.
//! The wrappers find their files relative to themselves, so the cache can be moved.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{self, Apt};
use crate::workspace::Workspace;

/// A program that tests, demo or virtual machine call.
pub struct Tool {
    /// The command's name.
    pub command: &'static str,
    /// Its Debian packages.
    pub packages: &'static [&'static str],
    /// What it is for, shown when it is fetched.
    pub purpose: &'static str,
    /// Extra words before the caller's arguments; `$root` is where packages are unpacked.
    arguments: &'static str,
    /// Variables the unpacked program needs, in the same notation.
    environment: &'static str,
}

/// Programs of the namespace lab: `make test` and `make demo`.
pub const LAB: &[Tool] = &[
    tool("ip", &["iproute2"], "makes namespaces and links"),
    tool(
        "tc",
        &["iproute2"],
        "offload and queue settings of the lab's links",
    ),
    tool(
        "nft",
        &["nftables"],
        "loss, counters, and the nftables row of comparisons",
    ),
    tool(
        "ethtool",
        &["ethtool"],
        "switches offloads of the lab's links",
    ),
    tool("tcpdump", &["tcpdump"], "captures in the lab's tunnel"),
    tool("curl", &["curl"], "a client"),
    Tool {
        environment: "OPENSSL_CONF=\"$root/etc/ssl/openssl.cnf\"",
        ..tool("openssl", &["openssl"], "a client, and certificates")
    },
    tool(
        "nginx",
        &["nginx", "libnginx-mod-stream"],
        "a server on nodes",
    ),
    tool(
        "haproxy",
        &["haproxy"],
        "a server on nodes that checks PROXY protocol",
    ),
    tool("wireguard-go", &["wireguard-go"], "the lab's tunnel"),
    tool("wg", &["wireguard-tools"], "sets up the lab's tunnel"),
    tool("bpftool", &["bpftool"], "shows loaded programs and maps"),
    tool(
        "prometheus",
        &["prometheus"],
        "scrapes the lab; every query of the dashboards is run",
    ),
    tool(
        "promtool",
        &["prometheus"],
        "checks and tests the rules of packaging/prometheus",
    ),
];

/// Programs of the benchmark, `cargo xtask bench`, beside those of the lab.
pub const BENCH: &[Tool] = &[
    tool("sniproxy", &["sniproxy"], "a contender of the benchmark"),
    tool("wrk", &["wrk"], "a load of the benchmark"),
];

/// Programs of the virtual machine, `cargo xtask vm`, beside those of the lab that it takes in.
pub const VIRTUAL_MACHINE: &[Tool] = &[
    Tool {
        arguments: "-L \"$root/usr/share/qemu\" -L \"$root/usr/share/seabios\" -L \"$root/usr/lib/ipxe/qemu\"",
        environment: "QEMU_MODULE_DIR=\"$root/usr/lib/$(uname -m)-linux-gnu/qemu\"",
        ..tool(
            "qemu-system-x86_64",
            &["qemu-system-x86"],
            "boots distribution kernels",
        )
    },
    tool(
        "busybox",
        &["busybox-static"],
        "the virtual machine's user land",
    ),
];

/// Programs of `cargo xtask previews`.
pub const PREVIEWS: &[Tool] = &[tool(
    "chromium-headless-shell",
    &["chromium-headless-shell"],
    "draws the previews of the dashboards",
)];

/// What cargo-deb calls.
pub const PACKAGING: &[Tool] = &[Tool {
    environment: "PERL5LIB=\"$root/usr/share/perl5\"",
    ..tool(
        "dpkg-shlibdeps",
        &["dpkg-dev"],
        "finds what the package depends on",
    )
}];

/// What the machines are made with that the package is installed on.
pub const DEBIAN_MACHINES: &[Tool] = &[tool(
    "mmdebstrap",
    &["mmdebstrap"],
    "makes Debian roots to install the package in",
)];

/// nginx's stream module, linked beside the programs so that configurations can name it.
const NGINX_STREAM_MODULE: &str = "usr/lib/nginx/modules/ngx_stream_module.so";

const fn tool(
    command: &'static str,
    packages: &'static [&'static str],
    purpose: &'static str,
) -> Tool {
    Tool {
        command,
        packages,
        purpose,
        arguments: "",
        environment: "",
    }
}

/// Makes each of `tools` runnable from `<cache>/bin`; does nothing for those that are.
pub fn provide(workspace: &Workspace, tools: &[Tool]) -> Result<()> {
    let programs = workspace.cached_programs();
    let absent: Vec<&Tool> = tools
        .iter()
        .filter(|tool| !debian::is_executable(&programs.join(tool.command)))
        .collect();
    if absent.is_empty() {
        eprintln!(
            "  {} programs are in {}",
            tools.len(),
            workspace.shown(&programs)
        );
        return Ok(());
    }
    fs::create_dir_all(&programs)
        .with_context(|| format!("cannot create {}", programs.display()))?;

    let unpacked = unpacked(workspace);
    let lacking: Vec<&&Tool> = absent
        .iter()
        .filter(|tool| debian::machine_program(tool.command, &programs).is_none())
        .collect();
    if !lacking.is_empty() {
        eprintln!(
            "  this machine lacks the following; they are unpacked into {}, not installed:",
            workspace.shown(&unpacked)
        );
        for tool in &lacking {
            eprintln!("    {:<20} {}", tool.command, tool.purpose);
        }
        let wanted: BTreeSet<&str> = lacking
            .iter()
            .flat_map(|tool| tool.packages)
            .copied()
            .collect();
        fetch(workspace, &wanted, &unpacked)?;
    }
    for tool in absent {
        place(tool, &programs, &unpacked)?;
    }
    place_nginx_module(workspace, &unpacked)
}

/// The program behind an entry of `<cache>/bin`, and where it finds its libraries.
pub fn locate(workspace: &Workspace, command: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let root = unpacked(workspace);
    if let Ok(program) = fs::read_link(workspace.cached_programs().join(command)) {
        return Ok((program, Vec::new()));
    }
    let program = unpacked_program(&root, command)
        .with_context(|| format!("{command} is absent: run `cargo xtask setup`"))?;
    Ok((root.join(program), library_folders(&root)?))
}

/// Where a package put `command`, relative to `root`.
fn unpacked_program(root: &Path, command: &str) -> Option<PathBuf> {
    ["usr/sbin", "usr/bin", "sbin", "bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(command))
        .find(|program| debian::is_executable(&root.join(program)))
}

fn unpacked(workspace: &Workspace) -> PathBuf {
    workspace.cache().join("debs/root")
}

fn fetch(workspace: &Workspace, wanted: &BTreeSet<&str>, root: &Path) -> Result<()> {
    let by_hand = || {
        format!(
            "cannot fetch the lab's tools; install their commands by hand ({})",
            wanted.iter().copied().collect::<Vec<_>>().join(" ")
        )
    };
    let apt = Apt::new(workspace).with_context(by_hand)?;
    apt.refresh().with_context(by_hand)?;
    let packages = apt.missing_closure(wanted).with_context(by_hand)?;
    apt.unpack(&packages, root).with_context(by_hand)
}

/// Links or wraps one tool and makes sure that it finds all its libraries.
fn place(tool: &Tool, programs: &Path, root: &Path) -> Result<()> {
    let entry = programs.join(tool.command);
    if entry.symlink_metadata().is_ok() {
        fs::remove_file(&entry).with_context(|| format!("cannot replace {}", entry.display()))?;
    }
    if let Some(program) = debian::machine_program(tool.command, programs) {
        return symlink(&program, &entry)
            .with_context(|| format!("cannot link {}", entry.display()));
    }
    let program = unpacked_program(root, tool.command)
        .with_context(|| format!("{} is not in its Debian package", tool.command))?;
    let libraries = library_folders(root)?;
    check_libraries(&root.join(&program), &libraries)?;

    let search: Vec<String> = libraries
        .iter()
        .filter_map(|folder| folder.strip_prefix(root).ok())
        .map(|folder| format!("$root/{}", folder.display()))
        .collect();
    let script = format!(
        "#!/bin/sh\n\
         # Runs the unpacked Debian package. Made by `cargo xtask setup`; do not edit.\n\
         root=$(cd \"$(dirname \"$0\")/../debs/root\" && pwd) || exit 127\n\
         export LD_LIBRARY_PATH=\"{}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
         {}exec \"$root/{}\" {} \"$@\"\n",
        search.join(":"),
        if tool.environment.is_empty() {
            String::new()
        } else {
            format!("export {}\n", tool.environment)
        },
        program.display(),
        tool.arguments,
    );
    // Written under another name first: the entry's presence says that it works.
    let draft = programs.join(format!(".{}.new", tool.command));
    fs::write(&draft, script)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
    fs::rename(&draft, &entry).with_context(|| format!("cannot write {}", entry.display()))
}

/// `<cache>/lib/nginx/ngx_stream_module.so`, wherever the module really is.
fn place_nginx_module(workspace: &Workspace, root: &Path) -> Result<()> {
    let Some(module) = [root, Path::new("/")]
        .map(|root| root.join(NGINX_STREAM_MODULE))
        .into_iter()
        .find(|module| module.exists())
    else {
        return Ok(());
    };
    let folder = workspace.cache().join("lib/nginx");
    fs::create_dir_all(&folder)?;
    let link = folder.join("ngx_stream_module.so");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&module, &link).with_context(|| format!("cannot link {}", link.display()))
}

/// Folders under `root` with shared libraries: the multi-arch ones and their direct subfolders.
fn library_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut folders = Vec::new();
    for top in ["usr/lib", "lib"] {
        let folder = root.join(top).join(&triple);
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        folders.push(folder);
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && holds_library(&path) {
                folders.push(path);
            }
        }
    }
    Ok(folders)
}

fn holds_library(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("lib") && (name.contains(".so.") || name.ends_with(".so"))
        })
    })
}

fn check_libraries(program: &Path, libraries: &[PathBuf]) -> Result<()> {
    let search = std::env::join_paths(libraries)?;
    let listing = Command::new("ldd")
        .arg(program)
        .env("LD_LIBRARY_PATH", search)
        .output()
        .context("cannot run ldd")?;
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let absent: Vec<&str> = listing
        .lines()
        .filter(|line| line.contains("not found"))
        .map(str::trim)
        .collect();
    if !absent.is_empty() {
        bail!(
            "{} lacks libraries: {}",
            program.display(),
            absent.join(", ")
        );
    }
    Ok(())
}
