//! A fresh Debian as one archive: what the package is installed on in tests, made with mmdebstrap.
//!
//! It has what an image of a virtual server has, and in its apt cache the packages that the quick starts
//! install, so that nothing is fetched while tests run. It lies in the cache and is made anew when this
//! description of it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::{self, Apt, Suite};
use crate::privilege;
use crate::process;
use crate::workspace::Workspace;

/// Packages of the root. wireguard-go is there because not every kernel that runs tests has WireGuard; wg-quick
/// turns to it by itself.
const INSTALLED: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "iputils-ping",
    "procps",
    "wireguard-go",
];

/// Packages that wait in the apt cache.
const AT_HAND: &[&str] = &["wireguard-tools", "nftables"];

/// Without it apt would want a kernel for wireguard-tools: a machine that was not made here has one.
const APT_OPTION: &str = "APT::Install-Recommends \"false\"";

/// The release on machines that are not Debian.
const DEFAULT_SUITE: &str = "trixie";

/// Makes the archive where it is absent, and returns its file.
pub fn provide(workspace: &Workspace) -> Result<PathBuf> {
    let suite = suite();
    let folder = workspace.cache().join("debian-root");
    let archive = folder.join(format!("{suite}.tar"));
    let recipe = folder.join(format!("{suite}.recipe"));
    let wanted = format!("{INSTALLED:?} {AT_HAND:?} {APT_OPTION}");
    if archive.exists() && fs::read_to_string(&recipe).is_ok_and(|made| made == wanted) {
        eprintln!("  Debian {suite} is {}", workspace.shown(&archive));
        return Ok(archive);
    }
    eprintln!(
        "  Debian {suite} goes into {}: the package is installed on machines made of it",
        workspace.shown(&archive)
    );
    privilege::ask("making a Debian root")?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let release = Suite {
        name: &suite,
        security: false,
    };
    let apt = Apt::with_suites(workspace, &format!("root-{suite}"), &[release])?;
    let draft = folder.join(format!("{suite}.new.tar"));
    let at_hand = format!(
        "chroot \"$1\" apt-get clean && \
         chroot \"$1\" apt-get --download-only --yes install {}",
        AT_HAND.join(" ")
    );
    let mut mmdebstrap = privilege::as_root(&workspace.cached_programs().join("mmdebstrap"));
    mmdebstrap
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", INSTALLED.join(",")))
        .arg(format!("--aptopt={APT_OPTION}"))
        .args(proxies()?)
        .arg(format!("--customize-hook={at_hand}"))
        // Package lists and the packages at hand stay.
        .arg("--skip=cleanup/apt")
        .arg(&suite)
        .arg(&draft)
        .arg(apt.sources_list());
    process::step(workspace, "debian-root", "making it", &mut mmdebstrap)?;
    fs::rename(&draft, &archive).with_context(|| format!("cannot write {}", archive.display()))?;
    fs::write(&recipe, wanted).with_context(|| format!("cannot write {}", recipe.display()))?;
    Ok(archive)
}

/// The machine's own release where it is Debian: what was built here needs its C library.
fn suite() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    value("VERSION_CODENAME")
        .filter(|_| value("ID").as_deref() == Some("debian"))
        .unwrap_or_else(|| DEFAULT_SUITE.to_owned())
}

/// The machine's proxies for apt: mmdebstrap does not read its configuration.
fn proxies() -> Result<Vec<String>> {
    if debian::machine_program("apt-config", Path::new("")).is_none() {
        return Ok(Vec::new());
    }
    let dump = process::output(Command::new("apt-config").args([
        "dump",
        "--no-empty",
        "--format=%F \"%v\"%n",
        "Acquire::http",
        "Acquire::https",
    ]))?;
    Ok(dump
        .lines()
        .map(|line| format!("--aptopt={line}"))
        .collect())
}
