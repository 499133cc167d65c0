//! The threat model names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every test of the repository as `file::name`; a file called `mod`, `main` or `lib` goes by its folder.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<_> = ["forwarder-common", "forwarder", "tests"]
        .map(|name| root().join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| own == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                let file = match stem.as_str() {
                    "mod" | "main" | "lib" => {
                        let folder = path.parent().and_then(Path::file_name).unwrap();
                        folder.to_string_lossy().into_owned()
                    }
                    _ => stem,
                };
                found.extend(names(&text).map(|name| format!("{file}::{name}")));
            }
        }
    }
    found
}

/// The functions below a `#[test]` or `#[tokio::test]`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[").skip(1).filter_map(|after| {
        let rest = after
            .strip_prefix("test]")
            .or_else(|| after.strip_prefix("tokio::test"))?;
        let at = rest.find("fn ")?;
        rest[at + 3..].split(['(', '<']).next()
    })
}

/// The rows of every table with a column of tests: what is sent, what it reaches, tests.
fn rows(page: &str) -> Vec<[&str; 3]> {
    let mut rows = Vec::new();
    let mut lines = page.lines().peekable();
    let mut of_tests = false;
    while let Some(line) = lines.next() {
        if !line.starts_with("| ") {
            of_tests &= line.starts_with('|');
        } else if lines.peek().is_some_and(|next| next.starts_with("|-")) {
            of_tests = line.ends_with("| test |");
        } else if of_tests {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let row = [cells.next(), cells.next(), cells.next()].map(Option::unwrap_or_default);
            assert_eq!(cells.next(), None, "{line}");
            rows.push(row);
        }
    }
    rows
}

#[test]
fn every_test_of_the_threat_model_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let known = tests();
    let rows = rows(&page);
    assert!(rows.len() > 40, "{} rows", rows.len());
    let mut missing = Vec::new();
    for [sent, _, cell] in rows {
        if cell == "no test" {
            continue;
        }
        let named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{sent}: name a test, or say `no test`");
        missing.extend(named.into_iter().filter(|name| !known.contains(*name)));
    }
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}
