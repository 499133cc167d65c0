//! Whole Debian machines: systemd as the first process, over a fresh root, inside a lab's namespace.
//!
//! A machine has process, mount, UTS, IPC and control group namespaces of its own; its network is the
//! namespace it is started in. Its root is the archive that `cargo xtask test --only package` makes
//! (`FORWARDER_DEBIAN_ROOT`), unpacked once into memory; what a machine writes is in memory too, and gone with
//! it. What it may not touch is the kernel it shares: `/proc/sys` is read-only but for `net`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::cleanup::{self, Guard};
use crate::command::{self, output, run};
use crate::error::{Context, Error, Result};
use crate::lab::Lab;
use crate::netns::{self, Namespace};
use crate::process::{Daemon, wait_until};

/// The archive of the root.
const ARCHIVE: &str = "FORWARDER_DEBIAN_ROOT";
/// How long systemd may take to come up; it is there in three seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

/// Moves itself into its control group, which cannot be seen from inside `ip netns exec`, and then everything
/// into namespaces. `$1` is the folder of the machine, `$2` its control group, `$3` the unpacked root, `$4` what
/// the first process runs, and the rest enters the network namespace.
const ENTER: &str = r#"
folder=$1 group=$2 below=$3 first=$4
shift 4
echo $$ >"$group/cgroup.procs"
exec "$@" unshare --mount --pid --uts --ipc --cgroup --fork --kill-child --propagation private \
    sh -ec "$first" sh "$folder" "$below"
"#;

/// The first process until it becomes systemd. `/proc` is still the one outside, so that it finds its own
/// number there.
const BECOME_SYSTEMD: &str = r#"
read -r pid rest </proc/self/stat
echo "$pid" >"$1/pid.new"
mv "$1/pid.new" "$1/pid"
mount -t tmpfs -o size=1g tmpfs "$1/memory"
mkdir "$1/memory/upper" "$1/memory/work" "$1/memory/root"
root=$1/memory/root
mount -t overlay -o "lowerdir=$2,upperdir=$1/memory/upper,workdir=$1/memory/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
[ ! -e "$root/proc/sysrq-trigger" ] || mount --bind -o ro /dev/null "$root/proc/sysrq-trigger"
mount -t sysfs sysfs "$root/sys"
mount -t bpf -o mode=1700 bpf "$root/sys/fs/bpf"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts" "$root/dev/net"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mknod -m 666 "$root/dev/net/tun" c 10 200
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"#;

/// What machines are made of.
#[derive(Debug)]
struct Root {
    folder: PathBuf,
    _guard: Guard,
}

impl Root {
    /// The root of this process, unpacked at the first call.
    fn unpacked() -> Result<&'static Self> {
        static ROOT: OnceLock<Root> = OnceLock::new();
        if let Some(root) = ROOT.get() {
            return Ok(root);
        }
        let root = Self::unpack()?;
        Ok(ROOT.get_or_init(|| root))
    }

    fn unpack() -> Result<Self> {
        let archive = from_stage(ARCHIVE)?;
        // Named like a lab's: what a killed process leaves is removed by the next.
        let folder = std::env::temp_dir().join(format!("fw{}-debian", std::process::id()));
        std::fs::create_dir(&folder).context(|| format!("making {}", folder.display()))?;
        let doomed = folder.clone();
        let guard = cleanup::on_end(move || netns::remove_folder(&doomed));
        let mut mount = command::command("mount")?;
        run(mount.args(["-t", "tmpfs", "tmpfs"]).arg(&folder))?;
        run(Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&folder))?;
        Ok(Self {
            folder,
            _guard: guard,
        })
    }
}

/// A file that the package stage of `cargo xtask test` makes and names in a variable.
pub fn from_stage(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.ok_or_else(|| Error::Unintelligible {
        what: format!("{variable}, which `cargo xtask test --only package` sets,"),
        text: String::from("(not set)"),
    })
}

/// A running machine; it is gone when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    pid: u32,
    // Dropped in this order: the processes, then their group, then the folder.
    daemon: Daemon,
    _group: Guard,
    _folder: Guard,
}

