//! Child processes that cannot outlive the lab.
//!
//! Children get `PR_SET_PDEATHSIG`, so that not even SIGKILL of this process leaves one behind. The
//! kernel ties that to the *thread* that forked, and test threads end early: one thread that lives
//! as long as the process forks them all.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::cleanup::{self, Guard};
use crate::command::{describe, tail};
use crate::error::{Context, Error, Result};

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// Whether children outlive this process (`demo --keep`).
static OUTLIVE: AtomicBool = AtomicBool::new(false);

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Lets the children that are started from now on outlive this process.
pub fn let_children_outlive() {
    OUTLIVE.store(true, Ordering::Relaxed);
}

/// A long-running program whose output goes to a log file.
#[derive(Debug)]
pub struct Daemon {
    program: String,
    child: Arc<Mutex<Child>>,
    pid: u32,
    log: PathBuf,
    _guard: Guard,
}

impl Daemon {
    /// Starts a program; both its output streams are appended to `log`.
    pub fn start(program: &str, mut command: Command, log: &Path) -> Result<Self> {
        let what = describe(&command);
        let open = || File::options().create(true).append(true).open(log);
        let stdout = open().context(|| format!("opening {}", log.display()))?;
        let stderr = open().context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = fork(command).context(|| format!("starting `{what}`"))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let doomed = Arc::clone(&child);
        let guard = cleanup::on_end(move || stop(&doomed));
        Ok(Self {
            program: program.to_owned(),
            child,
            pid,
            log: log.to_path_buf(),
            _guard: guard,
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the program has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The exit status, once the program has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        send(self.pid, signal);
    }

    /// Waits until the program has ended.
    pub fn wait_exit(&self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(self.timeout("its end", limit));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a condition holds; an early end of the program is an error that quotes its log.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            if holds() {
                return Ok(());
            }
            if let Some(status) = self.exit_status() {
                return Err(Error::Died {
                    program: self.program.clone(),
                    status: status.to_string(),
                    log: tail(&self.log(), 8_000).to_owned(),
                });
            }
            if Instant::now() >= end {
                return Err(self.timeout(what, limit));
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    fn timeout(&self, what: &str, waited: Duration) -> Error {
        let detail = tail(&self.log(), 8_000).to_owned();
        Error::Timeout {
            what: format!("{}: {what}", self.program),
            waited,
            detail,
        }
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= end {
            return Err(Error::Timeout {
                what: what.to_owned(),
                waited: limit,
                detail: String::new(),
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn fork(mut command: Command) -> std::io::Result<Child> {
    // SAFETY: the closure only makes system calls that are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(unblock_signals) };
    if OUTLIVE.load(Ordering::Relaxed) {
        command.process_group(0);
        return command.spawn();
    }
    // SAFETY: as above.
    unsafe { command.pre_exec(die_with_parent) };
    static FORKER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, result) = mpsc::channel();
    let gone = || std::io::Error::other("the forking thread is gone");
    forker.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: prctl takes plain numbers here.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Ok(())
}

/// The demo blocks SIGINT and SIGTERM, which a child would inherit.
fn unblock_signals() -> std::io::Result<()> {
    // SAFETY: plain system calls on a local that is initialised before it is used.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    Ok(())
}

fn stop(child: &Mutex<Child>) {
    let mut child = lock(child);
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    send(child.id(), libc::SIGTERM);
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn send(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: kill takes plain numbers; the pid is that of an unreaped child of ours.
        unsafe { libc::kill(pid, signal) };
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
