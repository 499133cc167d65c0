//! `run --confirm`: everything is removed unless somebody confirms in time, whatever becomes of the daemon meanwhile.
//!
//! The deadline stands in a file of the run directory, and a daemon that starts while it runs obeys it. A second
//! process, the guard, waits for the end of the daemon: if it is still not confirmed by the deadline, and no other daemon
//! has taken over, the guard removes everything.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::error::DaemonError;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::clock::monotonic;
use crate::dataplane::unload::unload;
use crate::instance::files::replace;
use crate::instance::lock::{Lock, LockError};
use crate::instance::paths::Paths;
use crate::link::survey::Surveyor;

/// How often the guard looks at the file: a daemon that took over may have been given more time.
const LOOK: Duration = Duration::from_secs(1);

/// What is left of a time that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing waits to be confirmed.
    Confirmed,
    /// So long.
    Time(Duration),
    /// It is over.
    Nothing,
}

/// A deadline that outlives processes, and no boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    boot: String,
    /// On the clock since boot, ms.
    at_ms: u64,
}

impl Deadline {
    /// So far from now.
    pub fn after(time: Duration) -> Self {
        Self {
            boot: boot(),
            at_ms: (monotonic() + time).as_millis() as u64,
        }
    }

    /// How much time is left; `None` if this machine was started anew since.
    pub fn left(&self) -> Option<Duration> {
        let at = Duration::from_millis(self.at_ms);
        (self.boot == boot()).then(|| at.saturating_sub(monotonic()))
    }
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

/// The file.
#[derive(Clone, Debug)]
pub struct Probation(PathBuf);

impl Probation {
    /// Of the instance at `place`.
    pub fn of(place: &Paths) -> Self {
        Self(place.probation())
    }

    /// Everything will be removed after this time.
    pub fn begin(&self, time: Duration) -> io::Result<()> {
        let text = serde_json::to_vec(&Deadline::after(time))?;
        replace(&self.0, &text).map(drop)
    }

    /// It is confirmed, or over.
    pub fn end(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %self.0.display(), %error, "cannot be removed");
            }
            _ => {}
        }
    }

    /// What is left of the time.
    pub fn left(&self) -> Left {
        let text = fs::read(&self.0).ok();
        let deadline = text.and_then(|text| serde_json::from_slice::<Deadline>(&text).ok());
        match deadline.and_then(|own| own.left()) {
            None => Left::Confirmed,
            Some(Duration::ZERO) => Left::Nothing,
            Some(left) => Left::Time(left),
        }
    }
}

/// The guard, and the pipe by which it learns that this process has ended.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    probation: Probation,
}

impl Guard {
    /// Starts it: `forwarder guard`, in a session of its own, which no terminal ends.
    pub fn start(place: &Paths) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("--bpffs")
            .arg(place.bpffs())
            .arg("--run-dir")
            .arg(place.run_dir())
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let alone = || {
            // SAFETY: a system call without arguments. It fails only for the leader of a group, which a child is not.
            unsafe { libc::setsid() };
            Ok(())
        };
        // SAFETY: between fork and exec it makes one system call.
        unsafe { command.pre_exec(alone) };
        Ok(Self {
            process: command.spawn()?,
            probation: Probation::of(place),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // With its file gone it ends at once. Otherwise this daemon ends without having removed anything, and the
        // guard has a duty.
        if self.probation.left() == Left::Confirmed {
            let _ = self.process.wait();
        }
    }
}

/// What the guard does: waits for the end of its standard input, and then for the deadline.
pub fn guard(place: &Paths) -> Result<(), DaemonError> {
    // Whatever ends it, the other end is gone.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let probation = Probation::of(place);
    loop {
        match probation.left() {
            Left::Confirmed => return Ok(()),
            Left::Time(left) => std::thread::sleep(left.min(LOOK)),
            Left::Nothing => break,
        }
    }
    let lock = match Lock::take(&place.lock()) {
        Ok(lock) => lock,
        // The daemon that took over obeys the file.
        Err(LockError::Held { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(async {
        let network = Surveyor::open()?.survey(std::iter::empty()).await?;
        remove(place, &network)
    })?;
    lock.remove();
    place.remove_run_dir();
    info!("not confirmed in time, and the daemon is gone: everything was detached");
    Ok(())
}

/// Removes everything of an instance but its lock, which whoever calls this holds.
pub fn remove(place: &Paths, network: &crate::link::Network) -> Result<(), DaemonError> {
    unload(&Pins::new(place.bpffs()), &place.registry(), network)?;
    if let Err(error) = place.remove_files() {
        warn!(error = &error as &dyn std::error::Error, "left behind");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_deadline_outlives_the_process_and_not_the_boot() {
        let folder = tempfile::tempdir().unwrap();
        let place = Paths::new(Path::new("/x"), folder.path());
        let probation = Probation::of(&place);
        assert_eq!(probation.left(), Left::Confirmed);
        probation.begin(Duration::from_secs(60)).unwrap();
        assert!(
            matches!(Probation::of(&place).left(), Left::Time(left) if left > Duration::from_secs(50))
        );
        probation.begin(Duration::ZERO).unwrap();
        assert_eq!(probation.left(), Left::Nothing);
        let other = Deadline {
            boot: String::from("another"),
            ..Deadline::after(Duration::from_secs(60))
        };
        fs::write(place.probation(), serde_json::to_vec(&other).unwrap()).unwrap();
        assert_eq!(probation.left(), Left::Confirmed, "the programs went too");
        probation.end();
        probation.end();
        assert!(!place.probation().exists());
    }
}
