//! What the sections need while they resolve.

use serde_spanned::Spanned;

use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::shape::Shape;

/// What the sections need while they resolve: what was lost before, and where findings go.
pub struct Context<'a> {
    /// What was read.
    pub shape: &'a Shape,
    /// Findings so far.
    pub findings: Vec<Diagnostic>,
}

/// A list whose elements may have failed to resolve: indices stay those of the file, so that
/// references are checked against what was written and not against what was right.
pub type Gaps<T> = Vec<Option<T>>;

impl Context<'_> {
    /// Reports a finding.
    pub fn push(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    /// Reports that a key is missing, unless it was there and could not be read.
    pub fn missing(&mut self, section: &str, index: usize, key: &str, span: Span, fix: &str) {
        if self.shape.lost(section, index, key) {
            return;
        }
        let title = if section == "entrance" {
            String::from("[entrance]")
        } else {
            format!("[[{section}]]")
        };
        self.push(
            Diagnostic::error("missing-key", span, format!("{title} has no `{key}`"))
                .help(format!("add `{fix}`")),
        );
    }
}

/// Reports names that a list of named things holds twice.
pub fn unique_names<'a>(
    context: &mut Context<'_>,
    what: &str,
    names: impl Iterator<Item = &'a Spanned<String>>,
) {
    let mut seen: Vec<&Spanned<String>> = Vec::new();
    for name in names {
        let lower = name.get_ref().to_lowercase();
        let first = seen
            .iter()
            .find(|earlier| earlier.get_ref().to_lowercase() == lower);
        match first {
            Some(first) => context.push(
                Diagnostic::error(
                    "duplicate-name",
                    name.span(),
                    format!("two {what}s are called `{}`", name.get_ref()),
                )
                .label("again here")
                .related(first.span(), "first here")
                .help("give one of them another name; upper and lower case count as the same"),
            ),
            None => seen.push(name),
        }
    }
}
