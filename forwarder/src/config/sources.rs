//! The files of one configuration: the main file and, beside it, the drop-ins `conf.d/*.toml`.
//!
//! They are laid end to end, so that one offset tells file and place: a [`Span`] counts bytes from the
//! beginning of the main file on through the drop-ins. Between two files lies one byte that belongs to
//! neither, so that the end of one is not the beginning of the next.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use thiserror::Error;

use super::span::Span;

/// Why there is nothing to validate.
#[derive(Debug, Error)]
pub enum ReadError {
    /// There is no such file.
    #[error(
        "there is no {}; `forwarder init` writes a configuration, `--config` names another",
        path.display()
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of the drop-ins cannot be listed.
    #[error("cannot list {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of the drop-ins, beside the main file.
pub const DROP_INS: &str = "conf.d";
/// The main file's name where `--config` names a directory.
const MAIN: &str = "forwarder.toml";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file as the user named it.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
    /// Where the bytes cease to be UTF-8.
    not_text: Option<usize>,
    /// Where its first byte is.
    base: usize,
}

impl Source {
    /// Where its first byte is.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Line and column of an offset within this file, both from 1, the column in characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        (line, column)
    }
}

/// All files, the main one first, the drop-ins in lexical order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    main: Source,
    drop_ins: Vec<Source>,
}

impl Sources {
    /// A main file without drop-ins.
    pub fn new(path: &Path, text: impl Into<String>) -> Self {
        let main = Source {
            path: path.to_owned(),
            text: text.into(),
            not_text: None,
            base: 0,
        };
        let drop_ins = Vec::new();
        Self { main, drop_ins }
    }

    /// A main file without drop-ins that holds these bytes, which may be no text.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        let (text, not_text) = text_of(bytes);
        let mut sources = Self::new(path, text);
        sources.main.not_text = not_text;
        sources
    }

    /// Adds a drop-in after those that are there.
    pub fn push(&mut self, path: &Path, text: impl Into<String>) {
        let base = self.end() + 1;
        self.drop_ins.push(Source {
            base,
            ..Self::new(path, text).main
        });
    }

    /// Reads the main file at `path`, or `forwarder.toml` in it if it is a directory, and the drop-ins.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let path = main_file(path);
        let (text, not_text) = read(&path).map_err(|error| match error {
            ReadError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                ReadError::Absent { path }
            }
            other => other,
        })?;
        let mut sources = Self::new(&path, text);
        sources.main.not_text = not_text;
        for path in drop_ins(&path)? {
            let (text, not_text) = read(&path)?;
            sources.push(&path, text);
            if let Some(last) = sources.drop_ins.last_mut() {
                last.not_text = not_text;
            }
        }
        Ok(sources)
    }

    /// The main file.
    pub fn main(&self) -> &Source {
        &self.main
    }

    /// Every file in its order.
    pub fn files(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.main).chain(&self.drop_ins)
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        1 + self.drop_ins.len()
    }

    /// The same files, with another text in the one at `path`.
    pub fn with(&self, path: &Path, text: &str) -> Self {
        let text_of = |own: &Source| {
            let text = if own.path == path { text } else { &own.text };
            text.to_owned()
        };
        let mut sources = Self::new(&self.main.path, text_of(&self.main));
        for own in &self.drop_ins {
            sources.push(&own.path, text_of(own));
        }
        sources
    }

    /// The file that an offset lies in, and the offset within it.
    pub fn locate(&self, offset: usize) -> (&Source, usize) {
        let before = |own: &&Source| own.base <= offset;
        let own = self.drop_ins.iter().rev().find(before);
        let own = own.unwrap_or(&self.main);
        (own, offset - own.base)
    }

    /// `file:line:column` of an offset.
    pub fn place(&self, offset: usize) -> String {
        let (own, offset) = self.locate(offset);
        let (line, column) = own.position(offset);
        format!("{}:{line}:{column}", own.path.display())
    }

    /// The place of every byte.
    pub fn span(&self) -> Span {
        0..self.end()
    }

    /// The first 48 bits of the SHA-256 of all texts: `cat MAIN conf.d/*.toml | sha256sum | cut -c 1-12`. A
    /// metric can hold so many without rounding.
    pub fn digest(&self) -> u64 {
        let mut hash = Context::new(&SHA256);
        for own in self.files() {
            hash.update(own.text.as_bytes());
        }
        let hash = hash.finish();
        hash.as_ref()
            .iter()
            .take(6)
            .fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    /// Tells these files, whose texts have this [`Self::digest`], from all others.
    pub fn fingerprint(&self, digest: u64) -> String {
        let paths: Vec<_> = self
            .files()
            .map(|own| (&own.path, own.text.len()))
            .collect();
        format!("{digest:012x} {paths:?}")
    }

    /// The text at a span, which lies in one file.
    pub fn said(&self, span: &Span) -> &str {
        let (own, start) = self.locate(span.start);
        let end = start + span.len();
        own.text.get(start..end).unwrap_or_default()
    }

    /// What to call the whole, in one line.
    pub fn title(&self) -> String {
        let main = self.main.path.display();
        match self.drop_ins.len() {
            0 => main.to_string(),
            1 => format!("{main} and 1 file of {DROP_INS}"),
            count => format!("{main} and {count} files of {DROP_INS}"),
        }
    }

    /// The first byte of each file that is not text.
    pub(super) fn not_text(&self) -> Vec<Span> {
        let first = |own: &Source| {
            let at = own.base + own.not_text?;
            Some(at..at + 1)
        };
        self.files().filter_map(first).collect()
    }

    fn end(&self) -> usize {
        let last = self.drop_ins.last().unwrap_or(&self.main);
        last.base + last.text.len()
    }
}

