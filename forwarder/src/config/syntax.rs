//! What is not TOML, in words that tell what to write instead.
//!
//! The parser goes on after an error, and what it then says is mostly about the same mistake: of a line only
//! the first error is shown, and nothing of what it takes for the inside of a list that was never closed.

use toml::de::Error;

use super::diagnostic::{Diagnostic, Span};
use super::sources::Source;

/// More than a person reads; a file of another kind has an error on each line.
const SHOWN_MAX: usize = 20;

/// The findings about one file, with places of the whole configuration.
pub fn findings(source: &Source, errors: &[Error]) -> Vec<Diagnostic> {
    let text = source.text.as_str();
    let mut findings = Vec::new();
    let mut last = None;
    let placed = errors.iter().map(|error| {
        let span = error.span().unwrap_or(text.len()..text.len());
        (span, error)
    });
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by_key(|(span, _)| span.start);
    for (span, error) in placed {
        let same_line = last.is_some_and(|last| {
            let between = text.get(last..span.start);
            between.is_none_or(|between| !between.contains('\n'))
        });
        if same_line || findings.len() == SHOWN_MAX {
            continue;
        }
        last = Some(span.start);
        if let Some((at, what, end)) = left_open(text, error, &span) {
            let finding = finding(source, at..at, "a comma, or the end, is missing here");
            findings.push(finding.help(format!("close the {what} with `{end}`")));
            break;
        }
        let said = text.get(span.clone()).unwrap_or_default();
        let (label, help) = explained(error.message(), said);
        findings.push(finding(source, span, label).help(help));
    }
    findings
}

fn finding(source: &Source, span: Span, label: impl Into<String>) -> Diagnostic {
    let base = source.base();
    let span = span.start + base..span.end + base;
    Diagnostic::error("syntax", span, "this is not TOML").label(label)
}

/// The end of the last element, what it is an element of and how that is closed, if the comma that the parser
/// misses would stand on an earlier line than what it found instead.
fn left_open(text: &str, error: &Error, span: &Span) -> Option<(usize, &'static str, char)> {
    let message = error.message();
    let (what, end) = if message.starts_with("missing comma between array elements") {
        ("list", ']')
    } else if message.starts_with("missing comma between key-value pairs") {
        ("table", '}')
    } else {
        return None;
    };
    let before = text.get(..span.start)?;
    let at = before.trim_end().len();
    before[at..].contains('\n').then_some((at, what, end))
}

/// What to say about the wrong bytes, and what to do.
fn explained(message: &str, said: &str) -> (String, String) {
    let pair = |label: &str, help: &str| (label.to_owned(), help.to_owned());
    let is = |start: &str| message.starts_with(start);
    if message.contains("duplicate key") {
        return pair(
            message,
            "a key stands once in a table; for a further listener, pool or route start a new `[[…]]`",
        );
    }
    let no_value = is("string values must be quoted") || is("invalid boolean");
    if no_value || is("invalid float") || is("invalid integer") || is("unexpected leading zero") {
        return bare(said);
    }
    if is("invalid basic string") || is("invalid multi-line basic string") {
        return pair("the text is not closed", "close it with `\"`");
    }
    if is("invalid literal string") || is("invalid multi-line literal string") {
        return pair("the text is not closed", "close it with `'`");
    }
    if is("missing escaped value") {
        return pair("no escape begins so", "write `\\\\` for a backslash");
    }
    if is("unclosed array table") {
        return pair("the header is not closed", "close it with `]]`");
    }
    if is("unclosed table") {
        return pair("the header is not closed", "close it with `]`");
    }
    if is("unclosed array") {
        return pair("the list is not closed", "close it with `]`");
    }
    if is("unclosed inline table") {
        return pair("the table is not closed", "close it with `}`");
    }
    if is("missing comma") {
        return pair("a comma is missing", "write `,` between elements");
    }
    if is("key with no value") {
        return pair(
            "`=` and a value are missing",
            "write `key = value`; sections are written like `[entrance]`",
        );
    }
    if said.starts_with(':') {
        return pair("expected `=`", "write `key = value`, not `key: value`");
    }
    if said.starts_with("//") || said.starts_with("--") {
        return pair("this is no comment", "comments begin with `#`");
    }
    if ["<<<<<<<", "=======", ">>>>>>>"]
        .iter()
        .any(|mark| said.starts_with(mark))
    {
        return pair("a mark of a merge conflict", "solve the conflict first");
    }
    pair(
        message,
        "a file consists of `[section]` and `[[section]]` headers and of lines `key = value`; comments begin \
         with `#`",
    )
}

/// A value that is neither text in quotes nor a number, `true` or `false`.
fn bare(said: &str) -> (String, String) {
    let said = said.trim();
    let word = said.trim_matches(['“', '”', '„', '‘', '’', '\'', '"']);
    if word.is_empty() {
        let help = "write one; text stands in quotes, like `name = \"https\"`";
        return (String::from("the value is missing"), help.to_owned());
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        let help = "numbers are digits without unit and without leading zero, one key a line; text stands in \
                    quotes";
        return (String::from("this is not a number"), help.to_owned());
    }
    let label = String::from("text stands in quotes, `\"` or `'`");
    (label, format!("write `\"{word}\"`"))
}
