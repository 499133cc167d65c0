//! The systemd unit: as confined as it can be, and with what it needs.

use std::path::{Path, PathBuf};
use std::process::Command;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/forwarder.service")
}

#[test]
fn the_unit_is_confined() {
    let analysis = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--threshold=20"])
        .arg(unit())
        .output();
    let Ok(analysis) = analysis else {
        eprintln!("skipped: needs systemd-analyze");
        return;
    };
    let text = String::from_utf8_lossy(&analysis.stdout);
    assert!(
        analysis.status.success(),
        "{}",
        text.lines().last().unwrap_or_default()
    );
    assert!(text.contains("Overall exposure level"), "{text}");
}

/// What the daemon cannot do without, and would only be missed on a machine with systemd.
#[test]
fn the_unit_leaves_what_is_needed() {
    let text = std::fs::read_to_string(unit()).unwrap();
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/forwarder run",
        "RuntimeDirectory=forwarder",
        "RuntimeDirectoryPreserve=yes",
        "ReadWritePaths=/sys/fs/bpf -/etc/forwarder",
        "LimitMEMLOCK=infinity",
        "CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        "SystemCallFilter=@system-service bpf",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}");
    }
}
