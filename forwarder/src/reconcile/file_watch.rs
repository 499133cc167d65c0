//! The configuration files followed: what changes on disk is put to use, unless it has errors.
//!
//! Directories are watched (inotify), not files: editors write a new file and rename it over the old one,
//! and Kubernetes swaps a link beside it. Every directory on the way to a file is, links followed, so that a
//! `conf.d` that appears later and a link that leads elsewhere are noticed. An event says no more than that it
//! is time to look: the files are read and compared with what is in use. It is looked once nothing has
//! happened for a second (`QUIET`), and each minute in any case, for file systems that do not tell.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::config::sources::{drop_in_directory, is_drop_in};

/// Whoever writes several files, or one slowly, is done when nothing has happened for so long.
pub const QUIET: Duration = Duration::from_secs(1);
/// How often it is looked although nothing was heard.
pub const AGAIN: Duration = Duration::from_secs(60);
/// How long a file may be gone before a word is said: some editors delete and write anew.
const GRACE: Duration = Duration::from_secs(2);
/// As many links as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Tells when it is time to look at the files.
#[derive(Debug, Default)]
pub struct FileWatch {
    active: Option<Active>,
    /// Failures to read the files, in a row.
    pub unreadable: u32,
}

#[derive(Debug)]
struct Active {
    /// Absent where the kernel gives none; then it is looked each minute.
    _watcher: Option<RecommendedWatcher>,
    heard: mpsc::Receiver<()>,
    due: Instant,
}

impl FileWatch {
    /// Follows the main file at `main` and its drop-ins, as they are now; `None` follows nothing. It is looked
    /// after `first` in any case.
    pub fn follow(&mut self, main: Option<&Path>, first: Duration) {
        let Some(main) = main else {
            self.active = None;
            return;
        };
        let (tell, heard) = mpsc::channel(1);
        // Anew each time: a directory that was replaced has the old one's path and no watch.
        let watcher = watch(Scope::of(main), tell);
        if let Err(error) = &watcher {
            warn!(%error, "changes of the configuration files are only seen each minute");
        }
        self.active = Some(Active {
            _watcher: watcher.ok(),
            heard,
            due: Instant::now() + first,
        });
    }

    /// Returns when it is time to look; never, if nothing is followed. Nothing is lost if the future is dropped.
    pub async fn changed(&mut self) {
        let Some(active) = &mut self.active else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                Some(()) = active.heard.recv() => active.due = Instant::now() + QUIET,
                () = sleep_until(active.due) => {
                    active.due = Instant::now() + AGAIN;
                    return;
                }
            }
        }
    }

    /// Looks again in a moment: some editors delete and write anew.
    pub fn look_soon(&mut self) {
        if let Some(active) = &mut self.active {
            active.due = Instant::now() + GRACE;
        }
    }
}

/// What the content of the files depends on.
#[derive(Debug, Default)]
struct Scope {
    /// Directories to watch, without links in their paths.
    directories: BTreeSet<PathBuf>,
    /// Entries of them that count.
    entries: BTreeSet<PathBuf>,
    /// The directory in which every drop-in counts.
    drop_ins: Option<PathBuf>,
}

impl Scope {
    fn of(main: &Path) -> Self {
        let mut scope = Self::default();
        scope.trace(main);
        scope.drop_ins = scope.trace(&drop_in_directory(main));
        if let Some(directory) = scope.drop_ins.clone() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if is_drop_in(&entry.file_name()) {
                    scope.trace(&entry.path());
                }
            }
            scope.directories.insert(directory);
        }
        scope
    }

    /// Notes every directory on the way to `path`, and the entry looked up in it. Returns where the way ends,
    /// or `None` if it leads nowhere yet.
    fn trace(&mut self, path: &Path) -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        let mut here = PathBuf::from("/");
        let mut way = names(&path);
        let mut links = 0;
        while let Some(name) = way.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            self.directories.insert(here.clone());
            self.entries.insert(next.clone());
            let target = match fs::symlink_metadata(&next) {
                Err(_) => return None,
                Ok(found) if !found.is_symlink() => {
                    here = next;
                    continue;
                }
                Ok(_) => fs::read_link(&next).ok()?,
            };
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            let mut through = names(&target);
            through.append(&mut way);
            way = through;
        }
        Some(here)
    }

    /// Whether an event may mean that the files say something else.
    fn means(&self, event: &Event) -> bool {
        if let EventKind::Access(access) = event.kind
            && access != AccessKind::Close(AccessMode::Write)
        {
            // Our own reading is one.
            return false;
        }
        let drop_in = |path: &Path| {
            path.parent() == self.drop_ins.as_deref() && path.file_name().is_some_and(is_drop_in)
        };
        let counts = |path: &PathBuf| self.entries.contains(path) || drop_in(path);
        event.need_rescan() || event.paths.iter().any(counts)
    }
}

/// The names of a path, without the root and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    names.collect()
}

fn watch(scope: Scope, tell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let directories = scope.directories.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !scope.means(&event)) {
            return;
        }
        // One that waits says all there is to say.
        let _ = tell.try_send(());
    })?;
    for directory in &directories {
        // One that may not be read, or is gone meanwhile, is looked at each minute all the same.
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            debug!(%error, directory = %directory.display(), "not watched");
        }
    }
    Ok(watcher)
}
