//! A file that is appended to, under a name that is not always the same file: logrotate moves it away and
//! makes another. One that would grow beyond its largest size is moved to the same name with `.old` behind it, in
//! place of the one that is there, so that both together never take more than twice that size.

use std::fs::Metadata;
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
    max_size: u64,
    open: Option<File>,
    lines: Lines,
}

impl LogFile {
    /// The file at `path`, which is opened, and made where there is none, once there is something to write.
    /// It never holds more than `max_size` bytes, unless it is no regular file.
    pub fn new(path: PathBuf, max_size: u64) -> Self {
        Self {
            path,
            max_size,
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
        let missing = |source| Unwritten::all(text, source);
        let (mut file, mut state) = self.current().map_err(missing)?;
        let grown = state.len().saturating_add(text.len() as u64);
        if state.is_file() && state.len() > 0 && grown > self.max_size {
            self.move_away().map_err(missing)?;
            (file, state) = self.current().map_err(missing)?;
        }
        if state.is_file() && state.len().saturating_add(text.len() as u64) > self.max_size {
            self.open = Some(file);
            return Err(missing(io::ErrorKind::FileTooLarge.into()));
        }
        let written = self.lines.write(&mut file, text);
        self.open = Some(file);
        written
    }

    /// The open file, if the name still leads to it, or the one that the name leads to.
    fn current(&mut self) -> io::Result<(File, Metadata)> {
        if let Some(file) = self.open.take()
            && let (Ok(named), Ok(open)) = (std::fs::metadata(&self.path), file.metadata())
            && (named.dev(), named.ino()) == (open.dev(), open.ino())
        {
            return Ok((file, open));
        }
        self.lines = Lines::default();
        let file = self.append()?;
        let state = file.metadata()?;
        Ok((file, state))
    }

    /// What cannot be moved stays, and nothing more is written to it.
    fn move_away(&self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        std::fs::rename(&self.path, &old).map_err(|error| {
            let why = format!(
                "it has its `max_size`, and cannot be moved to {}: {error}",
                old.display()
            );
            io::Error::new(error.kind(), why)
        })
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
        let mut file = LogFile::new(path.clone(), 1_000);
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
    fn it_never_grows_beyond_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("f"), directory.path().join("f.old"));
        let mut file = LogFile::new(path.clone(), 1_000);
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |own| own.len());
        for number in 0..1_000 {
            file.write(format!("{number:09}\n").as_bytes()).unwrap();
            assert!(size(&path) <= 1_000 && size(&old) <= 1_000, "{number}");
        }
        assert!(read_to_string(&path).unwrap().ends_with("000000999\n"));
        assert_eq!(size(&old), 1_000);
        // Nowhere to go: it stops, and keeps what it has.
        remove_file(&old).unwrap();
        std::fs::create_dir_all(old.join("x")).unwrap();
        let mut refused = 0;
        for _ in 0..300 {
            refused += file
                .write(b"123456789\n")
                .map_or_else(|own| own.lines, |()| 0);
        }
        assert_eq!((size(&path), refused > 0), (1_000, true));
        assert_eq!(
            file.write(&[b'x'; 2_000]).unwrap_err().source.kind(),
            io::ErrorKind::IsADirectory
        );
    }

    #[test]
    fn a_place_that_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("later");
        let mut file = LogFile::new(folder.join("f"), 1_000);
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
