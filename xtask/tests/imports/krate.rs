//! A crate: its files, its modules, and which file takes something from which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::paths::File;

/// A module's path within its crate.
pub type Module = Vec<String>;

/// One crate, read.
#[derive(Default)]
pub struct Crate {
    /// The file that each module stands in.
    pub file_of: BTreeMap<Module, String>,
    /// The module that each file holds.
    pub module_of: BTreeMap<String, Module>,
    files: BTreeMap<String, File>,
}

/// One file takes an item from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file that takes it.
    pub by: String,
    /// The file that defines it.
    pub from: String,
    /// The item.
    pub item: String,
}

impl Crate {
    /// Reads a crate from its root file, `path` below `root`.
    pub fn read(root: &Path, path: &str) -> Self {
        let mut krate = Self::default();
        krate.add(Vec::new(), path, &|path| {
            fs::read_to_string(root.join(path)).ok()
        });
        krate
    }

    /// A crate of these files. The first is its root.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        let mut krate = Self::default();
        krate.add(Vec::new(), "lib.rs", &|path| {
            files.get(path).map(|&text| text.to_owned())
        });
        krate
    }

    fn add(&mut self, module: Module, path: &str, text: &dyn Fn(&str) -> Option<String>) {
        let file = File::read(&text(path).unwrap_or_else(|| panic!("{path} cannot be read")));
        let (folder, name) = path
            .rsplit_once('/')
            .map_or(("", path), |(folder, name)| (folder, name));
        let folder = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let below = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.clone(),
            _ => format!("{folder}{}/", name.trim_end_matches(".rs")),
        };
        for (child, given) in file.modules.clone() {
            let place = match given {
                Some(given) => format!("{folder}{given}"),
                None => [
                    format!("{below}{child}.rs"),
                    format!("{below}{child}/mod.rs"),
                ]
                .into_iter()
                .find(|path| text(path).is_some())
                .unwrap_or_else(|| panic!("no file for `mod {child}` of {path}")),
            };
            self.add([module.clone(), vec![child]].concat(), &place, text);
        }
        for inline in &file.inline_modules {
            let inline = [module.clone(), inline.clone()].concat();
            self.file_of.insert(inline, path.to_owned());
        }
        self.file_of.insert(module.clone(), path.to_owned());
        self.module_of.insert(path.to_owned(), module);
        self.files.insert(path.to_owned(), file);
    }

    /// All imports from one file of another, and of modules of one another.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (path, file) in &self.files {
            let own = &self.module_of[path];
            let mut note = |inline: &[String], segments: &[String]| {
                let module = [own.as_slice(), inline].concat();
                let Some(from) = self.definer(&module, segments, 0) else {
                    return;
                };
                if from != *path {
                    imports.insert(Import {
                        by: path.clone(),
                        from,
                        item: segments.join("::"),
                    });
                }
            };
            for named in &file.named {
                note(&named.inline, &named.segments);
            }
            // A module that gives out what its children define does not need them.
            for given in &file.re_exports {
                let module = [own.as_slice(), &given.inline].concat();
                let inside = self.absolute(&module, &given.segments);
                if !inside.is_some_and(|path| path.starts_with(&module)) {
                    note(&given.inline, &given.segments);
                }
            }
        }
        imports
    }

    /// A path from the root of the crate on; `None` for one of another crate or of an item that is in scope.
    fn absolute(&self, module: &[String], segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            _ => {
                let child = [module, std::slice::from_ref(first)].concat();
                return self
                    .file_of
                    .contains_key(&child)
                    .then(|| [module, segments].concat());
            }
        };
        let mut rest = rest;
        while let Some((first, more)) = rest.split_first() {
            if first != "super" {
                break;
            }
            base.pop()?;
            rest = more;
        }
        Some([base, rest.to_vec()].concat())
    }

    /// The file that defines what a path in a module leads to.
    fn definer(&self, module: &[String], segments: &[String], depth: usize) -> Option<String> {
        let path = self.absolute(module, segments)?;
        let known = (0..=path.len())
            .rev()
            .find(|&n| self.file_of.contains_key(&path[..n]))?;
        let (place, rest) = path.split_at(known);
        let file = &self.file_of[place];
        let Some(name) = rest.first().filter(|_| depth < 8) else {
            return Some(file.clone());
        };
        let own = &self.module_of[file];
        let given = self.files[file]
            .re_exports
            .iter()
            .find(|given| given.name == *name && [own.as_slice(), &given.inline].concat() == place);
        given
            .and_then(|given| {
                let onwards = [given.segments.as_slice(), &rest[1..]].concat();
                self.definer(place, &onwards, depth + 1)
            })
            .or_else(|| Some(file.clone()))
    }
}
