//! Cycles among files, and among the modules of one parent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::krate::{Crate, Import, Module};

/// Members that all lead to each other.
#[derive(Debug)]
pub struct Cycle {
    /// Files, or modules.
    pub members: Vec<String>,
    imports: Vec<Import>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  cycle: {:?}", self.members)?;
        for Import { by, from, item } in &self.imports {
            writeln!(f, "    {by} -> {from}: {item}")?;
        }
        Ok(())
    }
}

/// All cycles of a crate.
pub fn cycles(krate: &Crate) -> Vec<Cycle> {
    let imports = krate.imports();
    let mut found = among(&imports, |import| {
        Some((import.by.clone(), import.from.clone()))
    });
    let parents: BTreeSet<&[String]> = krate
        .file_of
        .keys()
        .filter_map(|module| module.split_last())
        .map(|(_, parent)| parent)
        .collect();
    for parent in parents {
        let child = |file: &String| child_below(parent, &krate.module_of[file]);
        let modules = among(&imports, |import| {
            let (by, from) = (child(&import.by)?, child(&import.from)?);
            (by != from).then_some((by, from))
        });
        // Where every member is one file, it has been told.
        let files = |cycle: &Cycle| {
            cycle
                .imports
                .iter()
                .flat_map(|it| [&it.by, &it.from])
                .cloned()
                .collect::<BTreeSet<_>>()
        };
        let new = modules.into_iter().filter(|cycle| {
            let files = files(cycle);
            !found
                .iter()
                .any(|known| files.iter().all(|file| known.members.contains(file)))
        });
        let new: Vec<_> = new.collect();
        found.extend(new);
    }
    found
}

fn child_below(parent: &[String], module: &Module) -> Option<String> {
    let below = module.strip_prefix(parent)?.first()?;
    let path = [parent, std::slice::from_ref(below)].concat();
    Some(format!("crate::{}", path.join("::")))
}

fn among(
    imports: &BTreeSet<Import>,
    ends: impl Fn(&Import) -> Option<(String, String)>,
) -> Vec<Cycle> {
    let mut next: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (by, from) in imports.iter().filter_map(&ends) {
        next.entry(by).or_default().insert(from);
    }
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        next.keys().map(|from| (from, reach(&next, from))).collect();
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for (one, all) in &reached {
        if !all.contains(one) || done.contains(one) {
            continue;
        }
        let members: Vec<String> = all
            .iter()
            .filter(|&other| reached.get(other).is_some_and(|back| back.contains(one)))
            .map(|&other| other.clone())
            .collect();
        for member in all.iter().filter(|member| members.contains(member)) {
            done.insert(*member);
        }
        let within = imports.iter().filter(|import| {
            ends(import).is_some_and(|(by, from)| members.contains(&by) && members.contains(&from))
        });
        found.push(Cycle {
            imports: within.cloned().collect(),
            members,
        });
    }
    found
}

fn reach<'a>(next: &'a BTreeMap<String, BTreeSet<String>>, from: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = next.get(from).into_iter().flatten().collect();
    while let Some(one) = open.pop() {
        if reached.insert(one) {
            open.extend(next.get(one).into_iter().flatten());
        }
    }
    reached
}
