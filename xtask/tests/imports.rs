//! No two files of a crate import from each other, directly or by way of others, and no two modules beside each other
//! do. A reader can then begin at the bottom and never has to turn back.
//!
//! Imports are read from the syntax: `use` items and paths in code and in the arguments of macros. A path through a
//! re-export counts for the file that the item is defined in. Unit tests do not count, because they belong to the file
//! that they test.

mod imports {
    pub mod cycle;
    pub mod krate;
    pub mod paths;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imports::cycle::cycles;
use imports::krate::Crate;

/// Root files of the crates.
const CRATES: &[&str] = &[
    "forwarder-common/src/lib.rs",
    "forwarder-ebpf/src/main.rs",
    "forwarder/src/lib.rs",
    "forwarder/src/main.rs",
    "tests/src/lib.rs",
    "xtask/src/main.rs",
];

/// Cycles that still stand, by their members. This list only gets shorter: a cycle that is gone must leave it.
const ALLOWED: &[&[&str]] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn no_file_or_module_imports_in_a_circle() {
    let mut found = BTreeSet::new();
    let mut text = String::new();
    for path in CRATES {
        let krate = Crate::read(&root(), path);
        for cycle in cycles(&krate) {
            if !ALLOWED.contains(&cycle.names().as_slice()) {
                text += &format!("{path}:\n{cycle}\n");
            }
            found.insert(cycle.members.clone());
        }
    }
    for allowed in ALLOWED {
        let members: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        if !found.contains(&members) {
            text += &format!("allowed, but there is no such cycle: {allowed:?}\n");
        }
    }
    assert!(text.is_empty(), "\n{text}");
}

#[test]
fn cycles_are_found() {
    let krate = Crate::of(&[
        ("lib.rs", "mod a; mod b; mod c; pub use c::Other;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        (
            "b.rs",
            "pub struct B; fn f() { println!(\"{}\", crate::c::g()) }",
        ),
        (
            "c.rs",
            "pub struct Other; pub fn g() -> u8 { super::a::h() }",
        ),
    ]);
    let found: Vec<_> = cycles(&krate)
        .iter()
        .map(|cycle| cycle.members.join(" "))
        .collect();
    assert_eq!(found, ["a.rs b.rs c.rs"]);
    let through_re_export = Crate::of(&[
        ("lib.rs", "mod a; mod b; pub use b::B;"),
        ("a.rs", "use crate::B;"),
        ("b.rs", "use crate::a; pub struct B;"),
    ]);
    assert_eq!(cycles(&through_re_export).len(), 1);
    let modules = Crate::of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod x; mod y;"),
        ("a/x.rs", "use crate::b::B;"),
        ("a/y.rs", "pub struct Y;"),
        ("b.rs", "use crate::a::y::Y; pub struct B;"),
    ]);
    let found: Vec<_> = cycles(&modules)
        .iter()
        .map(|cycle| cycle.members.join(" "))
        .collect();
    assert_eq!(found, ["crate::a crate::b"]);
}

#[test]
fn what_is_no_cycle_is_not_taken_for_one() {
    let krate = Crate::of(&[
        ("lib.rs", "mod a; mod b; pub use b::B;"),
        (
            "a.rs",
            "use crate::B; #[cfg(test)] mod tests { use super::*; }",
        ),
        (
            "b.rs",
            "pub struct B; #[cfg(test)] mod tests { use crate::a; }",
        ),
    ]);
    assert!(cycles(&krate).is_empty());
}
