//! Network namespaces, named through `ip netns` so that a person can enter them too.
//!
//! Names begin with `fw<pid>-`: what a killed process left behind is found by its dead pid and
//! removed when the next lab is built.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use crate::cleanup::{self, Guard};
use crate::command::{self, run, run_with_input};
use crate::error::{Context, Error, Result};

const FOLDER: &str = "/run/netns";

/// A network namespace that is deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    _guard: Guard,
}

impl Namespace {
    /// Creates a namespace, with the loopback interface up and quick IPv6 addresses (no duplicate
    /// address detection), and no reverse-path filter.
    pub fn create(name: &str) -> Result<Self> {
        run(command::command("ip")?.args(["netns", "add", name]))?;
        let doomed = name.to_owned();
        let guard = cleanup::on_end(move || delete(&doomed));
        let namespace = Self {
            name: name.to_owned(),
            _guard: guard,
        };
        namespace.ip("link set lo up")?;
        for (key, value) in [
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ] {
            namespace.sysctl(key, value)?;
        }
        Ok(namespace)
    }

    /// The name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside the namespace, with a mount namespace of its own.
    pub fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let program = program.as_ref();
        let program = if program.components().count() == 1 {
            command::find(&program.to_string_lossy())?
        } else {
            program.to_path_buf()
        };
        let mut command = command::command("ip")?;
        command.args(["netns", "exec", &self.name]).arg(program);
        Ok(command)
    }

    /// Runs lines of `ip` commands (without the word `ip`), all in one process. Lines that begin with
    /// `-6` run after the others, for the commands that cannot tell the family by themselves.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let (six, any): (Vec<_>, Vec<_>) = lines
            .lines()
            .map(str::trim)
            .partition(|line| line.starts_with("-6 "));
        let six: Vec<_> = six
            .into_iter()
            .map(|line| line.trim_start_matches("-6 "))
            .collect();
        for (family, lines) in [(None, any), (Some("-6"), six)] {
            if !lines.is_empty() {
                let mut ip = command::command("ip")?;
                run_with_input(
                    ip.args(family).args(["-n", &self.name, "-batch", "-"]),
                    &lines.join("\n"),
                )?;
            }
        }
        Ok(())
    }

    /// Runs one `ip` command and returns what it says.
    pub fn ip_output(&self, words: &[&str]) -> Result<String> {
        run(command::command("ip")?.args(["-n", &self.name]).args(words))
    }

    /// Sets a sysctl of the namespace; `key` is a path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // Below /proc/sys/net a thread sees the values of its own network namespace.
        self.enter(|| std::fs::write(format!("/proc/sys/{key}"), value))?
            .context(|| format!("setting {key}={value} in namespace {}", self.name))
    }

    /// Runs a closure on a thread inside the namespace. Sockets that it opens, and threads that it
    /// starts, belong to the namespace for good.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = self.handle()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                join_namespace(&handle)?;
                Ok(job())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a long-lived thread inside the namespace.
    pub fn spawn(&self, name: &str, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let handle = self.handle()?;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || match join_namespace(&handle) {
                Ok(()) => job(),
                Err(error) => eprintln!("lab thread could not start: {error}"),
            })
            .context(|| format!("starting the thread {name}"))
            .map(drop)
    }

    fn handle(&self) -> Result<File> {
        let path = format!("{FOLDER}/{}", self.name);
        File::open(&path).context(|| format!("opening {path}"))
    }
}

fn join_namespace(handle: &File) -> Result<()> {
    // SAFETY: setns changes only the network namespace of the calling thread; the descriptor is open.
    let result = unsafe { libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::Io {
        what: "entering a network namespace".to_owned(),
        source: std::io::Error::last_os_error(),
    })
}

fn delete(name: &str) {
    if let Ok(mut ip) = command::command("ip") {
        let _ = run(ip.args(["netns", "del", name]));
    }
}

/// Removes the namespaces, processes, mounts and folders of labs whose process is gone.
pub fn remove_stale() {
    remove(is_stale);
}

/// Removes the lab with a name, as [`crate::lab::Lab::name`] tells it.
pub fn remove_lab(lab: &str) {
    remove(|name| {
        name == lab
            || name
                .strip_prefix(lab)
                .is_some_and(|rest| rest.starts_with('-'))
    });
}

fn remove(doomed: impl Fn(&str) -> bool) {
    for name in file_names(Path::new(FOLDER))
        .into_iter()
        .filter(|name| doomed(name))
    {
        let pids = command::command("ip").and_then(|mut ip| run(ip.args(["netns", "pids", &name])));
        for pid in pids
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            // SAFETY: kill takes plain numbers; the process lives in a namespace that only a lab of
            // ours can have made.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        delete(&name);
    }
    let folder = std::env::temp_dir();
    for name in file_names(&folder).into_iter().filter(|name| doomed(name)) {
        remove_folder(&folder.join(name));
    }
}

/// Unmounts what is mounted inside a lab's folder, then removes it.
pub(crate) fn remove_folder(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(Path::new)
    {
        if point.starts_with(folder) {
            let path = std::ffi::CString::new(point.as_os_str().as_encoded_bytes());
            if let Ok(path) = path {
                // SAFETY: the path is a C string that outlives the call.
                unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
            }
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// `fw<pid>-…` whose process is gone.
fn is_stale(name: &str) -> bool {
    name.strip_prefix("fw")
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(pid, _)| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::is_stale;

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(is_stale("fw4194304999-0-node0"), "no such pid can exist");
        assert!(!is_stale(&format!("fw{}-0-node0", std::process::id())));
        assert!(!is_stale("fwkeep-node0"));
        assert!(!is_stale("fw12"));
        assert!(!is_stale("cni-12345"));
    }
}
