//! Which files of a crate import from each other, directly or by way of others, and which modules beside each other: none
//! in the daemon, and elsewhere no more than [`CRATES`] allows. Where there are none a reader can begin at the bottom and
//! never has to turn back.
//!
//! Imports are read from the syntax: `use` items and paths in code and in the arguments of macros. A path through a
//! re-export counts for the file that the item is defined in. Unit tests do not count, because they belong to the file
//! that they test.

mod imports {
    pub mod cycle;
    pub mod krate;
    pub mod paths;
}

use std::path::{Path, PathBuf};

use imports::cycle::cycles;
use imports::krate::Crate;

/// Root files of the crates, and how many files and modules of each still stand in a cycle. These numbers only fall.
const CRATES: &[(&str, usize)] = &[
    ("forwarder-common/src/lib.rs", 6),
    ("forwarder-ebpf/src/main.rs", 33),
    ("forwarder/src/lib.rs", 0),
    ("forwarder/src/main.rs", 0),
    ("tests/src/lib.rs", 21),
    ("xtask/src/main.rs", 3),
];

fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo");
    Path::new(&own).join("..")
}

#[test]
fn no_file_or_module_imports_in_a_circle() {
    let mut text = String::new();
    for &(path, allowed) in CRATES {
        let cycles = cycles(&Crate::read(&root(), path));
        let members: usize = cycles.iter().map(|cycle| cycle.members.len()).sum();
        if members > allowed {
            text += &format!("{path}: {members} in cycles, {allowed} allowed\n");
            text.extend(cycles.iter().map(ToString::to_string));
        }
        if members < allowed {
            text += &format!("{path}: {members} in cycles; write that in place of {allowed}\n");
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
