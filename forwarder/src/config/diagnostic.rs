//! What is wrong with a configuration, where, and what to do about it.
//!
//! A [`Report`] holds every finding of one configuration, in the order of its files. It is rendered for people
//! (an annotated snippet per finding) or as JSON for editors and pipelines.

use std::fmt::Write as _;
use std::path::Path;

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::sources::{Source, Sources};
pub use super::span::Span;

/// How bad a finding is: an error stops `run`, a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration works, though likely not as meant.
    Warning,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable identifier, for instance `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// The bytes that are wrong.
    pub span: Span,
    /// What to say under those bytes.
    pub label: String,
    /// Other places that belong to the finding, each with its word.
    pub related: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Vec<String>,
    /// Shell commands that mend it; any one of them does.
    pub commands: Vec<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            label: String::new(),
            related: Vec::new(),
            help: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// Adds the word under the marked bytes.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds another place that belongs to the finding.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a shell command that mends it.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    /// Commands, then the rest of the help, as it is shown.
    fn advice(&self) -> Vec<String> {
        let commands = self.commands.iter().map(|own| format!("`{own}`"));
        commands.chain(self.help.iter().cloned()).collect()
    }

    /// Adds "did you mean …" when there is something to suggest.
    pub fn suggest(self, candidate: Option<&str>) -> Self {
        match candidate {
            Some(candidate) => self.help(format!("did you mean `{candidate}`?")),
            None => self,
        }
    }
}

/// All findings of one configuration.
#[derive(Clone, Debug)]
pub struct Report {
    /// The files.
    pub sources: Sources,
    /// The findings, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

/// The JSON form of a report; documented in `docs/config.md`.
#[derive(Serialize)]
struct JsonReport<'a> {
    file: &'a Path,
    files: Vec<&'a Path>,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<JsonDiagnostic<'a>>,
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    severity: Severity,
    code: &'a str,
    message: &'a str,
    label: &'a str,
    file: &'a Path,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    related: Vec<serde_json::Value>,
    help: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    commands: &'a [String],
}

impl Report {
    /// A report without findings yet.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            diagnostics: Vec::new(),
        }
    }

    /// Takes further findings in and restores the order of the file.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Diagnostic>) {
        self.diagnostics.extend(more);
        self.diagnostics
            .sort_by_key(|finding| (finding.span.start, finding.span.end));
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// Number of warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// The report for a person, one annotated snippet per finding.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for finding in &self.diagnostics {
            out.push_str(&self.render_one(&renderer, finding));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// One line: how many errors and warnings.
    pub fn summary(&self) -> String {
        let path = self.sources.title();
        let mut out = match (self.errors(), self.warnings()) {
            (0, 0) => return format!("{path}: fine"),
            (0, _) => format!("{path}: usable, "),
            (errors, _) => format!("{path}: {}", plural(errors, "error")),
        };
        if self.warnings() > 0 {
            if self.errors() > 0 {
                out.push_str(", ");
            }
            let _ = write!(out, "{}", plural(self.warnings(), "warning"));
        }
        out
    }

    /// The report as log lines.
    pub fn log(&self) {
        for finding in &self.diagnostics {
            let (source, offset) = self.sources.locate(finding.span.start);
            let (line, column) = source.position(offset);
            let file = source.path.display();
            let (code, message) = (finding.code, &finding.message);
            let mut label = finding.label.clone();
            for (span, word) in &finding.related {
                let _ = write!(label, " ({word}: {})", self.sources.place(span.start));
            }
            let help = finding.advice().join("; ");
            match finding.severity {
                Severity::Error => {
                    tracing::error!(code, %file, line, column, label, help, "{message}")
                }
                Severity::Warning => {
                    tracing::warn!(code, %file, line, column, label, help, "{message}")
                }
            }
        }
    }

    /// The report for a program.
    pub fn to_json(&self) -> serde_json::Value {
        let place = |offset| {
            let (source, offset) = self.sources.locate(offset);
            let (line, column) = source.position(offset);
            (source.path.as_path(), line, column)
        };
        let related = |(span, label): &'_ (Span, String)| {
            let (file, line, column) = place(span.start);
            serde_json::json!({ "label": label, "file": file, "line": line, "column": column })
        };
        let diagnostics = self
            .diagnostics
            .iter()
            .map(|finding| {
                let (file, line, column) = place(finding.span.start);
                let (_, end_line, end_column) = place(finding.span.end);
                JsonDiagnostic {
                    severity: finding.severity,
                    code: finding.code,
                    message: &finding.message,
                    label: &finding.label,
                    file,
                    line,
                    column,
                    end_line,
                    end_column,
                    related: finding.related.iter().map(related).collect(),
                    help: finding.advice(),
                    commands: &finding.commands,
                }
            })
            .collect();
        serde_json::json!(JsonReport {
            file: &self.sources.main().path,
            files: self.sources.files().map(|own| own.path.as_path()).collect(),
            errors: self.errors(),
            warnings: self.warnings(),
            diagnostics,
        })
    }

    fn render_one(&self, renderer: &Renderer, finding: &Diagnostic) -> String {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let (own, _) = self.sources.locate(finding.span.start);
        let primary = AnnotationKind::Primary
            .span(clamp(own, &finding.span))
            .label(Some(finding.label.as_str()).filter(|label| !label.is_empty()));
        let mut snippets = vec![(own, snippet(own).annotation(primary))];
        for (span, label) in &finding.related {
            let (source, _) = self.sources.locate(span.start);
            let mark = AnnotationKind::Context
                .span(clamp(source, span))
                .label(label.as_str());
            // A file is shown once.
            let shown = snippets.iter().position(|(own, _)| own.path == source.path);
            let before = match shown {
                Some(at) => snippets.remove(at).1,
                None => snippet(source),
            };
            let at = shown.unwrap_or(snippets.len());
            snippets.insert(at, (source, before.annotation(mark)));
        }
        let help = finding.advice();
        let help = help.iter().map(|help| Level::HELP.message(help.as_str()));
        let group = level
            .primary_title(finding.message.as_str())
            .id(finding.code)
            .elements(snippets.into_iter().map(|(_, snippet)| snippet))
            .elements(help);
        renderer.render(&[group])
    }
}

fn snippet(source: &Source) -> Snippet<'_, Annotation<'_>> {
    Snippet::source(source.text.as_str()).path(source.path.to_string_lossy())
}

/// Turns a span into one of its file: inside the text, on character boundaries and on its first line, so
/// that a finding about a whole table marks its header and not a page.
fn clamp(source: &Source, span: &Span) -> Span {
    let text = &source.text;
    let mut start = (span.start - source.base()).min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |length| start + length);
    let mut end = span
        .end
        .saturating_sub(source.base())
        .clamp(start, line_end);
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

fn plural(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        Report::new(Sources::new(Path::new("forwarder.toml"), text))
    }

    #[test]
    fn positions_count_characters_from_one() {
        let report = report("a = 1\nnäme = 2\n");
        let source = report.sources.main();
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(6), (2, 1));
        let equals = source.text.rfind('=').unwrap();
        assert_eq!(source.position(equals), (2, 6));
    }

    #[test]
    fn findings_come_in_file_order() {
        let mut report = report("a = 1\nb = 2\n");
        report.extend([
            Diagnostic::error("second", 6..7, "later"),
            Diagnostic::warning("first", 0..1, "earlier"),
        ]);
        let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["first", "second"]);
        assert_eq!(report.summary(), "forwarder.toml: 1 error, 1 warning");
    }

    #[test]
    fn json_carries_line_and_column() {
        let mut report = report("a = 1\nb = 2\n");
        report.extend([Diagnostic::error("bad", 10..11, "no").help("try 3")]);
        let json = report.to_json();
        assert_eq!(json["errors"], 1);
        assert_eq!(json["diagnostics"][0]["line"], 2);
        assert_eq!(json["diagnostics"][0]["column"], 5);
        assert_eq!(json["diagnostics"][0]["help"][0], "try 3");
    }

    #[test]
    fn places_in_two_files_are_both_shown() {
        let mut sources = Sources::new(Path::new("main.toml"), "a = 1\n");
        sources.push(Path::new("conf.d/x.toml"), "b = 2\na = 3\n");
        let mut report = Report::new(sources);
        let again = Diagnostic::error("twice", 13..14, "again").related(0..1, "first here");
        report.extend([again.label("again here")]);
        let text = report.render(false);
        assert!(text.contains("conf.d/x.toml:2:1"), "{text}");
        assert!(text.contains("main.toml:1:1"), "{text}");
        assert!(
            text.ends_with("main.toml and 1 file of conf.d: 1 error\n"),
            "{text}"
        );
        let json = report.to_json();
        let finding = &json["diagnostics"][0];
        assert_eq!(
            (&finding["file"], &finding["line"]),
            (&"conf.d/x.toml".into(), &2.into())
        );
        assert_eq!(finding["related"][0]["file"], "main.toml");
    }

    #[test]
    fn spans_outside_the_text_do_not_panic() {
        let mut report = report("ä");
        report.extend([Diagnostic::error("odd", 1..400, "beyond the end")]);
        assert!(report.render(false).contains("beyond the end"));
    }
}
