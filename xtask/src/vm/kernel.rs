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

/// A kernel series and the suites that supply it.
struct Series {
    name: &'static str,
    package: &'static str,
    suites: &'static [Suite<'static>],
}

const SERIES: &[Series] = &[
    Series {
        name: "5.10",
        package: "linux-image-cloud-amd64",
        suites: &[Suite {
            name: "bullseye-security",
            security: true,
        }],
    },
    Series {
        name: "6.1",
        package: "linux-image-cloud-amd64",
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
        package: "linux-image-cloud-amd64",
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
];

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
    let mut packages = BTreeSet::new();
    for package in apt.dependencies(series.package)? {
        if package.starts_with("linux-image-") || package.starts_with("linux-binary-") {
            packages.insert(apt.newest(&package)?);
        }
    }
    if packages.is_empty() {
        bail!("{} of {name} names no kernel image", series.package);
    }
    apt.unpack(&packages, &root)?;
    find(&root)
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
    Ok(Kernel {
        image: entry("boot", "vmlinuz")?,
        modules,
    })
}
