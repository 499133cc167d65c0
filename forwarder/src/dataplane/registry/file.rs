//! The registry on disk: the whole now and then, and after it a journal with a line for each change, so that one
//! more name costs a line and not a file.
//!
//! A line holds what is small anew, and of the names only what changed. The journal belongs to the whole whose
//! generation its first line names; another one is left over and says nothing. Neither is forced to the disk: the
//! run directory does not outlive the kernel whose maps the numbers are about.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forwarder_common::abi::ABI_VERSION;
use serde::{Deserialize, Serialize};

use super::names::Names;
use super::{Registry, RegistryError};
use crate::instance::files::replace;
use crate::instance::paths::journal_of;

/// The least a journal may grow to before the whole is written anew.
const JOURNAL_MIN: u64 = 1 << 20;
/// More changes of names than this are written as a whole, unless they are few beside all.
const LINE_MAX: usize = 4_096;
/// How often a reader looks again when the daemon writes meanwhile.
const READS: usize = 5;

/// The file of a daemon's registry.
#[derive(Debug)]
pub struct RegistryFile {
    path: PathBuf,
    /// Absent until the whole was written once.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    file: File,
    /// Bytes it may still take.
    room: u64,
    /// Digest of what was written last, names left out.
    written: u64,
}

#[derive(Serialize, Deserialize)]
struct Heading {
    generation: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    registry: Registry,
    names: Vec<(u32, Option<String>)>,
}

impl RegistryFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            journal: None,
        }
    }

    /// Makes the file say what `registry` says, at once for whoever reads it.
    pub fn save(&mut self, registry: &mut Registry) -> Result<(), RegistryError> {
        let names = registry.names.take_unsaved();
        let few = names.len() <= LINE_MAX.max(registry.names.end() / 16);
        let written = match self.journal.take() {
            Some(journal) if few => journal.append(registry, names),
            _ => Ok(None),
        };
        let journal = match written {
            Ok(Some(journal)) => Ok(journal),
            Ok(None) => self.write_whole(registry),
            Err(error) => Err(error),
        };
        let journal = journal.map_err(|source| RegistryError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.journal = Some(journal);
        Ok(())
    }

    fn write_whole(&self, registry: &mut Registry) -> io::Result<Journal> {
        // Only ever compared, with what the same machine wrote since it was started.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos() as u64);
        registry.generation = now.max(registry.generation.wrapping_add(1));
        let text = serde_json::to_vec(registry)?;
        replace(&self.path, &text)?;
        let generation = registry.generation;
        let mut heading = serde_json::to_vec(&Heading { generation })?;
        heading.push(b'\n');
        Ok(Journal {
            file: replace(&journal_of(&self.path), &heading)?,
            room: JOURNAL_MIN.max(text.len() as u64 / 2),
            // Unknown, so the next save writes a line even if nothing changed.
            written: 0,
        })
    }
}

impl Journal {
    /// Appends a line, if there is room. A registry that is as it was written last needs none.
    fn append(
        mut self,
        registry: &Registry,
        names: Vec<(u32, Option<Arc<str>>)>,
    ) -> io::Result<Option<Self>> {
        let owned =
            |(number, name): (u32, Option<Arc<str>>)| (number, name.map(|own| own.to_string()));
        let line = Line {
            registry: Registry {
                names: Names::default(),
                ..registry.clone()
            },
            names: names.into_iter().map(owned).collect(),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let written = digest(&text);
        if line.names.is_empty() && written == self.written {
            return Ok(Some(self));
        }
        let Some(room) = self.room.checked_sub(text.len() as u64) else {
            return Ok(None);
        };
        self.file.write_all(&text)?;
        self.room = room;
        self.written = written;
        Ok(Some(self))
    }
}

fn digest(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Puts the files aside, so that another registry can take their place. Returns where the first one is now.
pub fn set_aside(path: &Path) -> Result<PathBuf, RegistryError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ending = format!(".damaged-{}", now.unwrap_or_default().as_secs());
    let aside = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(&ending);
        PathBuf::from(name)
    };
    for path in [path, &journal_of(path)] {
        match fs::rename(path, aside(path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = path.to_owned();
                return Err(RegistryError::Write { path, source });
            }
            _ => {}
        }
    }
    Ok(aside(path))
}

