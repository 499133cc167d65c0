//! Where things are: the checkout, its build folder and its cache folder.
//!
//! The cache holds what takes long to make or comes from elsewhere (the BPF linker, unpacked
//! Debian packages, kernels). It is outside git, safe to delete, and holds nothing else.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout that this xtask is run in.
pub struct Workspace {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the checkout. `FORWARDER_CACHE` moves the cache, `CARGO_TARGET_DIR` the build folder.
    pub fn locate() -> Result<Self> {
        let here = env::current_dir().context("the current folder is gone")?;
        // Cargo tells the one it runs. Where this was compiled tells nothing: build folders are copied, too.
        let told = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = root_above(told.as_deref().unwrap_or(&here))
            .or_else(|| root_above(&here))
            .context("no checkout here: start this as `cargo xtask` within one")?;
        let moved = |variable: &str, default: &str| match env::var_os(variable) {
            Some(path) if !path.is_empty() => here.join(path),
            _ => root.join(default),
        };
        Ok(Self {
            cache: moved("FORWARDER_CACHE", ".cache"),
            target: moved("CARGO_TARGET_DIR", "target"),
            root,
        })
    }

    /// The top folder of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cache folder; it may not exist yet.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Cargo's build folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Programs of the lab that the machine lacks: wrappers that run the unpacked ones.
    /// The lab puts this folder first in `PATH`.
    pub fn cached_programs(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// Shows `path` relative to the checkout where it lies within.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The nearest folder at or above this one that has an xtask.
fn root_above(folder: &Path) -> Option<PathBuf> {
    let mut folders = folder.ancestors();
    let root = folders.find(|own| own.join("xtask/Cargo.toml").is_file())?;
    Some(root.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::root_above;

    #[test]
    fn the_checkout_is_found_from_within() {
        let folder = std::env::temp_dir().join(format!("xtask-workspace-{}", std::process::id()));
        let deep = folder.join("copy/tests/src");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(folder.join("copy/xtask")).unwrap();
        assert_eq!(root_above(&deep), None);
        fs::write(folder.join("copy/xtask/Cargo.toml"), "").unwrap();
        for within in [deep, folder.join("copy"), folder.join("copy/xtask")] {
            assert_eq!(root_above(&within), Some(folder.join("copy")));
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
