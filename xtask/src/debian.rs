//! Debian packages without installing them: found with apt, unpacked into the cache.
//!
//! apt runs on a package list of its own under the cache, so nothing here needs root or changes
//! the machine: it reads the machine's sources and its list of installed packages, no more.
//! Packages that would start a service or replace something are thus only ever unpacked.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Package lists older than this are fetched again before something is downloaded.
const LISTS_LAST: Duration = Duration::from_secs(24 * 3600);

/// Debian's keys, where the machine keeps them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that reads the machine's sources but keeps its state under the cache.
pub struct Apt<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    /// Options that replace the machine's sources, empty for the machine's own.
    sources: Vec<OsString>,
}

/// One suite of a Debian mirror.
#[derive(Clone, Copy)]
pub struct Suite<'n> {
    /// Its code name.
    pub name: &'n str,
    /// Whether it lies in the security archive.
    pub security: bool,
}

struct Mirrors {
    main: String,
    security: String,
}

/// One package as apt resolved it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    name: String,
    version: String,
}

impl<'a> Apt<'a> {
    /// apt over the machine's own sources. Fails where there is no apt.
    pub fn new(workspace: &'a Workspace) -> Result<Self> {
        if !on_path("apt-get") || !on_path("dpkg") {
            bail!("apt-get and dpkg are needed to fetch tools, and this machine lacks them");
        }
        Ok(Self {
            workspace,
            folder: workspace.cache().join("apt"),
            sources: Vec::new(),
        })
    }

