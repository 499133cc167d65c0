//! The packaged unit: what `check` can read as root, the confined daemon can read too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

const UNIT: &str = include_str!("../../packaging/forwarder.service");

/// `CAP_BPF CAP_NET_ADMIN` of the unit as `setpriv` wants it: `-all,+bpf,+net_admin`.
fn bounding_set() -> String {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("the unit bounds capabilities");
    let names = line.split_whitespace().map(|own| {
        let name = own.strip_prefix("CAP_").expect("a capability");
        format!(",+{}", name.to_lowercase())
    });
    format!("-all{}", names.collect::<String>())
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(1), Some(1)).unwrap();
}

#[test]
fn files_of_others_are_readable_for_the_confined_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("forwarder.toml");
    let conf_d = directory.path().join("conf.d");
    fs::create_dir(&conf_d).unwrap();
    private(
        &main,
        "[entrance]\npublic = ['eth0']\ntunnels = ['wg0']\n[[listener]]\nname = 'https'\nprotocol = 'tls'\nport = 443\n",
    );
    private(
        &conf_d.join("home.toml"),
        "[[pool]]\nname = 'home'\nclient_address = 'proxy-v2'\nnodes = ['10.0.0.2:443']\n[[route]]\nnames = ['www.example.org']\npool = 'home'\n",
    );
    let said = Command::new("setpriv")
        .args(["--bounding-set", &bounding_set(), "--"])
        .arg(env!("CARGO_BIN_EXE_forwarder"))
        .args(["check", "--offline", "--config"])
        .arg(&main)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{words}");
}
