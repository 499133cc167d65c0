//! Configurations changed at random: nothing panics, what is refused says why and where, and what is accepted
//! can be compared, edited and read again.

use std::path::Path;

use forwarder::config::difference::Difference;
use forwarder::config::edit::Edit;
use forwarder::config::{self, Sources, persist};
use proptest::prelude::*;

const EXAMPLES: [&str; 2] = [
    include_str!("../../packaging/forwarder.toml.example"),
    include_str!("check/fine-every-form.toml"),
];

/// What is put in: what TOML is made of, and values at the edge.
const SNIPPETS: [&str; 24] = [
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\0",
    "ä",
    "🦀",
    "\\u",
    "-",
    "0",
    "99999999999999999999",
    "true",
    "*.",
    "nan",
];

#[derive(Clone, Debug)]
enum Change {
    /// A piece goes.
    Remove(prop::sample::Index, usize),
    /// A snippet comes.
    Insert(prop::sample::Index, &'static str),
    /// A line stands somewhere else as well.
    Repeat(prop::sample::Index, prop::sample::Index),
    /// Two lines change places.
    Swap(prop::sample::Index, prop::sample::Index),
    /// The end is lost.
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 1..24usize).prop_map(|(at, length)| Change::Remove(at, length)),
        6 => (at(), prop::sample::select(&SNIPPETS[..])).prop_map(|(at, text)| Change::Insert(at, text)),
        3 => (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        3 => (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
        1 => at().prop_map(Change::Cut),
    ]
}

fn changed(text: &str, change: &Change) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return String::from("\n");
    }
    match change {
        Change::Remove(at, length) => {
            let at = at.index(chars.len());
            let rest = chars.iter().skip(at + length);
            chars.iter().take(at).chain(rest).collect()
        }
        Change::Insert(at, snippet) => {
            let (before, after) = chars.split_at(at.index(chars.len() + 1));
            let text = |part: &[char]| part.iter().collect::<String>();
            text(before) + snippet + &text(after)
        }
        Change::Repeat(from, to) => {
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len() + 1), line);
            lines.concat()
        }
        Change::Swap(one, other) => {
            let count = lines.len();
            lines.swap(one.index(count), other.index(count));
            lines.concat()
        }
        Change::Cut(at) => chars[..at.index(chars.len() + 1)].iter().collect(),
    }
}

/// The text in up to two files, parted after some line.
fn parted(text: &str, at: Option<prop::sample::Index>) -> Sources {
    let main = Path::new("forwarder.toml");
    let Some(at) = at else {
        return Sources::new(main, text);
    };
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let (first, second) = lines.split_at(at.index(lines.len() + 1));
    let mut sources = Sources::new(main, first.concat());
    sources.push(Path::new("conf.d/site.toml"), second.concat());
    sources
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_change_makes_it_panic(
        example in prop::sample::select(&EXAMPLES[..]),
        changes in prop::collection::vec(change(), 0..6),
        part in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let text = changes.iter().fold(example.to_owned(), |text, own| changed(&text, own));
        let sources = parted(&text, part);
        let outcome = config::validate(sources.clone());
        let report = &outcome.report;
        prop_assert_eq!(outcome.config.is_none(), report.errors() > 0);
        let shown = report.render(false);
        let json = report.to_json();
        for (finding, json) in report.diagnostics.iter().zip(json["diagnostics"].as_array().unwrap()) {
            let (source, offset) = sources.locate(finding.span.start);
            prop_assert!(offset <= source.text.len(), "{:?}", finding);
            prop_assert!(shown.contains(finding.code), "{}", shown);
            prop_assert!(json["line"].as_u64() >= Some(1) && json["column"].as_u64() >= Some(1));
            let says_the_fix = !finding.help.is_empty() || !finding.label.is_empty();
            prop_assert!(says_the_fix, "{:?}", finding);
        }
        if let Some(config) = &outcome.config {
            prop_assert!(Difference::between(config, config).is_empty());
            if let Some(pool) = config.pools.first() {
                let edit = Edit::AddRoute {
                    names: vec![String::from("added.example.org")],
                    pool: pool.name.get_ref().clone(),
                    listeners: None,
                };
                // Listed already, or it fits.
                if edit.apply(config).is_ok() {
                    let added = persist::prepare(&sources, &edit);
                    prop_assert!(added.is_ok(), "{:?}", added.unwrap_err());
                }
            }
        }
    }
}
