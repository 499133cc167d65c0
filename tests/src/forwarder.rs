//! The program under test, run in the lab's entrance.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::command::{self, output, run};
use crate::error::{Context, Error, Result};
use crate::lab::Lab;
use crate::process::Daemon;

/// How long the forwarder may take until it is ready; the verifier is slow on a busy machine.
const START: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running forwarder; dropping it ends it and removes what it pinned.
#[derive(Debug)]
pub struct Forwarder<'a> {
    // The daemon goes first, then what it left behind.
    daemon: Option<Daemon>,
    lab: &'a Lab,
    program: PathBuf,
    /// What the program sees as `/etc/group`, if not the machine's own.
    groups: Option<PathBuf>,
    config: PathBuf,
    bpffs: PathBuf,
    log: PathBuf,
}

/// The program's file: `FORWARDER_BIN`, or the one that Cargo built beside the tests.
pub fn program() -> Result<PathBuf> {
    match std::env::var_os("FORWARDER_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => command::find_own("forwarder"),
    }
}

/// The `[entrance]` section for a lab.
#[must_use]
pub fn entrance_section(lab: &Lab) -> String {
    format!(
        "[entrance]\npublic = {:?}\ntunnels = {:?}\n",
        lab.public_interfaces(),
        lab.tunnel_interfaces()
    )
}

impl<'a> Forwarder<'a> {
    /// Starts the forwarder with a configuration and waits until it says that it is ready. A
    /// configuration without an `[entrance]` section gets the lab's.
    pub fn start(lab: &'a Lab, config: &str) -> Result<Self> {
        Self::start_program(lab, config, program()?)
    }

    /// As [`Forwarder::start`], of another file of the program.
    pub fn start_program(lab: &'a Lab, config: &str, program: PathBuf) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = |ending: &str| lab.folder().join(format!("forwarder-{number}.{ending}"));
        let mut forwarder = Self {
            daemon: None,
            lab,
            program,
            groups: None,
            config: file("toml"),
            bpffs: lab.bpffs().join(format!("forwarder{number}")),
            log: file("log"),
        };
        forwarder.write_config(config)?;
        forwarder.run()?;
        Ok(forwarder)
    }

