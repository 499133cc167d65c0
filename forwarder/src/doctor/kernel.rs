//! The kernel, this process's rights, and the clock.
//!
//! [`Kernel::here`] reads, [`judge`] decides; the latter is a pure function of what was read.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::catalog::Code;
use super::finding::{Finding, Fix};
use crate::dataplane::bpf::pins;

/// The oldest kernel that will do.
const FLOOR: (u32, u32) = (5, 10);
/// From here on maps count against the memory cgroup and not against locked memory.
const NO_MEMLOCK: (u32, u32) = (5, 11);
/// From here on there is TCX.
const RECOMMENDED: (u32, u32) = (6, 6);

/// Bits of `capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Locked memory below this does not hold the maps of a default configuration.
const LEAST_MEMLOCK: u64 = 64 << 20;

/// 2025-01-01: this program is younger.
const PLAUSIBLE: Duration = Duration::from_secs(1_735_689_600);

/// What was read.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Effective capabilities, a bit for each.
    pub capabilities: u64,
    /// Whether there is a bpf system call.
    pub bpf_syscall: bool,
    /// `net.core.bpf_jit_enable`; `None` outside the first network namespace.
    pub jit: Option<String>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// `/sys/kernel/security/lockdown`, where it can be read.
    pub lockdown: Option<String>,
    /// Soft limit of locked memory, bytes; `None` is unlimited.
    pub memlock: Option<u64>,
    /// The time of day.
    pub now: SystemTime,
    /// Whether something keeps the clock right.
    pub synchronised: bool,
}

impl Kernel {
    /// This machine's.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let trimmed = |path: &str| read(path).map(|text| text.trim().to_owned());
        Self {
            release: trimmed("/proc/sys/kernel/osrelease").unwrap_or_default(),
            capabilities: read("/proc/self/status")
                .and_then(|status| capabilities(&status))
                .unwrap_or_default(),
            bpf_syscall: has_bpf_syscall(),
            jit: trimmed("/proc/sys/net/core/bpf_jit_enable"),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            lockdown: trimmed("/sys/kernel/security/lockdown"),
            memlock: memlock(),
            now: SystemTime::now(),
            synchronised: is_synchronised(),
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }

    /// Whether this process may load and attach programs.
    pub fn is_privileged(&self) -> bool {
        let bpf = self.has(CAP_BPF) && self.has(CAP_PERFMON);
        (bpf || self.has(CAP_SYS_ADMIN)) && self.has(CAP_NET_ADMIN)
    }
}

/// Findings about the kernel.
pub fn judge(kernel: &Kernel) -> Vec<Finding> {
    let mut findings = vec![version(kernel), privileges(kernel)];
    findings.push(if kernel.bpf_syscall {
        Finding::ok(Code::BpfSyscall, "", "the kernel has it")
    } else {
        Finding::failure(Code::BpfSyscall, "", "the kernel has none")
            .fix(Fix::advice("install a kernel with CONFIG_BPF_SYSCALL=y"))
    });
    findings.push(jit(kernel.jit.as_deref()));
    findings.push(if kernel.btf {
        Finding::ok(Code::Btf, "", "/sys/kernel/btf/vmlinux is there")
    } else {
        let seen = "none; the forwarder does not need it, bpftool shows less";
        Finding::warning(Code::Btf, "", seen).fix(Fix::advice(
            "a kernel with CONFIG_DEBUG_INFO_BTF=y, if you debug with bpftool",
        ))
    });
    findings.push(lockdown(kernel.lockdown.as_deref()));
    findings.extend(locked_memory(kernel));
    findings.push(clock(kernel));
    findings
}

fn version(kernel: &Kernel) -> Finding {
    let release = &kernel.release;
    match parsed(release) {
        Some(own) if own >= RECOMMENDED => {
            Finding::ok(Code::KernelVersion, "", format!("{release}, with TCX"))
        }
        Some(own) if own >= FLOOR => {
            let seen = format!("{release} will do; 6.6 or newer has TCX");
            Finding::ok(Code::KernelVersion, "", seen)
        }
        Some(_) => {
            let seen = format!("{release} is older than 5.10");
            Finding::failure(Code::KernelVersion, "", seen).fix(Fix::advice(
                "install a newer kernel: Debian 11 and Ubuntu 22.04 or later have one",
            ))
        }
        None => Finding::skipped(
            Code::KernelVersion,
            "",
            format!("`{release}` is not understood"),
        ),
    }
}

