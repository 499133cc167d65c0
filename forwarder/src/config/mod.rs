//! The configuration file: read, validated, each finding with its place and its fix.
//!
//! ```text
//! text ──shape──▶ raw ──resolve──▶ model ──surroundings──▶ warnings about this machine
//!        (TOML, keys, types)  (ranges, references)   (interfaces, routes)
//! ```
//!
//! The text may be that of several files, see [`sources`]. Nothing here touches the machine; what is known about it comes in as a
//! [`Network`](crate::link::Network).

pub mod claim;
pub mod diagnostic;
pub mod difference;
pub mod edit;
pub mod firewall;
pub mod lasting;
pub mod model;
pub mod own_sockets;
pub mod persist;
pub mod raw;
pub mod replacement;
mod resolve;
pub mod schema;
pub mod shape;
pub mod sources;
mod span;
pub mod suggest;
pub mod surroundings;
mod syntax;

use std::path::Path;
use std::thread;

use self::diagnostic::Diagnostic;

pub use self::diagnostic::Report;
pub use self::model::Config;
pub use self::sources::{ReadError, Sources};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/forwarder/forwarder.toml";

/// A configuration, if there were no errors, and all findings.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration; `None` if the report holds an error.
    pub config: Option<Config>,
    /// All findings.
    pub report: Report,
}

/// Reads and validates the file at `path` and its drop-ins.
pub fn load(path: &Path) -> Result<Outcome, ReadError> {
    Ok(validate(Sources::read(path)?))
}

/// Validates `text`, which stands in the file at `path`.
pub fn parse(path: &Path, text: impl Into<String>) -> Outcome {
    validate(Sources::new(path, text))
}

/// Validates what has been read.
pub fn validate(sources: Sources) -> Outcome {
    let not_text = sources.not_text();
    let mut report = Report::new(sources);
    if !not_text.is_empty() {
        report.extend(not_text.into_iter().map(|at| {
            Diagnostic::error("not-utf8", at, "the file is not UTF-8 text").help("save it as UTF-8")
        }));
        return Outcome {
            config: None,
            report,
        };
    }
    // A third of the time, where there are very many names.
    let (shape, resolved, digest) = thread::scope(|scope| {
        let sources = &report.sources;
        let digest = scope.spawn(|| sources.digest());
        let shape = shape::read(sources);
        let resolved = shape.is_toml.then(|| resolve::resolve(&shape));
        let panicked = |panic| std::panic::resume_unwind(panic);
        let digest = digest.join().unwrap_or_else(panicked);
        (shape, resolved, digest)
    });
    let config = resolved.and_then(|(config, findings)| {
        report.extend(findings);
        config.map(|config| Config { digest, ..config })
    });
    report.extend(shape.diagnostics);
    Outcome { config, report }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "[entrance]\npublic = ['eth0']\ntunnels = ['wg0']\n\n[[listener]]\nname = 'https'\nprotocol = 'tls'\nport = 443\n\n[[pool]]\nclient_address = 'transparent'\nname = 'k3s'\nnodes = ['10.0.0.2:443']\n\n[[route]]\nnames = ['www.example.org']\npool = 'k3s'\n";

    /// The configuration of a main file and drop-ins called `a.toml`, `b.toml` and so on.
    fn together(drop_ins: &[&str]) -> Outcome {
        let mut sources = Sources::new(Path::new("forwarder.toml"), MAIN);
        for (name, text) in ["a", "b", "c"].iter().zip(drop_ins) {
            sources.push(Path::new(&format!("conf.d/{name}.toml")), *text);
        }
        validate(sources)
    }

    #[test]
    fn drop_ins_add_to_the_main_file_and_to_each_other() {
        let outcome = together(&[
            "[[pool]]\nclient_address = 'transparent'\nname = 'shop'\nnodes = ['10.0.0.3:443']\n",
            "[[route]]\nnames = ['shop.example.org']\npool = 'shop'\n[[route]]\nnames = ['b.example.org']\npool = 'k3s'\n",
            "[metrics]\nlisten = '127.0.0.1:9469'\n",
        ]);
        let config = outcome.config.expect("valid");
        assert_eq!(outcome.report.diagnostics.len(), 0);
        assert_eq!((config.pools.len(), config.routes.len()), (2, 3));
        assert_eq!(config.routes[1].pool, 1);
        assert!(config.metrics.listen.is_some());
    }

    /// Each finding with its place, and the places that belong to it.
    fn found(drop_ins: &[&str]) -> Vec<String> {
        let outcome = together(drop_ins);
        assert!(outcome.config.is_none());
        let report = &outcome.report;
        let place = |offset| report.sources.place(offset);
        let findings = report.diagnostics.iter().map(|finding| {
            let related = finding.related.iter();
            let related: Vec<_> = related.map(|(span, _)| place(span.start)).collect();
            let at = place(finding.span.start);
            format!("{at} {} {}", finding.code, related.join(" "))
                .trim_end()
                .to_owned()
        });
        findings.collect()
    }

    #[test]
    fn what_stands_twice_names_both_files() {
        let pool = "\n[[pool]]\nclient_address = 'transparent'\nname = 'K3s'\nnodes = ['10.0.0.3:443']\n[[route]]\nnames = ['x.example.org']\npool = 'K3s'\n";
        assert_eq!(
            found(&["# nothing\n", pool]),
            ["conf.d/b.toml:4:8 duplicate-name forwarder.toml:12:8"]
        );
        let route = "[[route]]\nnames = ['new.example.org', 'WWW.example.org']\npool = 'k3s'\n";
        assert_eq!(
            found(&[route]),
            ["conf.d/a.toml:2:29 duplicate-server-name forwarder.toml:16:10"]
        );
        assert_eq!(
            found(&["[metrics]\n", "\n  [metrics]\n", "[entrance]\n"]),
            [
                "conf.d/b.toml:2:3 duplicate-section conf.d/a.toml:1:1",
                "conf.d/c.toml:1:1 duplicate-section forwarder.toml:1:1",
            ]
        );
        let listener = "[[listener]]\nname = 'other'\nprotocol = 'tls'\nport = 443\n";
        assert_eq!(
            found(&[listener]),
            ["conf.d/a.toml:4:8 overlapping-listeners forwarder.toml:8:8"]
        );
    }

    #[test]
    fn each_mistake_is_found_in_its_own_file() {
        assert_eq!(
            found(&[
                "[[route]]\nnames = ['a.example.org']\npool = 'k3z'\n",
                "titel = 1\n[[pool]]\nclient_address = 'transparent'\nname = 'x'\nnodes = [5]\n",
                "[[route]]\nnames = 7\npool = 'k3s'\n",
            ]),
            [
                "conf.d/a.toml:3:8 unknown-pool",
                "conf.d/b.toml:1:1 unknown-key",
                "conf.d/b.toml:5:10 wrong-type",
                "conf.d/c.toml:2:9 wrong-type",
            ]
        );
        assert_eq!(
            found(&["a = \n", "[[route]]\nnames = [\n"]),
            ["conf.d/a.toml:1:5 syntax", "conf.d/b.toml:2:10 syntax"]
        );
    }

    #[test]
    fn brackets_that_do_not_agree_are_explained() {
        let single = "[listener]\nname = 'other'\n";
        assert_eq!(found(&[single]), ["conf.d/a.toml:1:1 wrong-type"]);
        let double = "[[metrics]]\n";
        assert_eq!(
            found(&["[metrics]\n", double]),
            ["conf.d/b.toml:1:1 duplicate-section conf.d/a.toml:1:1"]
        );
    }
}
