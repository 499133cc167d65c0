//! Broken configurations, each refused at its place and with a way out: the table `broken/cases.toml`.
//!
//! A mark in the table says where the finding must begin, so that line and column are known without asking
//! the code under test. The lab feeds the same table to a running daemon (`tests/tests/configuration.rs`).

use std::path::Path;

use forwarder::config::diagnostic::{Diagnostic, Severity};
use forwarder::config::{self, Outcome, Sources};
use serde::Deserialize;

const MARK: char = '⟨';

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    from: Option<String>,
    to: Option<String>,
    text: Option<String>,
    drop_in: Option<String>,
    code: String,
    fix: String,
}

fn table() -> Table {
    toml::from_str(include_str!("broken/cases.toml")).unwrap()
}

impl Case {
    /// Main file and drop-in, the mark still in one of them.
    fn marked(&self, base: &str) -> (String, Option<String>) {
        let what = &self.what;
        match (&self.from, &self.to, &self.text, &self.drop_in) {
            (Some(from), Some(to), None, None) => {
                assert_eq!(base.matches(from.as_str()).count(), 1, "{what}: {from}");
                (base.replace(from.as_str(), to), None)
            }
            (None, None, Some(text), None) => (text.clone(), None),
            (None, None, None, Some(drop_in)) => (base.to_owned(), Some(drop_in.clone())),
            _ => panic!("{what}: neither `from` and `to` nor `text` nor `drop_in`"),
        }
    }
}

/// The place of the mark, as `line:column`.
fn place(text: &str) -> Option<String> {
    let before = &text[..text.find(MARK)?];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next()?.chars().count() + 1;
    Some(format!("{line}:{column}"))
}

fn errors(outcome: &Outcome) -> Vec<&Diagnostic> {
    let all = outcome.report.diagnostics.iter();
    all.filter(|finding| finding.severity == Severity::Error)
        .collect()
}

#[test]
fn the_base_is_valid() {
    let outcome = config::parse(Path::new("forwarder.toml"), table().base);
    assert!(outcome.config.is_some());
    assert_eq!(outcome.report.diagnostics.len(), 0);
}

#[test]
fn each_is_refused_at_its_place_with_a_fix() {
    let Table { base, case: cases } = table();
    assert!(cases.len() >= 170, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let (main, drop_in) = case.marked(&base);
        let expected = match (place(&main), drop_in.as_deref().and_then(place)) {
            (Some(at), None) => format!("forwarder.toml:{at}"),
            (None, Some(at)) => format!("conf.d/site.toml:{at}"),
            _ => panic!("{}: not one mark", case.what),
        };
        let mut sources = Sources::new(Path::new("forwarder.toml"), main.replace(MARK, ""));
        if let Some(drop_in) = drop_in {
            sources.push(Path::new("conf.d/site.toml"), drop_in.replace(MARK, ""));
        }
        let outcome = config::validate(sources);
        let text = outcome.report.render(false);
        let errors = errors(&outcome);
        let found: Vec<_> = errors
            .iter()
            .map(|own| {
                let at = outcome.report.sources.place(own.span.start);
                format!("{at} {}", own.code)
            })
            .collect();
        let fixed = errors.iter().all(|own| !own.help.is_empty());
        // Of what is not TOML a few lines may be shown; any other mistake has one finding.
        let alone = found.len() == 1 || errors.iter().all(|own| own.code == "syntax");
        let as_meant = outcome.config.is_none()
            && alone
            && found.first() == Some(&format!("{expected} {}", case.code))
            && fixed
            && text.contains(&case.fix)
            // What a person sees begins with the place too.
            && text.contains(&format!("--> {expected}"));
        if !as_meant {
            wrong.push(format!(
                "{}: expected {expected} {} and `{}`, found {found:?}\n{text}",
                case.what, case.code, case.fix
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are not as meant:\n\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
