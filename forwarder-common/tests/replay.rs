//! Replays the kept inputs of the fuzz targets: seeds, and every crash so far.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Runs a target over each file of its folders, at least `expected` of them.
fn replay(name: &str, expected: usize, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let inputs: Vec<PathBuf> = ["seeds", "crashes"]
        .iter()
        .filter_map(|folder| fs::read_dir(fuzz.join(folder).join(name)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        inputs.len() >= expected,
        "{} inputs for {name}",
        inputs.len()
    );
    for input in inputs {
        // Shown when the target panics.
        println!("{}", input.display());
        target(&fs::read(&input).unwrap());
    }
}

#[test]
fn hello() {
    replay("hello", 50, targets::hello);
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hello/captured");
    for entry in fs::read_dir(captured).unwrap() {
        targets::hello(&fs::read(entry.unwrap().path()).unwrap());
    }
}

#[test]
fn name() {
    replay("name", 20, targets::name);
}

#[test]
fn options() {
    replay("options", 20, targets::options);
}

#[test]
fn flow() {
    replay("flow", 20, targets::flow);
}
