//! The tree under bpffs: what is pinned where.
//!
//! ```text
//! /sys/fs/bpf/forwarder/         --bpffs
//! └── v6/                        ABI_VERSION: another layout never meets these maps
//!     ├── FLOWS, NAMES, …        one for each map of the ABI
//!     ├── EXPIRED                flows that the sweeper ended, by path
//!     ├── STAGES                 the tail-call table of the programs that are attached
//!     ├── stages/
//!     │   ├── public-2_0         the same table again, for each interface whose program uses it
//!     │   └── tunnel-5_0
//!     └── links/
//!         ├── public-2           TCX links, by role and interface index
//!         ├── tunnel-5
//!         └── xdp-2              XDP link, while the XDP filter is attached
//! ```
//!
//! bpffs refuses dots in names, which interface names may contain; hence indices.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use forwarder_common::abi::{ABI_VERSION, map};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The maps that are pinned and outlive the daemon. Per-packet scratch is not among them, and `STAGES`
/// is made anew for each set of programs.
pub const MAPS: &[&str] = &[
    map::VIP_INDEX,
    map::VIP_SLOTS,
    map::NODE_SLOTS,
    map::VIPS,
    map::VIP_MSS,
    map::NAMES,
    map::WILDCARDS,
    map::POOLS,
    map::MAGLEV,
    map::PATHS,
    map::NODE_INDEX,
    map::NODES,
    map::FLOWS,
    map::REVERSE,
    map::SOURCE_FLOWS,
    map::HELLOS,
    map::HELLO_INDEX,
    map::HELLO_FREE,
    map::HELLO_LOST,
    map::SOURCE_PORTS,
    map::PORT_FLOWS,
    map::CLOSED,
    map::COOKIE_KEYS,
    map::SETTINGS,
    map::SOURCE_RULES,
    map::PUBLIC_LINKS,
    map::DROPS,
    map::PATH_STATS,
    map::NODE_STATS,
    map::LISTENER_STATS,
    map::EVENTS,
    map::TALLIES,
];

/// First word of the pin of an XDP link.
const XDP: &str = "xdp";
/// The same in the tree of ABI version 5, which is taken over.
const V5_XDP: &str = "armour";

/// The sweeper's own counters, which no program reads.
pub const EXPIRED: &str = "EXPIRED";

/// Why the tree cannot be used.
#[derive(Debug, Error)]
pub enum PinsError {
    /// No bpffs is mounted there.
    #[error("{} is not on a bpf file system; `mount -t bpf bpf /sys/fs/bpf` mounts one", path.display())]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of the forwarder is attached there.
    #[error(
        "{} holds the maps of another version of the forwarder, whose flows this one (layout v{ABI_VERSION}) \
         cannot take over. What is loaded goes on forwarding as configured last. Either start the version \
         that loaded it; or change over, which ends its open flows: \
         `forwarder unload --yes --bpffs {root}`, then `forwarder run --bpffs {root}` \
         (as a service: `systemctl start forwarder`)",
        path.display(),
        root = root.display()
    )]
    OtherVersion {
        /// Its directory.
        path: PathBuf,
        /// The directory the user named.
        root: PathBuf,
    },
    /// An operation on the tree failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinsError {
    let path = path.to_owned();
    move |source| PinsError::Io {
        action,
        path,
        source,
    }
}

/// On which side of the entrance an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Faces clients.
    Public,
    /// Leads to nodes.
    Tunnel,
}

impl Side {
    /// The word in pins, logs and `status`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Tunnel => "tunnel",
        }
    }
}

/// The tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    version: PathBuf,
}