impl Machine {
    /// Starts a machine in a namespace of a lab and waits until systemd has started everything.
    pub fn boot(lab: &Lab, namespace: &Namespace, name: &str) -> Result<Self> {
        let root = Root::unpacked()?;
        let folder = lab.folder().join(format!("machine-{name}"));
        let memory = folder.join("memory");
        std::fs::create_dir_all(&memory).context(|| format!("making {}", folder.display()))?;
        let doomed = folder.clone();
        let folder_guard = cleanup::on_end(move || netns::remove_folder(&doomed));
        let (group, group_guard) = control_group(lab, name)?;

        let mut command = Command::new("sh");
        command
            .args(["-ec", ENTER, "sh"])
            .args([&folder, &group, &root.folder])
            .arg(BECOME_SYSTEMD)
            .arg(command::find("ip")?)
            .args(["netns", "exec", namespace.name()]);
        let daemon = Daemon::start(name, command, &folder.join("console.log"))?;
        let pid = folder.join("pid");
        daemon.wait_until("its first process", BOOT, || pid.exists())?;
        let text =
            std::fs::read_to_string(&pid).context(|| format!("reading {}", pid.display()))?;
        let machine = Self {
            name: name.to_owned(),
            pid: text.trim().parse().map_err(|_| Error::Unintelligible {
                what: "the number of a machine's first process".to_owned(),
                text,
            })?,
            daemon,
            _group: group_guard,
            _folder: folder_guard,
        };
        machine.wait_for_systemd()?;
        Ok(machine)
    }

    fn wait_for_systemd(&self) -> Result<()> {
        let state = || {
            let answer = output(&mut self.command(&["systemctl", "is-system-running"]));
            answer.map_or_else(
                |error| error.to_string(),
                |answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
            )
        };
        // `degraded` is a unit that failed: which ones do depends on the kernel outside.
        self.daemon.wait_until("systemd", BOOT, || {
            matches!(state().as_str(), "running" | "degraded")
        })
    }

    /// A command inside, as root, with the environment of a login.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"])
            .args(["env", "-i", "--chdir=/root", "HOME=/root", "LC_ALL=C.UTF-8"])
            .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["DEBIAN_FRONTEND=noninteractive", "TERM=dumb"])
            .args(words);
        command
    }

    /// Runs a command inside and returns what it says.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words))
    }

    /// Runs lines of a shell inside, up to the first that fails, and returns what they say, errors included.
    pub fn shell(&self, lines: &str) -> Result<String> {
        self.run(&["bash", "-ec", &format!("exec 2>&1\n{lines}")])
    }

    /// Whether a command inside succeeds.
    #[must_use]
    pub fn succeeds(&self, words: &[&str]) -> bool {
        output(&mut self.command(words)).is_ok_and(|output| output.status.success())
    }

    /// A file inside, by its path outside.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid)).join(inside.trim_start_matches('/'))
    }

    /// The text of a file inside.
    pub fn read(&self, inside: &str) -> Result<String> {
        std::fs::read_to_string(self.path(inside))
            .context(|| format!("reading {inside} of {}", self.name))
    }

    /// Writes a file inside.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text))
            .context(|| format!("writing {inside} of {}", self.name))
    }

    /// Copies a file of this machine into that one.
    pub fn copy_in(&self, from: &Path, inside: &str) -> Result<()> {
        std::fs::copy(from, self.path(inside))
            .map(drop)
            .context(|| format!("copying {} to {inside} of {}", from.display(), self.name))
    }

    /// The last lines of a unit's journal.
    #[must_use]
    pub fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "--no-pager", "--lines=60", "--unit", unit])
            .unwrap_or_else(|error| error.to_string())
    }

    /// Waits until a condition holds inside.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        holds: impl FnMut() -> bool,
    ) -> Result<()> {
        wait_until(&format!("{}: {what}", self.name), limit, holds)
    }
}

/// A control group of the unified hierarchy, wherever that is mounted.
fn control_group(lab: &Lab, name: &str) -> Result<(PathBuf, Guard)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))
        .and_then(|words| words.get(1).map(PathBuf::from));
    let hierarchy = match mounted {
        Some(hierarchy) => hierarchy,
        None => {
            // It goes with the lab's folder.
            let own = lab.folder().join("cgroup");
            std::fs::create_dir_all(&own).context(|| format!("making {}", own.display()))?;
            let mut mount = command::command("mount")?;
            run(mount.args(["-t", "cgroup2", "cgroup2"]).arg(&own))?;
            own
        }
    };
    let group = hierarchy.join(format!("{}-{name}", lab.name()));
    std::fs::create_dir(&group).context(|| format!("making {}", group.display()))?;
    let doomed = group.clone();
    let guard = cleanup::on_end(move || remove_group(&doomed));
    Ok((group, guard))
}

/// Ends what still runs in a control group, and removes it with those below.
fn remove_group(group: &Path) {
    // Since Linux 5.14; before, the end of the first process has ended the others already.
    let _ = std::fs::write(group.join("cgroup.kill"), "1");
    let _ = wait_until("an empty control group", Duration::from_secs(5), || {
        remove_tree(group);
        !group.exists()
    });
}

/// The files of a control group cannot be removed, only groups can, the lowest first.
fn remove_tree(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}
