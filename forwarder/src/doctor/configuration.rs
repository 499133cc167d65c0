//! The configuration file: what `forwarder check --offline` finds, and where keys stand in it.

use std::ops::Range;
use std::path::Path;

use super::catalog::Code;
use super::finding::{Finding, Fix, Verdict};
use crate::config::diagnostic::Severity;
use crate::config::{Config, Report};
use crate::units;

/// Findings about the file itself.
pub fn judge(config: Option<&Config>, report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    for own in &report.diagnostics {
        let (source, offset) = report.sources.locate(own.span.start);
        let (line, column) = source.position(offset);
        let file = source.path.display();
        let label = match own.label.as_str() {
            "" => String::new(),
            label => format!(": {label}"),
        };
        let seen = format!(
            "line {line}, column {column}: {} [{}]{label}",
            own.message, own.code
        );
        let verdict = match own.severity {
            Severity::Error => Verdict::Failure,
            Severity::Warning => Verdict::Warning,
        };
        let mut finding = Finding::new(verdict, Code::Config, file.to_string(), seen);
        for help in &own.help {
            finding = finding.fix(Fix::advice(format!("{file}:{line}: {help}")));
        }
        if own.help.is_empty() {
            let help = format!("correct line {line}; `forwarder check` shows it");
            finding = finding.fix(Fix::advice(help));
        }
        findings.push(finding);
    }
    if let Some(config) = config {
        let nodes: usize = config.pools.iter().map(|pool| pool.nodes.len()).sum();
        let names: usize = config.routes.iter().map(|route| route.names.len()).sum();
        let counted = [
            (config.listeners.len(), "listener"),
            (config.pools.len(), "pool"),
            (nodes, "node"),
            (names, "name"),
        ];
        let seen = counted.map(|(number, noun)| units::count(number as u64, noun));
        let seen = seen.join(", ");
        findings.push(Finding::ok(Code::Config, report.sources.title(), seen));
    }
    findings
}

/// There is no file, or it cannot be read.
pub fn unreadable(path: &Path, error: &dyn std::error::Error) -> Finding {
    let mut why = error.to_string();
    if let Some(source) = error.source() {
        why = format!("{why}: {source}");
    }
    let init = format!("forwarder init --output {}", path.display());
    Finding::failure(Code::ConfigMissing, path.display().to_string(), why).fix(Fix::here(init))
}

/// A line of the file that gives `key` another value, in the section that holds the bytes of `within`.
pub fn line(report: &Report, within: &Range<usize>, key: &str, value: &str) -> Fix {
    let (source, offset) = report.sources.locate(within.start);
    let file = source.path.clone();
    let text = format!("{key} = {value}");
    let (at, _) = source.position(offset);
    let lines: Vec<_> = source.text.lines().collect();
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    // A header is a line of its own; lines are counted from 1.
    let mut first = at.min(lines.len());
    while first > 1 && !lines.get(first - 1).is_some_and(is_header) {
        first -= 1;
    }
    let section = lines.iter().enumerate().skip(first);
    let of_section = section.take_while(|(_, line)| !is_header(line));
    let found = of_section.into_iter().find(|(_, line)| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    let line = found.map_or(at, |(index, _)| index + 1);
    Fix::Config { file, line, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[entrance]\npublic = ['eth0']\ntunnels = ['wg0']\n[[listener]]\nname = 'https'\nprotocol = 'tls'\nport = 443\n[[pool]]\nclient_address = 'transparent'\nname = 'a'\nnodes = ['10.0.0.2:443']\n[[pool]]\nclient_address = 'masquerade'\nname = 'b'\nnodes = ['10.0.0.3:443']\n[[route]]\nnames = ['a.example.org']\npool = 'a'\n[[route]]\nnames = ['b.example.org']\npool = 'b'\n";

    fn parsed(text: &str) -> crate::config::Outcome {
        crate::config::parse(Path::new("forwarder.toml"), text)
    }

    #[test]
    fn an_error_names_line_code_and_fix() {
        let outcome = parsed(&TEXT.replace("port = 443", "port = 443\nprot = 1"));
        let findings = judge(outcome.config.as_ref(), &outcome.report);
        let [own] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(own.verdict, Verdict::Failure);
        assert!(own.seen.starts_with("line 8, column 1"), "{}", own.seen);
        assert!(own.seen.contains("[unknown-key]"), "{}", own.seen);
        assert!(!own.fixes.is_empty());
    }

    #[test]
    fn a_key_is_found_in_its_own_section() {
        let outcome = parsed(TEXT);
        let pools = &outcome.config.as_ref().unwrap().pools;
        let at = |pool: usize| {
            let span = pools[pool].name.span();
            match line(&outcome.report, &span, "client_address", "\"proxy-v2\"") {
                Fix::Config { line, text, .. } => (line, text),
                other => panic!("{other:?}"),
            }
        };
        let text = String::from("client_address = \"proxy-v2\"");
        assert_eq!(at(0), (9, text.clone()));
        assert_eq!(at(1), (13, text));
    }
}