/// The file that `--config PATH` means.
pub fn main_file(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(MAIN)
    } else {
        path.to_owned()
    }
}

/// The directory of the drop-ins of the main file at `main`; it need not exist.
pub fn drop_in_directory(main: &Path) -> PathBuf {
    main.with_file_name(DROP_INS)
}

/// Whether a file of this name in the directory of drop-ins is one. Editors and Kubernetes keep files
/// there whose names begin with a dot.
pub fn is_drop_in(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !name.starts_with(b".") && name.ends_with(b".toml")
}

/// The drop-ins of the main file at `main`, in lexical order.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let directory = drop_in_directory(main);
    let failed = |source| ReadError::List {
        path: directory.clone(),
        source,
    };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if is_drop_in(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.iter().map(|name| directory.join(name)).collect())
}

/// The text of a file, and where it ceases to be UTF-8.
fn read(path: &Path) -> Result<(String, Option<usize>), ReadError> {
    let bytes = fs::read(path).map_err(|source| ReadError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text_of(bytes))
}

fn text_of(bytes: Vec<u8>) -> (String, Option<usize>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            (
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
                Some(at),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_run_through_all_files() {
        let mut sources = Sources::new(Path::new("a.toml"), "x = 1\n");
        sources.push(Path::new("conf.d/b.toml"), "");
        sources.push(Path::new("conf.d/c.toml"), "y = 2\nz = 3\n");
        assert_eq!(sources.place(0), "a.toml:1:1");
        assert_eq!(sources.place(6), "a.toml:2:1");
        assert_eq!(sources.place(7), "conf.d/b.toml:1:1");
        assert_eq!(sources.place(8), "conf.d/c.toml:1:1");
        assert_eq!(sources.place(14), "conf.d/c.toml:2:1");
        assert_eq!(sources.place(20), "conf.d/c.toml:3:1");
        assert_eq!(sources.span(), 0..20);
        let other = sources.with(Path::new("conf.d/b.toml"), "longer\n");
        assert_eq!(other.place(15), "conf.d/c.toml:1:1");
    }

    #[test]
    fn drop_ins_come_in_lexical_order_and_odd_files_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("forwarder.toml");
        fs::write(&main, "main").unwrap();
        assert_eq!(Sources::read(&main).unwrap().count(), 1);
        let beside = directory.path().join("conf.d");
        fs::create_dir(&beside).unwrap();
        for name in [
            "20-b.toml",
            "10-a.toml",
            "9.toml",
            ".hidden.toml",
            "a.toml~",
            "a.conf",
        ] {
            fs::write(beside.join(name), name).unwrap();
        }
        // An editor's lock is a link that leads nowhere.
        std::os::unix::fs::symlink("nowhere", beside.join(".#10-a.toml")).unwrap();
        let by_file = Sources::read(&main).unwrap();
        let texts: Vec<_> = by_file.files().map(|own| own.text.as_str()).collect();
        assert_eq!(texts, ["main", "10-a.toml", "20-b.toml", "9.toml"]);
        assert_eq!(Sources::read(directory.path()).unwrap(), by_file);
        std::os::unix::fs::symlink("nowhere", beside.join("lost.toml")).unwrap();
        let error = Sources::read(&main).unwrap_err().to_string();
        assert!(error.ends_with("conf.d/lost.toml"), "{error}");
    }
}