fn privileges(kernel: &Kernel) -> Finding {
    if kernel.is_privileged() {
        return Finding::ok(Code::Privileges, "", "may load and attach programs");
    }
    let needed = [
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ];
    let lacking = needed.iter().filter(|(bit, _)| !kernel.has(*bit));
    let lacking: Vec<_> = lacking.map(|(_, name)| *name).collect();
    let seen = format!("this process lacks {}", lacking.join(", "));
    Finding::failure(Code::Privileges, "", seen).fix(Fix::here("sudo forwarder doctor"))
}

fn jit(setting: Option<&str>) -> Finding {
    match setting {
        Some("0") => Finding::warning(Code::Jit, "", "switched off: programs are interpreted")
            .fix(Fix::here("sysctl -w net.core.bpf_jit_enable=1")),
        Some(_) => Finding::ok(Code::Jit, "", "on"),
        None => Finding::skipped(
            Code::Jit,
            "",
            "not visible in this network namespace, or not of this architecture",
        ),
    }
}

fn lockdown(setting: Option<&str>) -> Finding {
    let mode = setting.and_then(|text| text.split_once('[')?.1.split_once(']'));
    match mode.map(|(mode, _)| mode) {
        Some("confidentiality") => Finding::warning(
            Code::Lockdown,
            "",
            "confidentiality: the kernel restricts what programs may read",
        )
        .fix(Fix::advice(
            "if programs do not load: boot with `lockdown=integrity`",
        )),
        Some(mode) => Finding::ok(Code::Lockdown, "", format!("{mode}: not in the way")),
        None => Finding::ok(Code::Lockdown, "", "the kernel has none"),
    }
}

/// Nothing to say from Linux 5.11 on.
fn locked_memory(kernel: &Kernel) -> Option<Finding> {
    let old = parsed(&kernel.release).is_some_and(|own| own < NO_MEMLOCK);
    if !old {
        return None;
    }
    let enough = kernel.memlock.is_none_or(|limit| limit >= LEAST_MEMLOCK);
    // With this capability the forwarder raises the limit by itself.
    if enough || kernel.has(CAP_SYS_RESOURCE) {
        return Some(Finding::ok(Code::Memlock, "", "not in the way"));
    }
    let limit = kernel.memlock.unwrap_or_default() >> 10;
    let seen = format!("{limit} KiB may be locked; on this kernel maps count against that");
    Some(
        Finding::failure(Code::Memlock, "", seen)
            .fix(Fix::here("ulimit -l unlimited"))
            .fix(Fix::advice(
                "under systemd: `LimitMEMLOCK=infinity` in the unit",
            )),
    )
}

fn clock(kernel: &Kernel) -> Finding {
    let since = kernel.now.duration_since(SystemTime::UNIX_EPOCH);
    let written = humantime::format_rfc3339_seconds(kernel.now);
    let repair = Fix::here("timedatectl set-ntp true");
    if since.unwrap_or_default() < PLAUSIBLE {
        let seen = format!("{written} cannot be: certificates will look invalid");
        return Finding::failure(Code::Clock, "", seen).fix(repair);
    }
    if !kernel.synchronised {
        let seen = format!("{written}; nothing synchronises it");
        return Finding::warning(Code::Clock, "", seen).fix(repair);
    }
    Finding::ok(Code::Clock, "", format!("{written}, synchronised"))
}

/// Whether programs can be pinned under `root`.
pub fn bpffs(root: &Path) -> Finding {
    match pins::on_bpffs(root) {
        Ok(true) => Finding::ok(
            Code::Bpffs,
            "",
            format!("{} is on a bpf file system", root.display()),
        ),
        Ok(false) => Finding::failure(
            Code::Bpffs,
            "",
            format!("{} is not on a bpf file system", root.display()),
        )
        .fix(Fix::here(mount_command(root))),
        Err(error) => Finding::failure(
            Code::Bpffs,
            "",
            format!("{} cannot be looked at: {error}", root.display()),
        )
        .fix(Fix::here(mount_command(root))),
    }
}

/// What mounts one: where distributions have it, otherwise above the directory that is asked for.
fn mount_command(root: &Path) -> String {
    let usual = Path::new("/sys/fs/bpf");
    if root.starts_with(usual) {
        return String::from("mount -t bpf bpf /sys/fs/bpf");
    }
    let above = root.parent().unwrap_or(root).display();
    format!("mkdir -p {above} && mount -t bpf bpf {above}")
}

