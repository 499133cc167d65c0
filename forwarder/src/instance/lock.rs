//! One daemon for each set of pins: a locked file with the holder's process id in it.
//!
//! The kernel lets go of the lock when its holder ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why there is no lock.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another forwarder runs here (process {pid}); stop it, or give this one its own --bpffs"
    )]
    Held {
        /// Its process id, as far as it could be read.
        pid: String,
    },
    /// The file cannot be used.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = loop {
            let mut file = open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid = pid(&mut file);
                    return Err(LockError::Held { pid });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // A former holder may have removed the file between opening and locking it.
            if is_at(&file, path) {
                break file;
            }
        };
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self {
            _file: file,
            path: path.to_owned(),
        })
    }

    /// Lets go of the lock and removes its file.
    pub fn remove(self) {
        // Whether it is gone or cannot be removed: an unlocked file means nothing.
        let _ = fs::remove_file(&self.path);
    }

    /// The process id of the holder; `None` if nobody holds it.
    pub fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(pid(&mut file)),
            _ => None,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => same(own, there),
        _ => false,
    }
}

fn pid(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => String::from("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/forwarder.lock");
        assert_eq!(Lock::holder(&path), None);
        let first = Lock::take(&path).unwrap();
        let own = std::process::id().to_string();
        let error = Lock::take(&path).unwrap_err();
        assert!(
            matches!(&error, LockError::Held { pid } if *pid == own),
            "{error}"
        );
        assert_eq!(Lock::holder(&path), Some(own));
        drop(first);
        assert_eq!(Lock::holder(&path), None);
        Lock::take(&path).unwrap().remove();
        assert!(!path.exists());
    }
}
