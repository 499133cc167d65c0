//! `forwarder check` on every file of `tests/check/`: what is said, and the exit code.
//!
//! After a change that is meant, look at each difference and accept it with `cargo insta review`, or run
//! the test once with `INSTA_UPDATE=always` and read `git diff`.

use std::path::Path;
use std::process::{Command, Output};

fn check(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forwarder"))
        .current_dir(directory)
        .env_remove("FORWARDER_CONFIG")
        .arg("check")
        .args(arguments)
        .output()
        .expect("the forwarder starts")
}

fn said(output: &Output) -> String {
    format!(
        "exit code {}\n{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn every_example_says_what_is_wrong() {
    insta::glob!("check/*.toml", |path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = check(path.parent().unwrap(), &["--offline", "--config", name]);
        insta::assert_snapshot!(said(&output));
    });
}

/// Each error must come with its place, and only what is called fine may succeed.
#[test]
fn exit_code_and_places_agree_with_the_name() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = check(&directory, &["--offline", "--json", "--config", name]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors = report["errors"].as_u64().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(errors > 0)), "{name}");
        if name.starts_with("fine") {
            assert_eq!((errors, &report["warnings"]), (0, &0.into()), "{name}");
        }
        for finding in report["diagnostics"].as_array().unwrap() {
            assert!(finding["line"].as_u64() >= Some(1), "{name}: {finding}");
            let says_the_fix = !finding["help"].as_array().unwrap().is_empty()
                || !finding["label"].as_str().unwrap().is_empty();
            assert!(says_the_fix, "{name}: {finding}");
        }
    }
    assert!(seen >= 40, "only {seen} examples");
}

#[test]
fn json_has_the_place() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let output = check(
        &directory,
        &["--offline", "--json", "--config", "unknown-node-key.toml"],
    );
    insta::assert_snapshot!(said(&output));
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let output = check(Path::new("/"), &["--config", "absent/forwarder.toml"]);
    insta::assert_snapshot!(said(&output));
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    assert_eq!(
        check(Path::new("/"), &["--frobnicate"]).status.code(),
        Some(2)
    );
}

#[test]
fn bytes_that_are_not_text_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("latin1.toml"),
        b"# caf\xe9\n[entrance]\n",
    )
    .unwrap();
    let output = check(directory.path(), &["--offline", "--config", "latin1.toml"]);
    insta::assert_snapshot!(said(&output));
}
