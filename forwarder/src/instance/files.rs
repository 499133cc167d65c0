//! Files of the run directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces a file, whole or not at all for whoever reads it. Returns the new one, open at its end. It is not forced
/// to the disk: the run directory does not outlive the kernel.
///
/// # Errors
/// The file beside it cannot be written or moved.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    fs::rename(&beside, path)?;
    Ok(file)
}