/// Major and minor number of `6.12.43+deb13-amd64`.
pub(super) fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `CapEff` of `proc_pid_status(5)`.
fn capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// A command that does not exist: `ENOSYS` without the system call, otherwise `EINVAL` or `EPERM`.
fn has_bpf_syscall() -> bool {
    // SAFETY: the kernel refuses the command number, so that the null attribute is never read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, i32::MAX, std::ptr::null::<u8>(), 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

fn memlock() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is an rlimit that outlives the call.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    (read && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// `adjtimex(2)`: the kernel's clock is unsynchronised until something disciplines it.
fn is_synchronised() -> bool {
    // SAFETY: an all-zero timex is valid; with `modes` 0 the call only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a timex that outlives the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer >= 0 && state.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    fn healthy() -> Kernel {
        Kernel {
            release: String::from("6.12.43+deb13-amd64"),
            capabilities: u64::MAX,
            bpf_syscall: true,
            jit: Some(String::from("1")),
            btf: true,
            lockdown: Some(String::from("none [integrity] confidentiality")),
            memlock: Some(8 << 20),
            now: SystemTime::UNIX_EPOCH + PLAUSIBLE,
            synchronised: true,
        }
    }

    /// Codes of what is not as it should be.
    fn codes(change: impl FnOnce(&mut Kernel)) -> Vec<(&'static str, Verdict)> {
        let mut kernel = healthy();
        change(&mut kernel);
        let findings = judge(&kernel).into_iter();
        let bad = findings.filter(|own| own.verdict > Verdict::Skipped);
        bad.inspect(|own| assert!(!own.fixes.is_empty(), "{own:?}"))
            .map(|own| (own.code.word(), own.verdict))
            .collect()
    }

    #[test]
    fn a_healthy_kernel_draws_nothing() {
        assert_eq!(codes(|_| {}), []);
        assert_eq!(codes(|own| own.release = String::from("5.15.0")), []);
        assert_eq!(codes(|own| own.jit = None), []);
        assert_eq!(codes(|own| own.lockdown = None), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use Verdict::{Failure, Warning};
        let release = |text: &str| codes(|own| own.release = text.to_owned());
        assert_eq!(release("5.4.0-42"), [("kernel-version", Failure)]);
        assert_eq!(release("5.10.0-30-amd64"), []);
        let without = |bits: &[u32]| {
            codes(|own| {
                for bit in bits {
                    own.capabilities &= !(1 << bit);
                }
            })
        };
        assert_eq!(without(&[CAP_NET_ADMIN]), [("privileges", Failure)]);
        assert_eq!(without(&[CAP_BPF]), [], "CAP_SYS_ADMIN covers it");
        assert_eq!(
            without(&[CAP_BPF, CAP_SYS_ADMIN]),
            [("privileges", Failure)]
        );
        assert_eq!(
            codes(|own| own.bpf_syscall = false),
            [("bpf-syscall", Failure)]
        );
        assert_eq!(
            codes(|own| own.jit = Some(String::from("0"))),
            [("bpf-jit", Warning)]
        );
        assert_eq!(codes(|own| own.btf = false), [("btf", Warning)]);
        let locked = "none integrity [confidentiality]";
        assert_eq!(
            codes(|own| own.lockdown = Some(locked.to_owned())),
            [("lockdown", Warning)]
        );
        assert_eq!(codes(|own| own.synchronised = false), [("clock", Warning)]);
        assert_eq!(
            codes(|own| own.now = SystemTime::UNIX_EPOCH),
            [("clock", Failure)]
        );
        let little = |own: &mut Kernel| {
            own.release = String::from("5.10.0");
            own.capabilities &= !(1 << CAP_SYS_RESOURCE);
            own.memlock = Some(65_536);
        };
        assert_eq!(codes(little), [("memlock", Failure)]);
    }

    #[test]
    fn this_kernel_can_be_read() {
        let kernel = Kernel::here();
        assert!(parsed(&kernel.release).is_some(), "{kernel:?}");
        assert!(kernel.bpf_syscall);
    }

    #[test]
    fn the_mount_command_fits_the_place() {
        let command = |path: &str| mount_command(Path::new(path));
        assert_eq!(
            command("/sys/fs/bpf/forwarder"),
            "mount -t bpf bpf /sys/fs/bpf"
        );
        assert!(command("/srv/bpf/one").ends_with("bpf /srv/bpf"));
    }
}
