//! Where one instance keeps its things: pins under bpffs, lock and registry in the run directory.
//!
//! Several instances live side by side as long as each has its own `--bpffs`.

use std::path::{Path, PathBuf};

/// Where locks and registries are unless told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/forwarder";

/// The paths of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    bpffs: PathBuf,
    run_dir: PathBuf,
}

impl Place {
    /// The instance pinned under `bpffs`.
    pub fn new(bpffs: &Path, run_dir: &Path) -> Self {
        Self {
            bpffs: bpffs.to_owned(),
            run_dir: run_dir.to_owned(),
        }
    }

    /// Where it pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Its lock.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join(format!("{}.lock", self.escaped()))
    }

    /// Its registry.
    pub fn registry(&self) -> PathBuf {
        self.run_dir.join(format!("{}.json", self.escaped()))
    }

    /// `/sys/fs/bpf/forwarder` → `sys-fs-bpf-forwarder`; a hyphen is doubled, so that no two are the same.
    fn escaped(&self) -> String {
        let text = self.bpffs.to_string_lossy();
        text.trim_matches('/').replace('-', "--").replace('/', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_its_own_files() {
        let lock = |bpffs: &str| Place::new(Path::new(bpffs), Path::new("/run/x")).lock();
        assert_eq!(
            lock("/sys/fs/bpf/forwarder"),
            Path::new("/run/x/sys-fs-bpf-forwarder.lock")
        );
        assert_eq!(
            lock("/sys/fs/bpf/forwarder/"),
            lock("/sys/fs/bpf/forwarder")
        );
        assert_ne!(lock("/a/b-c"), lock("/a-b/c"));
    }
}
