//! A terminal without a person: a program at one end, the test at the other (pty(7)).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::process::wait_until;

/// A program at a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Held, so that what it is set to can be read after the program has ended.
    program_end: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program at a terminal of 80 columns and 24 lines.
    pub fn start(command: &mut Command) -> Result<Self> {
        let (ours, theirs) = open()?;
        let stdio = || {
            theirs
                .try_clone()
                .context(|| String::from("a terminal's end"))
        };
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        // SAFETY: between fork and exec only these two system calls are made; descriptor 0 is the terminal.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .context(|| format!("starting {command:?}"))?;
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut screen = File::from(ours.try_clone().context(|| String::from("a terminal"))?);
        let to = written.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            // It ends with an error when the last program has closed its end.
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                let mut written = to.lock().unwrap_or_else(PoisonError::into_inner);
                written.extend_from_slice(&buffer[..length]);
            }
        });
        let terminal = Self {
            child,
            keyboard: File::from(ours),
            program_end: theirs,
            written,
        };
        terminal.resize(80, 24)?;
        Ok(terminal)
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let size = libc::winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let fd = self.keyboard.as_raw_fd();
        // SAFETY: the size outlives the call, and the descriptor is open.
        let result = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
        succeeded(result, "a terminal's size")
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard
            .write_all(keys.as_bytes())
            .context(|| format!("pressing {keys:?}"))
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain numbers; the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// What was written since the last call of [`Self::forget`], control sequences included.
    #[must_use]
    pub fn written(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    /// From now on only what comes is looked at.
    pub fn forget(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.clear();
    }

    /// Waits until all of these words have been written.
    pub fn wait_for(&self, words: &[&str], limit: Duration) -> Result<()> {
        wait_until(&format!("{words:?}"), limit, || {
            let written = self.written();
            words.iter().all(|word| written.contains(word))
        })
    }

    /// Waits until the program has ended.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("the end of the program", limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        Ok(status.expect("a status after the wait"))
    }

    /// Whether lines are edited and echoed, as at a prompt.
    pub fn is_cooked(&self) -> Result<bool> {
        // SAFETY: termios is integers only, so zeros are one; it outlives the call.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open.
        let result = unsafe { libc::tcgetattr(self.program_end.as_raw_fd(), &raw mut settings) };
        succeeded(result, "a terminal's settings")?;
        let cooked = libc::ICANON | libc::ECHO | libc::ISIG;
        Ok(settings.c_lflag & cooked == cooked)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open() -> Result<(OwnedFd, OwnedFd)> {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both descriptors outlive the call; name, settings and size may be null.
    let result = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            none,
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    succeeded(result, "a terminal")?;
    // SAFETY: openpty has just opened them for us alone.
    let ends = unsafe { [ours, theirs].map(|fd| OwnedFd::from_raw_fd(fd)) };
    let [ours, theirs] = ends;
    Ok((ours, theirs))
}

fn succeeded(result: i32, what: &str) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).context(|| what.to_owned())
}
