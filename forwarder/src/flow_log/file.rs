//! A file that is appended to, under a name that is not always the same file: logrotate moves it away and
//! makes another.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::lines::{Lines, Unwritten};

/// Whoever is in the file's group may read it: it holds addresses of clients.
const MODE: u32 = 0o640;

/// The file of a name.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    open: Option<File>,
    lines: Lines,
}

impl LogFile {
    /// The file at `path`, which is opened, and made where there is none, once there is something to write.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            lines: Lines::default(),
        }
    }

    /// Opens it again at the next line.
    pub fn reopen(&mut self) {
        self.open = None;
    }

    /// Appends whole lines.
    pub fn write(&mut self, text: &[u8]) -> Result<(), Unwritten> {
        let mut file = match self.open.take().filter(|file| self.is_there(file)) {
            Some(file) => file,
            None => {
                self.lines = Lines::default();
                self.append()
                    .map_err(|source| Unwritten::all(text, source))?
            }
        };
        let written = self.lines.write(&mut file, text);
        self.open = Some(file);
        written
    }

    /// Whether the name still leads to this file.
    fn is_there(&self, file: &File) -> bool {
        let same = || -> io::Result<bool> {
            let (named, open) = (std::fs::metadata(&self.path)?, file.metadata()?);
            Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
        };
        same().unwrap_or(false)
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{read_to_string, remove_file, rename};

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("f"), directory.path().join("f.1"));
        let mut file = LogFile::new(path.clone());
        file.write(b"one\n").unwrap();
        assert_eq!(
            path.metadata().unwrap().mode() & 0o137,
            0,
            "not for everybody"
        );
        rename(&path, &moved).unwrap();
        file.write(b"two\n").unwrap();
        file.write(b"three\n").unwrap();
        assert_eq!(read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(read_to_string(&path).unwrap(), "two\nthree\n");
        remove_file(&path).unwrap();
        std::fs::write(&path, "theirs\n").unwrap();
        file.write(b"four\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "theirs\nfour\n");
        // Emptied in place.
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write(b"five\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "five\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("later");
        let mut file = LogFile::new(folder.join("f"));
        let error = file.write(b"one\ntwo\n").unwrap_err();
        assert_eq!(
            (error.lines, error.source.kind()),
            (2, io::ErrorKind::NotFound)
        );
        std::fs::create_dir(&folder).unwrap();
        file.write(b"three\n").unwrap();
        assert_eq!(read_to_string(folder.join("f")).unwrap(), "three\n");
    }
}