impl Pins {
    /// The tree under `root`, whether it exists or not.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            version: root.join(format!("v{ABI_VERSION}")),
        }
    }

    /// The directory the user named.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.version.join(name)
    }

    /// Pin of the tail-call table in use.
    pub fn stages(&self) -> PathBuf {
        self.map(map::STAGES)
    }

    /// Pin of a tail-call table that is not in use yet.
    pub fn stages_new(&self) -> PathBuf {
        self.version.join("STAGES_new")
    }

    /// A pin that nobody has, for the tail-call table of the program that is about to be attached there.
    pub fn free_stages_of(&self, side: Side, ifindex: u32) -> PathBuf {
        let name = |n: u32| {
            self.stages_in_use()
                .join(format!("{}-{ifindex}_{n}", side.word()))
        };
        // There is at most one for every start that was interrupted at this very place.
        let free = (0..u32::MAX).map(name).find(|path| !path.exists());
        free.unwrap_or_else(|| name(u32::MAX))
    }

    /// Pins of the tail-call tables of attached programs. The kernel empties a table that is neither open nor
    /// pinned, although programs still use it: so each stays until another program has taken its place, even
    /// if starts are interrupted in between.
    pub fn attached_stages(&self) -> Result<Vec<(Side, u32, PathBuf)>, PinsError> {
        places_in(&self.stages_in_use(), |name| {
            let (place, number) = name.rsplit_once('_')?;
            number.parse::<u32>().ok()?;
            parse_link(place)
        })
    }

    fn stages_in_use(&self) -> PathBuf {
        self.version.join("stages")
    }

    /// Pin of a TCX link.
    pub fn link(&self, side: Side, ifindex: u32) -> PathBuf {
        self.links().join(format!("{}-{ifindex}", side.word()))
    }

    /// Pin of the link of an interface's XDP filter.
    pub fn xdp(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{XDP}-{ifindex}"))
    }

    fn links(&self) -> PathBuf {
        self.version.join("links")
    }

    /// Makes the directories, and refuses a tree of another version, unless its flows can be taken over: then that is
    /// returned.
    pub fn prepare(
        &self,
        can_take_over: impl Fn(&Path) -> bool,
    ) -> Result<Option<PathBuf>, PinsError> {
        let parent = existing_ancestor(&self.root);
        if !is_bpffs(&parent).map_err(failed("inspect", &parent))? {
            return Err(PinsError::NotBpffs {
                path: self.root.clone(),
            });
        }
        let mut predecessor = None;
        for version in self.other_versions()? {
            if !can_take_over(&version) {
                return Err(PinsError::OtherVersion {
                    path: version,
                    root: self.root.clone(),
                });
            }
            predecessor = Some(version);
        }
        for directory in [self.links(), self.stages_in_use()] {
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        }
        Ok(predecessor)
    }

    /// The directories of other versions whose programs may be attached.
    pub fn other_versions(&self) -> Result<Vec<PathBuf>, PinsError> {
        let mut all = self.versions()?;
        all.retain(|version| *version != self.version && version.join("links").is_dir());
        Ok(all)
    }

    /// Whether maps are pinned here, that is, whether there is something to adopt or to unload.
    pub fn exists(&self) -> bool {
        self.map(map::FLOWS).exists()
    }

    /// Room of the pinned flow table; 0 if it cannot be inspected.
    pub fn max_flows(&self) -> u32 {
        entries(&self.map(map::FLOWS))
    }

    /// The maps that are pinned here.
    pub fn pinned_maps(&self) -> impl Iterator<Item = &'static str> {
        MAPS.iter().copied().filter(|name| self.map(name).exists())
    }

    /// The links of traffic-control programs that are pinned here.
    pub fn pinned_links(&self) -> Result<Vec<(Side, u32, PathBuf)>, PinsError> {
        links_in(&self.version)
    }

    /// The pin of the XDP link of an interface: the one that is there, by whatever name, or where one belongs.
    pub fn xdp_of(&self, ifindex: u32) -> Result<PathBuf, PinsError> {
        let mut pinned = self.pinned_xdp()?.into_iter();
        let found = pinned.find(|(own, _)| *own == ifindex);
        Ok(found.map_or_else(|| self.xdp(ifindex), |(_, path)| path))
    }

    /// The interfaces that have the XDP filter attached, by their index, and the pins of their links.
    pub fn pinned_xdp(&self) -> Result<Vec<(u32, PathBuf)>, PinsError> {
        xdp_in(&self.version)
    }

    /// The links that are pinned here by any version.
    pub fn all_links(&self) -> Result<Vec<(Side, u32, PathBuf)>, PinsError> {
        let mut all = Vec::new();
        for version in self.versions()? {
            all.extend(links_in(&version)?);
        }
        Ok(all)
    }

    /// Removes the maps and tables of this version, so that they are made anew. Links stay.
    pub fn remove_maps(&self) -> Result<(), PinsError> {
        for name in MAPS {
            remove_file(&self.map(name))?;
        }
        remove_file(&self.map(EXPIRED))?;
        remove_file(&self.stages())?;
        remove_file(&self.stages_new())
    }

    /// Removes everything, of every version. TCX links detach with their last pin.
    pub fn remove_all(&self) -> Result<(), PinsError> {
        for version in self.versions()? {
            remove_tree(&version)?;
        }
        match fs::remove_dir(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Something else is kept there; that is not ours to remove.
                tracing::debug!(path = %self.root.display(), %error, "directory kept");
            }
            _ => {}
        }
        Ok(())
    }

    /// The directories of all versions.
    pub fn versions(&self) -> Result<Vec<PathBuf>, PinsError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.root)(error)),
        };
        let mut versions = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.root))?.path();
            let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
            let digits = name.strip_prefix(b"v").unwrap_or_default();
            if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
                versions.push(path);
            }
        }
        Ok(versions)
    }
}

/// Entries of a pinned map; 0 if it cannot be inspected.
pub fn entries(path: &Path) -> u32 {
    MapInfo::from_pin(path).map_or(0, |info| info.max_entries())
}

