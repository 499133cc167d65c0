//! Where things are: the checkout, its build folder and its cache folder.
//!
//! The cache holds what takes long to make or comes from elsewhere (the BPF linker, unpacked
//! Debian packages, kernels). It is outside git, safe to delete, and holds nothing else.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout that this xtask was built from.
pub struct Workspace {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the checkout. `FORWARDER_CACHE` moves the cache, `CARGO_TARGET_DIR` the build folder.
    pub fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        let here = env::current_dir().context("the current folder is gone")?;
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
