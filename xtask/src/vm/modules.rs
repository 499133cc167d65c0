//! Kernel modules for the guest: those named and all they depend on, in the order of insertion.
//!
//! An unpacked kernel package has no `modules.dep` (its installation would make it), so the
//! dependencies are read from the modules: `.modinfo` is a list of `key=value` strings, each with
//! a NUL, of which `depends` and `softdep` matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// One module, decompressed.
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF object.
    pub content: Vec<u8>,
}

/// The modules under `folder` (`lib/modules/VERSION`) that make `wanted` work; what is built into
/// the kernel is left out.
pub fn closure(workspace: &Workspace, folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut search = Search {
        workspace,
        files: files(folder)?,
        builtin: builtin(folder)?,
        seen: BTreeSet::new(),
        ordered: Vec::new(),
    };
    for name in wanted {
        if !search.add(name)? {
            bail!("the kernel has no module {name}");
        }
    }
    Ok(search.ordered)
}

struct Search<'a> {
    workspace: &'a Workspace,
    files: BTreeMap<String, PathBuf>,
    // Not known of every kernel.
    builtin: Option<BTreeSet<String>>,
    seen: BTreeSet<String>,
    ordered: Vec<Module>,
}

impl Search<'_> {
    /// Adds a module after those it needs; false when the kernel has none of that name.
    fn add(&mut self, name: &str) -> Result<bool> {
        let name = name.replace('-', "_");
        let builtin = self.builtin.as_ref();
        if builtin.is_some_and(|own| own.contains(&name)) || self.seen.contains(&name) {
            return Ok(true);
        }
        let Some(file) = self.files.get(&name).cloned() else {
            return Ok(builtin.is_none());
        };
        self.seen.insert(name.clone());
        let content = decompressed(self.workspace, &file)?;
        for needed in dependencies(&content, "depends=") {
            if !self.add(&needed)? {
                bail!("module {name} needs {needed}, which the kernel lacks");
            }
        }
        // Soft ones are often alternatives (an accelerated cipher): absent is fine.
        for wished in dependencies(&content, "softdep=") {
            self.add(&wished)?;
        }
        self.ordered.push(Module { name, content });
        Ok(true)
    }
}

/// The names in all `.modinfo` strings that start with `key`.
fn dependencies(content: &[u8], key: &str) -> Vec<String> {
    content
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(key.as_bytes()))
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split([',', ' ']))
        .filter(|word| !word.is_empty() && !word.ends_with(':'))
        .map(str::to_owned)
        .collect()
}

fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.join("kernel")];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some((name, _)) = path
                .file_name()
                .and_then(|name| name.to_str()?.split_once(".ko"))
            {
                found.insert(name.replace('-', "_"), path);
            }
        }
    }
    Ok(found)
}

/// What the kernel has within itself. Debian's packages since 7.x lack the list: then whatever is no module is taken to be
/// there, and the test in the guest would find otherwise.
fn builtin(folder: &Path) -> Result<Option<BTreeSet<String>>> {
    let list = folder.join("modules.builtin");
    if !list.exists() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let names = text
        .lines()
        .filter_map(|line| line.rsplit('/').next()?.split_once(".ko"))
        .map(|(name, _)| name.replace('-', "_"));
    Ok(Some(names.collect()))
}

fn decompressed(workspace: &Workspace, file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new(workspace.cached_programs().join("busybox"))
        .args(["unxz", "-c"])
        .arg(file)
        .output()
        .context("cannot run busybox unxz")?;
    if !output.status.success() {
        bail!("cannot decompress {}", file.display());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_come_from_nul_terminated_strings() {
        let info = b"\x7fELF\0license=GPL\0depends=udp_tunnel,libchacha\0softdep=pre: aes-ni\0";
        assert_eq!(dependencies(info, "depends="), ["udp_tunnel", "libchacha"]);
        assert_eq!(dependencies(info, "softdep="), ["aes-ni"]);
        assert!(dependencies(b"\0depends=\0", "depends=").is_empty());
    }
}
