//! Distribution kernels: Debian's cloud images, fetched once and unpacked into the cache.
//!
//! The cache keeps them because mirrors drop old versions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::debian::{Apt, Suite};
use crate::workspace::Workspace;

/// An unpacked kernel.
pub struct Kernel {
    /// The image to boot.
    pub image: PathBuf,
    /// Its modules, `lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// A kernel series and where it is had.
struct Series {
    name: &'static str,
    package: Packages,
    suites: &'static [Suite<'static>],
}

/// Which package of its suites is the kernel.
#[derive(Clone, Copy)]
enum Packages {
    /// What the suite has by default.
    Newest,
    /// The newest of that series: backports keep older ones.
    OfSeries,
}

const DEFAULT: &str = "linux-image-cloud-amd64";

const BACKPORTS: &[Suite<'static>] = &[Suite {
    name: "trixie-backports",
    security: false,
}];

/// Debian has had no 5.15 and no 6.8 in a release.
const SERIES: &[Series] = &[
    Series {
        name: "5.10",
        package: Packages::Newest,
        suites: &[Suite {
            name: "bullseye-security",
            security: true,
        }],
    },
    Series {
        name: "6.1",
        package: Packages::Newest,
        suites: &[
            Suite {
                name: "bookworm",
                security: false,
            },
            Suite {
                name: "bookworm-security",
                security: true,
            },
        ],
    },
    Series {
        name: "6.12",
        package: Packages::Newest,
        suites: &[
            Suite {
                name: "trixie",
                security: false,
            },
            Suite {
                name: "trixie-security",
                security: true,
            },
        ],
    },
    backported("6.16"),
    backported("6.17"),
    backported("6.18"),
    backported("6.19"),
    backported("7.0"),
    backported("7.1"),
    backported("7.2"),
    backported("7.3"),
    Series {
        name: "newest",
        package: Packages::Newest,
        suites: BACKPORTS,
    },
];

const fn backported(name: &'static str) -> Series {
    Series {
        name,
        package: Packages::OfSeries,
        suites: BACKPORTS,
    }
}

/// The names that `--kernel` takes.
pub fn names() -> Vec<&'static str> {
    SERIES.iter().map(|series| series.name).collect()
}

/// The newest kernel of a series, from the cache where it is there.
pub fn provide(workspace: &Workspace, name: &str) -> Result<Kernel> {
    let series = SERIES
        .iter()
        .find(|series| series.name == name)
        .with_context(|| format!("no kernel {name}: there are {}", names().join(", ")))?;
    let root = workspace.cache().join("kernels").join(name);
    if let Ok(kernel) = find(&root) {
        return Ok(kernel);
    }
    eprintln!("  kernel {name} goes into {}", workspace.shown(&root));
    let apt = Apt::with_suites(workspace, &format!("kernel-{name}"), series.suites)?;
    apt.refresh()?;
    let images = match series.package {
        Packages::Newest => images(apt.dependencies(DEFAULT)?),
        Packages::OfSeries => vec![newest_of(name, &apt.names("-cloud-amd64")?)?],
    };
    let mut packages = BTreeSet::new();
    for image in &images {
        packages.insert(apt.newest(image)?);
        // Since 6.17 an image may be split.
        for part in images_of(&apt, image)? {
            packages.insert(apt.newest(&part)?);
        }
    }
    if packages.is_empty() {
        bail!("{DEFAULT} of {name} names no kernel image");
    }
    apt.unpack(&packages, &root)?;
    find(&root)
}

fn images(packages: Vec<String>) -> Vec<String> {
    let is_image = |own: &String| {
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|it| own.starts_with(it))
    };
    packages.into_iter().filter(is_image).collect()
}

fn images_of(apt: &Apt, image: &str) -> Result<Vec<String>> {
    Ok(images(apt.dependencies(image)?))
}

/// Of package names like `linux-image-6.18.15+deb13-cloud-amd64` the newest of a series.
fn newest_of(series: &str, names: &[String]) -> Result<String> {
    let release = |name: &str| -> Option<u32> {
        let rest = name.strip_prefix("linux-image-")?.strip_prefix(series)?;
        rest.strip_prefix('.')?.split('+').next()?.parse().ok()
    };
    let newest = names
        .iter()
        .filter_map(|name| Some((release(name)?, name)))
        .max();
    let (_, name) =
        newest.with_context(|| format!("the archive has no kernel {series} any more"))?;
    Ok(name.clone())
}

fn find(root: &Path) -> Result<Kernel> {
    let entry = |folder: &str, prefix: &str| -> Result<PathBuf> {
        fs::read_dir(root.join(folder))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .with_context(|| format!("no {prefix}* in {}/{folder}", root.display()))
    };
    let modules = entry("lib/modules", "").or_else(|_| entry("usr/lib/modules", ""))?;
    // Beside its modules in Debian's packages since 7.x.
    let beside = modules.join("vmlinuz");
    let image = if beside.exists() {
        beside
    } else {
        entry("boot", "vmlinuz")?
    };
    Ok(Kernel { image, modules })
}

#[cfg(test)]
mod tests {
    use super::newest_of;

    #[test]
    fn the_newest_of_a_series_is_by_number() {
        let names = [
            "6.18.9+deb13",
            "6.18.15+deb13",
            "6.1.99+deb13",
            "6.19.20+deb13",
            "7.3",
        ]
        .map(|version| format!("linux-image-{version}-cloud-amd64"));
        let newest = newest_of("6.18", &names).unwrap();
        assert_eq!(newest, "linux-image-6.18.15+deb13-cloud-amd64");
        assert!(newest_of("7.4", &names).is_err());
    }
}
