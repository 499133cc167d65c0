//! What is made of a run's figures.

pub mod chart;
pub mod page;
pub mod statistics;
pub mod table;

use std::collections::BTreeMap;

use crate::command::{command, output};

/// The versions of the programs that take part, as they tell them.
#[must_use]
pub fn versions() -> BTreeMap<String, String> {
    let asked: [(&str, &[&str]); 5] = [
        ("nginx", &["-v"]),
        ("haproxy", &["-v"]),
        ("sniproxy", &["-V"]),
        ("nft", &["--version"]),
        ("ip", &["-V"]),
    ];
    let version = |(program, arguments): (&str, &[&str])| {
        let output = output(command(program).ok()?.args(arguments)).ok()?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text)
            .lines()
            .next()?
            .trim()
            .to_owned();
        Some((program.to_owned(), line))
    };
    asked.into_iter().filter_map(version).collect()
}