    /// Replaces the configuration file, which counts from the next [`Forwarder::run`] on.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let entrance = if config.contains("[entrance]") {
            String::new()
        } else {
            entrance_section(self.lab)
        };
        std::fs::write(&self.config, format!("{entrance}\n{config}"))
            .context(|| format!("writing {}", self.config.display()))
    }

    /// Starts the program (again) on the same configuration file and pins.
    pub fn run(&mut self) -> Result<()> {
        let path = self.log.with_extension("notify");
        let _ = std::fs::remove_file(&path);
        let socket =
            UnixDatagram::bind(&path).context(|| format!("listening on {}", path.display()))?;
        socket
            .set_nonblocking(true)
            .context(|| "listening for readiness".to_owned())?;
        let mut command = self.beside_wireguard()?;
        command
            .arg("run")
            .env("NOTIFY_SOCKET", &path)
            .env("RUST_BACKTRACE", "1");
        let daemon = Daemon::start("forwarder", command, &self.log)?;
        let mut buffer = [0; 4096];
        daemon.wait_until("being ready (READY=1 on NOTIFY_SOCKET)", START, || {
            std::iter::from_fn(|| {
                socket
                    .recv(&mut buffer)
                    .ok()
                    .map(|length| buffer[..length].to_vec())
            })
            .any(|message| {
                message
                    .split(|byte| *byte == b'\n')
                    .any(|line| line == b"READY=1")
            })
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Runs another file of the program from now on, as after an upgrade.
    pub fn upgrade(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Gives the machine another group, as the program sees it from its next start on. The machine
    /// itself stays as it is: the file is laid over `/etc/group` in the program's mount namespace.
    pub fn with_group(&mut self, name: &str, number: u32) -> Result<()> {
        let file = self.log.with_extension("group");
        let own = std::fs::read_to_string("/etc/group").unwrap_or_default();
        std::fs::write(&file, format!("{own}{name}:x:{number}:\n"))
            .context(|| format!("writing {}", file.display()))?;
        self.groups = Some(file);
        Ok(())
    }

    /// Starts the program and kills it as soon as what it has logged since fits, ready or not.
    pub fn run_and_kill(&mut self, when: impl Fn(&str) -> bool) -> Result<()> {
        let before = self.log().len();
        let mut command = self.command()?;
        command.arg("run");
        let daemon = Daemon::start("forwarder", command, &self.log)?;
        daemon.wait_until("the moment to kill it", START, || {
            when(self.log().get(before..).unwrap_or_default())
        })?;
        daemon.signal(libc::SIGKILL);
        daemon.wait_exit(Duration::from_secs(5)).map(drop)
    }

    /// Ends the daemon with SIGTERM; what it pinned goes on working.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Ends the daemon with SIGKILL; what it pinned goes on working.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(libc::SIGKILL);
            daemon.wait_exit(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// What `forwarder status --json` says.
    pub fn status(&self) -> Result<serde_json::Value> {
        let text = run(self.command()?.args(["status", "--json"]))?;
        serde_json::from_str(&text).map_err(|error| Error::Unintelligible {
            what: format!("forwarder status --json: {error}"),
            text,
        })
    }

    /// What `forwarder status` says to a person.
    pub fn status_text(&self) -> Result<String> {
        run(self.command()?.arg("status"))
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The daemon, while it runs.
    #[must_use]
    pub fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// Where it pins its programs, maps and links.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The control socket of the daemon in this lab; it must be the only one.
    pub fn control(&self) -> Result<PathBuf> {
        let run = self.lab.folder().join("run");
        let files = std::fs::read_dir(&run).context(|| format!("listing {}", run.display()))?;
        let paths = files.flatten().map(|entry| entry.path());
        let socket = paths
            .into_iter()
            .find(|path| path.extension().is_some_and(|ending| ending == "sock"));
        socket.ok_or_else(|| Error::Unintelligible {
            what: String::from("a run directory without a control socket"),
            text: run.display().to_string(),
        })
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The program in the entrance, with this instance's configuration and pins.
    pub fn command(&self) -> Result<Command> {
        self.prepared(String::new())
    }

    /// The same, and it finds the sockets of WireGuard in user space, as it would on one machine.
    fn beside_wireguard(&self) -> Result<Command> {
        let sockets = self.lab.wireguard_sockets();
        if sockets.is_empty() {
            return self.command();
        }
        let links = sockets
            .iter()
            .map(|socket| format!("ln -s {} /run/wireguard/ && ", socket.display()));
        let links: String = links.collect();
        self.prepared(format!(
            "mount -t tmpfs tmpfs /run && mkdir /run/wireguard && {links}"
        ))
    }

    /// The program after shell commands, each with `&&` behind it, that change what it sees:
    /// `ip netns exec` gives each program a mount namespace of its own.
    fn prepared(&self, mut before: String) -> Result<Command> {
        if let Some(groups) = &self.groups {
            before += &format!("mount --bind {} /etc/group && ", groups.display());
        }
        let mut command = if before.is_empty() {
            self.lab.entrance.command(&self.program)?
        } else {
            let mut shell = self.lab.entrance.command("sh")?;
            let script = format!("{before}exec \"$0\" \"$@\"");
            shell.args(["-c", &script]).arg(&self.program);
            shell
        };
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--bpffs")
            .arg(&self.bpffs)
            .arg("--run-dir")
            .arg(self.lab.folder().join("run"));
        Ok(command)
    }
}

impl Drop for Forwarder<'_> {
    fn drop(&mut self) {
        self.daemon = None;
        if let Ok(mut command) = self.command() {
            let _ = output(command.args(["unload", "--yes"]));
        }
        // Whatever is still pinned lets go of its interface with its pin.
        let _ = std::fs::remove_dir_all(&self.bpffs);
        if std::thread::panicking() {
            eprintln!(
                "the forwarder's log:\n{}",
                command::tail(&self.log(), 6_000)
            );
        }
    }
}
