//! From [`RawConfig`] to [`Config`]: defaults, ranges, references and contradictions.
//!
//! Each section is resolved on its own and reports all it finds; a value that does not resolve leaves
//! a gap rather than stopping the rest. A [`Config`] results only if nothing was an error.

mod entrance;
mod health;
mod listener;
mod metrics;
mod pool;
mod route;
mod seeing;
mod value;

pub use self::entrance::DEFAULT_BPFFS;

use std::sync::Arc;

use serde_spanned::Spanned;

use super::diagnostic::{Diagnostic, Severity, Span};
use super::model::Config;
use super::shape::Shape;

/// What the sections need while they resolve: what was lost before, and where findings go.
struct Context<'a> {
    shape: &'a Shape,
    findings: Vec<Diagnostic>,
}

/// A list whose elements may have failed to resolve: indices stay those of the file, so that
/// references are checked against what was written and not against what was right.
type Gaps<T> = Vec<Option<T>>;

impl Context<'_> {
    fn push(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    /// Reports that a key is missing, unless it was there and could not be read.
    fn missing(&mut self, section: &str, index: usize, key: &str, span: Span, fix: &str) {
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

/// Resolves what `shape` could read.
pub fn resolve(shape: &Shape) -> (Option<Config>, Vec<Diagnostic>) {
    let mut context = Context {
        shape,
        findings: Vec::new(),
    };
    let entrance = entrance::resolve(&mut context);
    let metrics = metrics::resolve(&mut context);
    let flow_log = seeing::flow_log(&mut context);
    let geoip = seeing::geoip(&mut context);
    let listeners = listener::resolve(&mut context);
    let pools = pool::resolve(&mut context);
    let routes = route::resolve(&mut context, &listeners, &pools);
    let findings = context.findings;

    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    if shape.diagnostics.iter().chain(&findings).any(is_error) {
        return (None, findings);
    }
    let config = entrance.and_then(|entrance| {
        Some(Config {
            digest: 0,
            entrance,
            metrics: metrics?,
            flow_log: flow_log?,
            geoip: geoip?,
            listeners: listeners.into_iter().collect::<Option<_>>()?,
            pools: pools.into_iter().collect::<Option<_>>()?,
            routes: routes
                .into_iter()
                .map(|route| route.map(Arc::new))
                .collect::<Option<_>>()?,
        })
    });
    (config, findings)
}

/// Reports names that a list of named things holds twice.
fn unique_names<'a>(
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
