//! Where one instance keeps its things: pins under bpffs, lock and registry in the run directory.
//!
//! Several instances live side by side as long as each has its own `--bpffs`.

use std::io;
use std::path::{Path, PathBuf};

use forwarder_common::siphash::siphash24;
use thiserror::Error;

/// `sun_path` of `struct sockaddr_un` has 108 bytes, the last one NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Default of `bpffs`.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/forwarder";

/// Where locks and registries are unless told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/forwarder";

/// A file of an instance that could not be removed.
#[derive(Debug, Error)]
#[error("cannot remove {}", path.display())]
pub struct RemainsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The paths of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    bpffs: PathBuf,
    run_dir: PathBuf,
}

impl Paths {
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

    /// What has changed in it since it was written as a whole.
    pub fn journal(&self) -> PathBuf {
        journal_of(&self.registry())
    }

    /// Its control socket: `control.sock` for the usual pins, a name of its own for others, so that several
    /// daemons do not meet. The address of a socket has room for 107 bytes; a longer name is shortened to
    /// a hash.
    pub fn control(&self) -> PathBuf {
        if self.bpffs == Path::new(DEFAULT_BPFFS) {
            return self.run_dir.join("control.sock");
        }
        let escaped = self.escaped();
        let path = self.run_dir.join(format!("{escaped}.sock"));
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return path;
        }
        let hash = escaped.bytes().fold(0, |state, byte| {
            siphash24([0, 0], &[state, u64::from(byte)])
        });
        self.run_dir.join(format!("{hash:016x}.sock"))
    }

    /// Its edits at run time.
    pub fn edits(&self) -> PathBuf {
        self.run_dir.join(format!("{}.edits.json", self.escaped()))
    }

    /// Until when everything is removed unless somebody confirms.
    pub fn probation(&self) -> PathBuf {
        let escaped = self.escaped();
        self.run_dir.join(format!("{escaped}.probation.json"))
    }

    /// What comes back unless somebody confirms a reload.
    pub fn trial(&self) -> PathBuf {
        self.run_dir.join(format!("{}.trial.json", self.escaped()))
    }

    /// Where its files are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// What is known about the health of nodes.
    pub fn health(&self) -> PathBuf {
        self.run_dir.join(format!("{}.health.json", self.escaped()))
    }

    /// The other instances that have numbers in the run directory, by where they pin. Not all of them need be loaded.
    pub fn others(&self) -> Vec<Self> {
        let files = std::fs::read_dir(&self.run_dir).into_iter().flatten();
        let names = files.flatten().map(|file| file.file_name());
        let others = names.filter_map(|name| {
            let escaped = name.to_str()?.strip_suffix(".json")?;
            // Other files of an instance have two endings.
            let bpffs = (!escaped.contains('.')).then(|| unescaped(escaped))?;
            (bpffs != self.bpffs).then(|| Self::new(&bpffs, &self.run_dir))
        });
        others.collect()
    }

    /// Removes everything of this instance from the run directory but its lock, whose holder calls this; and
    /// what cannot be removed is named in the error.
    ///
    /// # Errors
    /// The first file that stays, after all were tried.
    pub fn remove_files(&self) -> Result<(), RemainsError> {
        let files = [
            self.registry(),
            self.journal(),
            self.edits(),
            self.health(),
            self.xdp(),
            self.probation(),
            self.trial(),
            self.control(),
        ];
        let mut first = Ok(());
        for path in files {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    first = first.and(Err(RemainsError { path, source }));
                }
                _ => {}
            }
        }
        first
    }

    /// Removes the run directory, unless other instances keep something there.
    pub fn remove_run_dir(&self) {
        // Not empty, or the service manager's: either way it may stay.
        let _ = std::fs::remove_dir(&self.run_dir);
    }

    /// What is known of the XDP filter.
    pub fn xdp(&self) -> PathBuf {
        self.run_dir.join(format!("{}.xdp.json", self.escaped()))
    }

    /// `/sys/fs/bpf/forwarder` → `sys-fs-bpf-forwarder`; a hyphen is doubled, so that no two are the same.
    fn escaped(&self) -> String {
        let text = self.bpffs.to_string_lossy();
        text.trim_matches('/').replace('-', "--").replace('/', "-")
    }
}

/// What `escaped` made of a path.
fn unescaped(name: &str) -> PathBuf {
    let mut path = String::from("/");
    let mut rest = name.chars().peekable();
    while let Some(letter) = rest.next() {
        path.push(match letter {
            '-' if rest.next_if_eq(&'-').is_some() => '-',
            '-' => '/',
            other => other,
        });
    }
    PathBuf::from(path)
}

/// Where the journal of the registry at `path` is.
pub fn journal_of(path: &Path) -> PathBuf {
    path.with_extension("journal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_known_by_their_numbers() {
        let run = tempfile::tempdir().unwrap();
        let at = |bpffs: &str| Paths::new(Path::new(bpffs), run.path());
        let (one, two) = (at("/sys/fs/bpf/for-warder"), at("/sys/fs/bpf/x"));
        for file in [
            one.registry(),
            one.journal(),
            one.edits(),
            one.health(),
            two.lock(),
        ] {
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(two.others(), std::slice::from_ref(&one));
        assert!(one.others().is_empty());
    }

    #[test]
    fn each_instance_has_its_own_files() {
        let lock = |bpffs: &str| Paths::new(Path::new(bpffs), Path::new("/run/x")).lock();
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

    #[test]
    fn an_instance_takes_only_its_own_files_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let [one, two] = ["/a", "/b"].map(|bpffs| Paths::new(Path::new(bpffs), &run));
        std::fs::create_dir(&run).unwrap();
        for place in [&one, &two] {
            for file in [
                place.registry(),
                place.edits(),
                place.health(),
                place.control(),
            ] {
                std::fs::write(file, "").unwrap();
            }
        }
        one.remove_files().unwrap();
        one.remove_run_dir();
        assert_eq!(std::fs::read_dir(&run).unwrap().count(), 4);
        two.remove_files().unwrap();
        two.remove_files().unwrap();
        two.remove_run_dir();
        assert!(!run.exists());
    }

    #[test]
    fn the_socket_has_a_name_that_fits() {
        let control = |bpffs: &str| Paths::new(Path::new(bpffs), Path::new("/run/x")).control();
        assert_eq!(control(DEFAULT_BPFFS), Path::new("/run/x/control.sock"));
        assert_eq!(control("/a/b"), Path::new("/run/x/a-b.sock"));
        let [one, two] = ["1", "2"].map(|end| control(&format!("/{}{end}", "long/".repeat(30))));
        assert_ne!(one, two);
        assert!(one.as_os_str().len() <= SOCKET_PATH_MAX);
    }
}
