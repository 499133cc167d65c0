//! What is left when something comes in between.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in ["a", "b"] {
            fs::write(folder.path(name), format!("old {name}")).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names in it, and what each file says.
    fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let text = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        all.sort();
        all
    }

    fn replace(&self, then: impl FnOnce()) -> Result<(), ReplaceError> {
        let paths = ["a", "b"].map(|name| self.path(name));
        then();
        replace_all(&[
            Replacement {
                path: &paths[0],
                old: "old a",
                new: "new a",
            },
            Replacement {
                path: &paths[1],
                old: "old b",
                new: "new b",
            },
        ])
    }
}

fn said(a: &str, b: &str) -> Vec<(String, String)> {
    [("a", a), ("b", b)]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}

/// Makes mounts that nobody else sees, and which go with the thread; `None` where that is not allowed.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes a number; it concerns this thread only.
            let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
            if !own {
                eprintln!("skipped: no right to mount");
                return None;
            }
            mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"");
            Some(work())
        });
        thread.join().unwrap()
    })
}

fn mount(
    from: &std::ffi::CStr,
    at: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: u64,
    data: &std::ffi::CStr,
) {
    // SAFETY: all pointers are those of strings that outlive the call.
    let answer = unsafe {
        libc::mount(
            from.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn all_are_replaced_and_nothing_else_is_left() {
    let folder = Folder::new();
    fs::set_permissions(folder.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    folder.replace(|| ()).unwrap();
    assert_eq!(folder.all(), said("new a", "new b"));
    let mode = fs::metadata(folder.path("a")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn what_somebody_saves_meanwhile_stays() {
    let folder = Folder::new();
    // By a new file, as most editors do, and in place.
    let error = folder.replace(|| {
        fs::write(folder.path("c"), "theirs").unwrap();
        fs::rename(folder.path("c"), folder.path("b")).unwrap();
    });
    assert!(
        matches!(&error, Err(ReplaceError::Changed { path }) if *path == folder.path("b")),
        "{error:?}"
    );
    assert_eq!(folder.all(), said("old a", "theirs"));
    let folder = Folder::new();
    let error = folder.replace(|| fs::write(folder.path("a"), "theirs").unwrap());
    assert!(matches!(error, Err(ReplaceError::Changed { .. })));
    assert_eq!(folder.all(), said("theirs", "old b"));
}

#[test]
fn a_save_between_the_look_and_the_exchange_is_put_back() {
    let folder = Folder::new();
    let path = folder.path("a");
    let what = Replacement {
        path: &path,
        old: "old a",
        new: "new a",
    };
    let mut staged = [Staged::write(&what).unwrap()];
    fs::write(&path, "theirs").unwrap();
    staged[0].swap().unwrap();
    assert!(!staged[0].kept_is_old());
    staged[0].put_back();
    drop(staged);
    assert_eq!(folder.all(), said("theirs", "old b"));
}

#[test]
fn one_that_cannot_be_replaced_keeps_the_others() {
    let folder = Folder::new();
    let outcome = apart(|| {
        // Nothing can be moved over a mount.
        let b = c(&folder.path("b"));
        mount(&b, &b, c"", libc::MS_BIND, c"");
        folder.replace(|| ())
    });
    let Some(outcome) = outcome else { return };
    let failed = folder.path("b");
    assert!(
        matches!(&outcome, Err(ReplaceError::Io { path, .. }) if *path == failed),
        "{outcome:?}"
    );
    assert_eq!(folder.all(), said("old a", "old b"));
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let outer = tempfile::tempdir().unwrap();
    let outcome = apart(|| {
        mount(c"none", &c(outer.path()), c"tmpfs", 0, c"size=12k");
        let path = outer.path().join("a");
        fs::write(&path, "old").unwrap();
        let outcome = replace_all(&[Replacement {
            path: &path,
            old: "old",
            new: &"x".repeat(64 * 1024),
        }]);
        let text = fs::read_to_string(&path).unwrap();
        (outcome, text, fs::read_dir(outer.path()).unwrap().count())
    });
    let Some((outcome, text, files)) = outcome else {
        return;
    };
    assert!(
        matches!(&outcome, Err(ReplaceError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull),
        "{outcome:?}"
    );
    assert_eq!((text.as_str(), files), ("old", 1));
}

#[test]
fn nobody_is_led_elsewhere_by_a_link() {
    let folder = Folder::new();
    let victim = tempfile::NamedTempFile::new().unwrap();
    fs::write(victim.path(), "mine").unwrap();
    for name in [".a.new", ".b.new", ".forwarder-.new"] {
        symlink(victim.path(), folder.path(name)).unwrap();
    }
    folder.replace(|| ()).unwrap();
    assert_eq!(fs::read_to_string(victim.path()).unwrap(), "mine");
    assert_eq!(fs::read_to_string(folder.path("a")).unwrap(), "new a");
}