    /// apt over suites of a Debian mirror instead of the machine's sources; `name` tells their
    /// state from others in the cache.
    pub fn with_suites(workspace: &'a Workspace, name: &str, suites: &[Suite<'_>]) -> Result<Self> {
        let mut apt = Self::new(workspace)?;
        let mirrors = apt.mirrors()?;
        let signed = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let mut list = String::new();
        for suite in suites {
            let mirror = if suite.security {
                &mirrors.security
            } else {
                &mirrors.main
            };
            list.push_str(&format!("deb {signed}{mirror} {} main\n", suite.name));
        }
        apt.folder = workspace.cache().join("apt-".to_owned() + name);
        fs::create_dir_all(&apt.folder)?;
        let file = apt.sources_list();
        fs::write(&file, list).with_context(|| format!("cannot write {}", file.display()))?;
        apt.sources = vec![
            "-o".into(),
            option("Dir::Etc::sourcelist", &file),
            "-o".into(),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "-o".into(),
            "APT::Architecture=amd64".into(),
        ];
        Ok(apt)
    }

    /// The list of sources that [`Self::with_suites`] wrote.
    pub fn sources_list(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    /// Where this machine gets Debian from, or what `FORWARDER_DEBIAN_MIRROR` says.
    fn mirrors(&self) -> Result<Mirrors> {
        if let Ok(mirror) = std::env::var("FORWARDER_DEBIAN_MIRROR") {
            let mirror = mirror.trim_end_matches('/');
            return Ok(Mirrors {
                main: mirror.to_owned(),
                security: format!("{mirror}-security"),
            });
        }
        let targets = process::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let of = |label: &str| {
            targets
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(it, _)| *it == label)
                .map(|(_, address)| address.trim_end_matches('/').to_owned())
        };
        let main = of("Debian").context(
            "this machine has no Debian source: name a mirror in FORWARDER_DEBIAN_MIRROR, \
             its address up to and including `/debian`",
        )?;
        let security = of("Debian-Security").unwrap_or_else(|| format!("{main}-security"));
        Ok(Mirrors { main, security })
    }

    /// The packages that `package` depends on directly.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let listing = process::output(self.command("apt-cache").args(["depends", package]))?;
        Ok(listing
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .collect())
    }

    /// All packages whose names end so.
    pub fn names(&self, ending: &str) -> Result<Vec<String>> {
        let listing = process::output(self.command("apt-cache").arg("pkgnames"))?;
        let names = listing.lines().filter(|name| name.ends_with(ending));
        Ok(names.map(str::to_owned).collect())
    }

    /// The newest version of `package`.
    pub fn newest(&self, package: &str) -> Result<Package> {
        let listing = process::output(self.command("apt-cache").args([
            "show",
            "--no-all-versions",
            package,
        ]))?;
        let version = listing
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))
            .with_context(|| format!("there is no package {package}"))?;
        Ok(Package {
            name: package.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Fetches the package lists when they are absent or older than a day.
    pub fn refresh(&self) -> Result<()> {
        let stamp = self.folder.join("fetched");
        let fresh = fs::metadata(&stamp)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .is_some_and(|age| age < LISTS_LAST);
        if fresh {
            return Ok(());
        }
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        process::step(
            self.workspace,
            "apt-update",
            "fetching Debian's package lists",
            self.command("apt-get").arg("update"),
        )?;
        fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// What installing `packages` would add to this machine: they and what they need that is
    /// absent or too old.
    pub fn missing_closure(&self, packages: &BTreeSet<&str>) -> Result<BTreeSet<Package>> {
        let plan = process::output(
            self.command("apt-get")
                .args(["--simulate", "--no-install-recommends", "install"])
                .args(packages),
        )?;
        Ok(plan.lines().filter_map(Package::from_plan).collect())
    }

    /// Downloads `packages` and unpacks them under `root`. The archives are removed again.
    pub fn unpack(&self, packages: &BTreeSet<Package>, root: &Path) -> Result<()> {
        let archives = self.folder.join("download");
        if archives.exists() {
            fs::remove_dir_all(&archives)?;
        }
        fs::create_dir_all(&archives)?;
        fs::create_dir_all(root)?;
        process::step(
            self.workspace,
            "apt-download",
            &format!("downloading {} Debian packages", packages.len()),
            self.command("apt-get")
                .arg("download")
                .args(packages.iter().map(Package::exact))
                .current_dir(&archives),
        )?;
        for entry in fs::read_dir(&archives)? {
            let archive = entry?.path();
            process::output(Command::new("dpkg").arg("-x").arg(&archive).arg(root))
                .with_context(|| format!("cannot unpack {}", archive.display()))?;
        }
        fs::remove_dir_all(&archives).context("cannot remove the downloaded archives")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-o")
            .arg(option("Dir::State", &self.folder.join("state")))
            .arg("-o")
            .arg(option(
                "Dir::State::status",
                Path::new("/var/lib/dpkg/status"),
            ))
            .arg("-o")
            .arg(option("Dir::Cache", &self.folder.join("cache")))
            .args(["-o", "Acquire::Languages=none"])
            .args([
                "-o",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            ])
            .args(&self.sources)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }
}

impl Package {
    /// Reads a line of `apt-get --simulate install`: `Inst NAME [OLD] (VERSION SUITE [ARCH])`.
    fn from_plan(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("Inst ")?.split(' ');
        let name = words.next()?.to_owned();
        let version = words.find_map(|word| word.strip_prefix('('))?.to_owned();
        Some(Self { name, version })
    }

    fn exact(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// An option for apt's `-o`.
fn option(key: &str, value: &Path) -> OsString {
    let mut option = OsString::from(format!("{key}="));
    option.push(value);
    option
}

/// The machine's program of that name, if there is one in `PATH` or a system folder that a plain
/// user's `PATH` lacks.
pub fn machine_program(name: &str, except: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|folder| folder != except)
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn on_path(name: &str) -> bool {
    machine_program(name, Path::new("")).is_some()
}

/// Whether `path` is a file that may be run.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::Package;

    #[test]
    fn plan_lines_give_name_and_version() {
        let package = |name: &str, version: &str| {
            Some(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            })
        };
        let new = "Inst tcpdump (4.99.3-1 Debian:12.15/oldstable [amd64])";
        assert_eq!(Package::from_plan(new), package("tcpdump", "4.99.3-1"));
        let upgrade = "Inst libc6:i386 [2.36-8] (2.36-9 Debian:12/oldstable [i386]) []";
        assert_eq!(Package::from_plan(upgrade), package("libc6:i386", "2.36-9"));
        assert_eq!(Package::from_plan("Remv qemu-utils [1:10.0.2]"), None);
        assert_eq!(Package::from_plan("Conf tcpdump (4.99.3-1)"), None);
    }
}