/// Reads the file; `None` if there is none.
pub fn load(path: &Path) -> Result<Option<Registry>, RegistryError> {
    load_of(path, ABI_VERSION)
}

/// Reads the file, which may be of an earlier version, too. Its numbers mean the same.
pub fn load_of(path: &Path, or_version: u32) -> Result<Option<Registry>, RegistryError> {
    for _ in 1..READS {
        let registry = load_whole(path, or_version)?;
        let Some(registry) = registry else {
            return Ok(None);
        };
        match with_journal(registry, path)? {
            (registry, true) => return Ok(Some(registry)),
            // Written anew between the two readings, or left by a daemon that ended there.
            (_, false) => std::thread::yield_now(),
        }
    }
    let registry = load_whole(path, or_version)?;
    registry
        .map(|registry| Ok(with_journal(registry, path)?.0))
        .transpose()
}

fn load_whole(path: &Path, or_version: u32) -> Result<Option<Registry>, RegistryError> {
    let path = path.to_owned();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RegistryError::Read { path, source }),
    };
    let registry: Registry = match serde_json::from_slice(&text) {
        Ok(registry) => registry,
        Err(source) => return Err(RegistryError::Damaged { path, source }),
    };
    if ![ABI_VERSION, or_version].contains(&registry.version) {
        let found = registry.version;
        return Err(RegistryError::OtherVersion { path, found });
    }
    Ok(Some(registry))
}

/// Takes the journal in; says whether it was the one of this registry.
fn with_journal(mut registry: Registry, path: &Path) -> Result<(Registry, bool), RegistryError> {
    let path = journal_of(path);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((registry, false)),
        Err(source) => return Err(RegistryError::Read { path, source }),
    };
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let heading = lines.next().unwrap_or_default();
    let heading = serde_json::from_slice::<Heading>(heading).ok();
    if heading.is_none_or(|own| own.generation != registry.generation) {
        return Ok((registry, false));
    }
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(source) => return Err(RegistryError::Damaged { path, source }),
        };
        let mut names = std::mem::take(&mut registry.names);
        let shared = |(number, name): (u32, Option<String>)| (number, name.map(Arc::from));
        names.replay(line.names.into_iter().map(shared).collect());
        registry = Registry {
            names,
            ..line.registry
        };
    }
    Ok((registry, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_good_as_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.json");
        assert_eq!(load(&path).unwrap(), None);
        let mut file = RegistryFile::new(&path);
        let mut registry = Registry::default();
        registry.names.number("a");
        file.save(&mut registry).unwrap();
        let whole = fs::metadata(&path).unwrap().len();
        registry.names.number("b");
        registry.listeners.number(&String::from("https"));
        file.save(&mut registry).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), whole, "only a line");
        let loaded = load(&path).unwrap().unwrap();
        assert_eq!(
            (loaded.names.key(0), loaded.names.key(1)),
            (Some("a"), Some("b"))
        );
        assert_eq!(loaded.listeners.key(0).map(String::as_str), Some("https"));

        // What is as it was needs no line, however often it is saved; the first save of a whole may write one.
        file.save(&mut registry).unwrap();
        let length = || fs::metadata(journal_of(&path)).unwrap().len();
        let before = length();
        file.save(&mut registry).unwrap();
        assert_eq!(length(), before);

        // A daemon that is killed while it writes leaves half a line.
        let journal = journal_of(&path);
        let mut torn = fs::read(&journal).unwrap();
        torn.extend(b"{\"registry\":");
        fs::write(&journal, &torn).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), loaded);

        // The next one begins with the whole, and what was left beside it says nothing.
        let mut registry = loaded;
        registry.names.number("c");
        RegistryFile::new(&path).save(&mut registry).unwrap();
        fs::write(&journal, &torn).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().names.end(), 3);
    }
}
