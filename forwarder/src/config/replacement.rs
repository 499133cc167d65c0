//! Several files replaced together: all or none, as far as file systems allow.
//!
//! Every new text is on disk before the first file changes. A file changes by an exchange of two names
//! (`renameat2(2)`, `RENAME_EXCHANGE`), so that what stood there is not lost: it is looked at once more, and if
//! somebody has saved something else in the meantime everything is put back. Where the file system knows no
//! exchange, a second name keeps what stood there. A crash between two files may leave one of them new.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};
use thiserror::Error;

/// Why no file was replaced.
#[derive(Debug, Error)]
pub enum ReplaceError {
    /// One cannot be.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One says something else than a moment ago.
    #[error("{} was changed by somebody else in the meantime", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// What a file says, and what it is to say.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// The file, as the user named it; a link stays a link.
    pub path: &'a Path,
    /// What it must hold until then.
    pub old: &'a str,
    /// What it will hold.
    pub new: &'a str,
}

/// Replaces each file, owner and mode kept. What is left in case of an error is what was there before.
pub fn replace_all(replacements: &[Replacement<'_>]) -> Result<(), ReplaceError> {
    let staged = replacements.iter().map(|own| {
        Staged::write(own).map_err(|source| ReplaceError::Io {
            path: own.path.to_owned(),
            source,
        })
    });
    let mut staged = staged.collect::<Result<Vec<_>, _>>()?;
    let done = swap_all(&mut staged);
    if done.is_err() {
        for own in staged.iter().rev() {
            own.put_back();
        }
    }
    done?;
    for folder in staged.iter().map(Staged::folder).collect::<BTreeSet<_>>() {
        // The names are in place; that they outlive a loss of power is all that is still missing.
        if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
            tracing::warn!(folder = %folder.display(), %error, "not forced to the disk");
        }
    }
    Ok(())
}

fn swap_all(staged: &mut [Staged<'_>]) -> Result<(), ReplaceError> {
    let changed = |own: &Staged<'_>| ReplaceError::Changed {
        path: own.what.path.to_owned(),
    };
    for own in staged.iter_mut() {
        if !holds(&own.real, own.what.old) {
            return Err(changed(own));
        }
        own.swap().map_err(|source| ReplaceError::Io {
            path: own.what.path.to_owned(),
            source,
        })?;
    }
    // Whoever saved between the look and the exchange did so into what is the old file now.
    match staged.iter().find(|own| !own.kept_is_old()) {
        Some(own) => Err(changed(own)),
        None => Ok(()),
    }
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

/// A new text beside the file that it will replace.
struct Staged<'a> {
    what: Replacement<'a>,
    /// The file itself, links followed.
    real: PathBuf,
    /// The new text; after an exchange what stood there. Removed with this.
    beside: TempPath,
    /// What stood there, where names could not be exchanged. Removed with this.
    second: Option<TempPath>,
    swapped: bool,
}

impl<'a> Staged<'a> {
    fn write(what: &Replacement<'a>) -> io::Result<Self> {
        let real = fs::canonicalize(what.path)?;
        // Made anew under a name that nobody can foresee (`O_EXCL`).
        let mut file = names().tempfile_in(folder(&real))?;
        let (was, is) = (fs::metadata(&real)?, file.as_file().metadata()?);
        // Not asked for without need: a service may run without the right to.
        if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
            fchown(file.as_file(), Some(was.uid()), Some(was.gid()))?;
        }
        file.as_file().set_permissions(was.permissions())?;
        file.write_all(what.new.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(Self {
            what: *what,
            real,
            beside: file.into_temp_path(),
            second: None,
            swapped: false,
        })
    }

    fn folder(&self) -> &Path {
        folder(&self.real)
    }

    fn swap(&mut self) -> io::Result<()> {
        match exchange(&self.beside, &self.real) {
            Err(error) if knows_no_exchange(&error) => {
                let link = |path: &Path| fs::hard_link(&self.real, path);
                let second = names().make_in(self.folder(), link)?;
                self.second = Some(second.into_temp_path());
                fs::rename(&self.beside, &self.real)?;
            }
            outcome => outcome?,
        }
        self.swapped = true;
        Ok(())
    }

    fn kept(&self) -> &Path {
        self.second.as_deref().unwrap_or(&self.beside)
    }

    fn kept_is_old(&self) -> bool {
        holds(self.kept(), self.what.old)
    }

    /// Undoes the exchange, unless somebody has saved over it already.
    fn put_back(&self) {
        if !self.swapped || !holds(&self.real, self.what.new) {
            return;
        }
        let back = match &self.second {
            Some(second) => fs::rename(second, &self.real),
            None => exchange(&self.beside, &self.real),
        };
        if let Err(error) = back {
            tracing::error!(path = %self.real.display(), %error, "cannot be put back");
        }
    }
}

/// The dot keeps such a file from being read as a drop-in.
fn names() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".forwarder-").suffix(".new");
    builder
}

fn folder(real: &Path) -> &Path {
    real.parent().unwrap_or(Path::new("/"))
}

/// Exchanges two names of one folder.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both pointers are those of NUL-terminated strings that outlive the call.
    let answer = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As the kernel (`EINVAL` of the file system, `ENOSYS`) or a filter of system calls says it.
fn knows_no_exchange(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)
    )
}

#[cfg(test)]
mod tests;
