//! What an examination finds, and how it is shown: a table for people, one JSON object for programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::catalog::{Area, Code};
pub use super::verdict::Verdict;

/// What mends a failure. Of several, any one does; the first is preferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "where", rename_all = "lowercase")]
pub enum Fix {
    /// A shell command on this machine, as root.
    Here {
        /// It.
        command: String,
    },
    /// A line of the configuration file.
    Config {
        /// The file.
        file: PathBuf,
        /// The line it replaces, or after which it belongs, from 1.
        line: usize,
        /// The line as it should be.
        text: String,
    },
    /// Something on the node.
    Node {
        /// A command or a line of its server's configuration.
        text: String,
    },
    /// What no command does.
    Advice {
        /// It.
        text: String,
    },
}

impl Fix {
    /// A command on this machine.
    pub fn here(command: impl Into<String>) -> Self {
        let command = command.into();
        Self::Here { command }
    }

    /// On the node.
    pub fn node(text: impl Into<String>) -> Self {
        Self::Node { text: text.into() }
    }

    /// In words.
    pub fn advice(text: impl Into<String>) -> Self {
        Self::Advice { text: text.into() }
    }

    fn shown(&self) -> String {
        match self {
            Self::Here { command } => format!("run: {command}"),
            Self::Config { file, line, text } => format!("{}:{line}: {text}", file.display()),
            Self::Node { text } => format!("on the node: {text}"),
            Self::Advice { text } => text.clone(),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which check.
    pub code: Code,
    /// How it came out.
    pub verdict: Verdict,
    /// Of what: an interface, a node, a name; empty where there is only one.
    pub subject: String,
    /// What was seen, in one line.
    pub seen: String,
    /// What mends it; never empty for a failure.
    pub fixes: Vec<Fix>,
}

impl Finding {
    /// A finding of any verdict.
    pub fn new(
        verdict: Verdict,
        code: Code,
        subject: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        Self {
            code,
            verdict,
            subject: subject.into(),
            seen: seen.into(),
            fixes: Vec::new(),
        }
    }

    /// As it should be.
    pub fn ok(code: Code, subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, code, subject, seen)
    }

    /// Not looked at, and why.
    pub fn skipped(code: Code, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, code, subject, why)
    }

    /// Likely not as meant.
    pub fn warning(code: Code, subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, code, subject, seen)
    }

    /// Broken.
    pub fn failure(code: Code, subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Failure, code, subject, seen)
    }

    /// Adds what mends it.
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }
}

/// Everything an examination found, in the order of the areas.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    failures: usize,
    warnings: usize,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    area: Area,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    /// Takes findings in.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Finding>) {
        self.findings.extend(more);
    }

    /// How many findings have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let of = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(of).count()
    }

    /// One object; `docs/doctor.md` describes it.
    pub fn to_json(&self) -> serde_json::Value {
        let findings = self.findings.iter().map(|finding| JsonFinding {
            area: finding.code.area(),
            finding,
        });
        serde_json::json!(JsonReport {
            failures: self.count(Verdict::Failure),
            warnings: self.count(Verdict::Warning),
            findings: findings.collect(),
        })
    }

    /// A table for each area, what mends a finding below it.
    pub fn render(&self, color: bool) -> String {
        let paint = |escape: &'static str, text: &str| {
            if color {
                format!("{escape}{text}\u{1b}[0m")
            } else {
                text.to_owned()
            }
        };
        let width = self.findings.iter().map(|own| own.code.word().len()).max();
        let width = width.unwrap_or_default();
        let mut out = String::new();
        for area in Area::ALL {
            let of_area = || self.findings.iter().filter(|own| own.code.area() == *area);
            if of_area().next().is_none() {
                continue;
            }
            let _ = writeln!(out, "{}", paint("\u{1b}[1m", area.word()));
            for own in of_area() {
                let verdict = paint(own.verdict.color(), &format!("{:<8}", own.verdict.word()));
                let subject = match own.subject.as_str() {
                    "" => String::new(),
                    subject => format!("{subject}: "),
                };
                let code = own.code.word();
                let _ = writeln!(out, "  {verdict} {code:<width$}  {subject}{}", own.seen);
                for fix in &own.fixes {
                    let _ = writeln!(out, "  {:8} {:width$}  → {}", "", "", fix.shown());
                }
            }
            out.push('\n');
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    fn summary(&self) -> String {
        let plural = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            _ => format!("{count} {noun}s"),
        };
        let failures = self.count(Verdict::Failure);
        let warnings = self.count(Verdict::Warning);
        match (failures, warnings) {
            (0, 0) => String::from("all is well"),
            (0, _) => format!("it works; {}", plural(warnings, "warning")),
            _ => format!(
                "{}, {}",
                plural(failures, "failure"),
                plural(warnings, "warning")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.extend([
            Finding::ok(Code::KernelVersion, "", "6.12"),
            Finding::failure(Code::InterfaceDown, "wg0", "it is down")
                .fix(Fix::here("ip link set wg0 up")),
        ]);
        report
    }

    #[test]
    fn a_person_sees_areas_and_what_to_run() {
        let text = report().render(false);
        assert!(text.contains("kernel\n  ok "), "{text}");
        assert!(text.contains("wg0: it is down\n"), "{text}");
        assert!(text.contains("→ run: ip link set wg0 up\n"), "{text}");
        assert!(text.ends_with("1 failure, 0 warnings\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(report().render(true).contains("\u{1b}[1;31mfailure"));
    }

    #[test]
    fn a_program_sees_codes_and_commands() {
        let json = report().to_json();
        assert_eq!(json["failures"], 1);
        let own = &json["findings"][1];
        assert_eq!(own["area"], "interfaces");
        assert_eq!(own["code"], "interface-down");
        assert_eq!(own["verdict"], "failure");
        assert_eq!(own["fixes"][0]["where"], "here");
        assert_eq!(own["fixes"][0]["command"], "ip link set wg0 up");
    }
}