/// The links of traffic-control programs in the tree of one version.
pub fn links_in(version: &Path) -> Result<Vec<(Side, u32, PathBuf)>, PinsError> {
    places_in(&version.join("links"), parse_link)
}

/// The links of XDP programs in the tree of one version.
pub fn xdp_in(version: &Path) -> Result<Vec<(u32, PathBuf)>, PinsError> {
    pins_in(&version.join("links"), parse_xdp)
}

/// The pins of a directory that belong to interfaces, by what their names say.
fn places_in(
    directory: &Path,
    parse: impl Fn(&str) -> Option<(Side, u32)>,
) -> Result<Vec<(Side, u32, PathBuf)>, PinsError> {
    let found = pins_in(directory, parse)?.into_iter();
    Ok(found
        .map(|((side, ifindex), path)| (side, ifindex, path))
        .collect())
}

/// The pins of a directory whose names mean something, in the order of what they mean.
fn pins_in<N: Ord>(
    directory: &Path,
    parse: impl Fn(&str) -> Option<N>,
) -> Result<Vec<(N, PathBuf)>, PinsError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("list", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(&parse) {
            found.push((name, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn parse_link(name: &str) -> Option<(Side, u32)> {
    let (side, ifindex) = name.split_once('-')?;
    let side = [Side::Public, Side::Tunnel]
        .into_iter()
        .find(|known| known.word() == side)?;
    Some((side, ifindex.parse().ok()?))
}

fn parse_xdp(name: &str) -> Option<u32> {
    let (kind, ifindex) = name.split_once('-')?;
    (kind == XDP || kind == V5_XDP).then(|| ifindex.parse().ok())?
}

/// Removes a file that may be absent.
pub fn remove_file(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), PinsError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether something can be pinned at `path`, which need not exist yet.
pub fn on_bpffs(path: &Path) -> io::Result<bool> {
    is_bpffs(&existing_ancestor(path))
}

fn existing_ancestor(path: &Path) -> PathBuf {
    let mut ancestors = path.ancestors();
    let found = ancestors.find(|ancestor| ancestor.exists());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statfs is valid, it is only written to by the call below.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in a NUL and `status` is a statfs; both outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut status) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status.f_type as u64 == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_the_version() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/forwarder"));
        let version = format!("/sys/fs/bpf/forwarder/v{ABI_VERSION}");
        assert_eq!(pins.map("FLOWS"), Path::new(&version).join("FLOWS"));
        assert_eq!(
            pins.link(Side::Tunnel, 5),
            Path::new(&version).join("links/tunnel-5")
        );
    }

    #[test]
    fn link_names_are_read_back() {
        assert_eq!(parse_link("public-2"), Some((Side::Public, 2)));
        assert_eq!(parse_link("tunnel-17"), Some((Side::Tunnel, 17)));
        assert_eq!(parse_link("xdp-2"), None);
        assert_eq!(parse_xdp("xdp-2"), Some(2));
        assert_eq!(parse_xdp("armour-2"), Some(2), "of version 5");
        assert_eq!(parse_xdp("public-2"), None);
        assert_eq!(parse_link("other-2"), None);
        assert_eq!(parse_link("public-x"), None);
    }

    #[test]
    fn the_link_of_an_xdp_filter_is_found_by_either_name() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::new(folder.path());
        let links = pins.xdp(2).parent().unwrap().to_owned();
        std::fs::create_dir_all(&links).unwrap();
        assert_eq!(pins.xdp_of(2).unwrap(), links.join("xdp-2"));
        std::fs::write(links.join("armour-2"), "").unwrap();
        assert_eq!(pins.xdp_of(2).unwrap(), links.join("armour-2"));
        assert_eq!(pins.xdp_of(3).unwrap(), links.join("xdp-3"));
    }

    #[test]
    fn tables_in_use_are_told_by_their_interface() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        fs::create_dir_all(pins.stages_in_use()).unwrap();
        let first = pins.free_stages_of(Side::Public, 2);
        fs::write(&first, "").unwrap();
        let second = pins.free_stages_of(Side::Public, 2);
        assert_ne!(first, second);
        fs::write(&second, "").unwrap();
        let found = pins.attached_stages().unwrap();
        let expected = [(Side::Public, 2, first), (Side::Public, 2, second)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(&directory.path().join("forwarder"));
        let error = pins.prepare(|_| false).unwrap_err();
        assert!(matches!(error, PinsError::NotBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"));
    }

    #[test]
    fn versions_are_found_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("forwarder");
        for name in ["v1/links", "v22", "vendor", "w3"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["v1/links/tunnel-3", "v22/links/public-2", "v22/FLOWS"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        let pins = Pins::new(&root);
        assert_eq!(pins.versions().unwrap().len(), 2);
        assert_eq!(pins.all_links().unwrap().len(), 2);
        pins.remove_all().unwrap();
        assert!(!root.join("v1").exists());
        assert!(root.join("vendor").exists(), "not ours");
    }
}
