//! The socket's file: who may open it, and that none is left behind.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;
use tracing::warn;

use super::peer;

/// Owner and group may connect; connecting needs the right to write.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("cannot listen on the control socket {}", path.display())]
pub struct SocketError {
    /// Its file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A socket file that goes with its daemon.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// Listens at `path`. Whoever calls holds the lock of the instance, so a file that is there already was left
/// by a daemon that was killed.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let open = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        if let Some(group) = peer::group()
            && let Err(error) = std::os::unix::fs::chown(path, None, Some(group))
        {
            warn!(
                %error,
                "the control socket is not given to the group `{}`, whose members therefore cannot use it; \
                 the daemon must be a member of it, or have CAP_CHOWN",
                peer::GROUP
            );
        }
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        Ok(listener)
    };
    let listener = open().map_err(|source| SocketError {
        path: path.to_owned(),
        source,
    })?;
    Ok((listener, SocketFile(path.to_owned())))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without a listener it is of no use to anybody, and the next daemon removes it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_none_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_listener, file) = listen(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(file);
        assert!(!path.exists());
    }
}
