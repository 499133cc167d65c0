//! The configuration file.

use std::path::{Path, PathBuf};

use forwarder::config::difference::Difference;
use forwarder::config::edit::Edit;
use forwarder::config::{self, Config, Sources, persist};

/// Parts one file from the next (record separator).
const NEXT_FILE: u8 = 0x1e;

/// The text of a main file and drop-ins: nothing panics, an error is found exactly where there is no configuration,
/// each finding has its place and says what to do, and what is accepted can be compared, edited and read again.
pub fn config(data: &[u8]) {
    let mut files = data
        .split(|byte| *byte == NEXT_FILE)
        .map(String::from_utf8_lossy);
    let main = files.next().unwrap_or_default();
    let mut sources = Sources::new(Path::new("forwarder.toml"), main);
    for (number, text) in files.enumerate() {
        let path = PathBuf::from(format!("conf.d/{number}.toml"));
        sources.push(&path, text);
    }
    let outcome = config::validate(sources.clone());
    let report = &outcome.report;
    assert_eq!(outcome.config.is_none(), report.errors() > 0);
    let shown = report.render(false);
    let json = report.to_json();
    let written = json["diagnostics"].as_array().expect("a list");
    assert_eq!(written.len(), report.diagnostics.len());
    for (finding, json) in report.diagnostics.iter().zip(written) {
        let places = finding.related.iter().map(|(span, _)| span);
        for span in places.chain([&finding.span]) {
            assert!(span.start <= span.end, "{finding:?}");
            let (source, offset) = sources.locate(span.start);
            assert!(offset <= source.text.len(), "{finding:?}");
        }
        let (source, _) = sources.locate(finding.span.start);
        assert_eq!(json["file"].as_str(), source.path.to_str());
        let lines = source.text.lines().count().max(1) as u64 + 1;
        assert!((1..=lines).contains(&json["line"].as_u64().expect("a line")));
        assert!(json["column"].as_u64() >= Some(1));
        assert!(shown.contains(finding.code), "{finding:?} in {shown}");
        assert!(!finding.message.is_empty(), "{finding:?}");
        assert!(
            !finding.help.is_empty() || !finding.label.is_empty(),
            "{finding:?}"
        );
    }
    if let Some(config) = &outcome.config {
        goes_on(&sources, config);
    }
}

/// What an operator does next with it.
fn goes_on(sources: &Sources, config: &Config) {
    assert!(Difference::between(config, config).is_empty());
    let pool = config.pools.first().map(|pool| pool.name.get_ref().clone());
    let name = config.routes.first().and_then(|route| route.names.first());
    let added = pool.map(|pool| Edit::AddRoute {
        names: vec![String::from("added.example.org")],
        pool,
        listeners: None,
    });
    let removed = name.map(|name| Edit::RemoveNames {
        names: vec![name.to_string()],
    });
    for edit in added.into_iter().chain(removed) {
        // Listed already, or it fits.
        let Ok(expected) = edit.apply(config) else {
            continue;
        };
        assert!(!Difference::between(config, &expected).is_empty(), "{edit}");
        match persist::prepare(sources, &edit) {
            Ok(_) => {}
            // The last name is gone: then the file would be refused at the next start, and says so now.
            Err(error) => assert!(
                matches!(edit, Edit::RemoveNames { .. }),
                "{edit}: {error:?}"
            ),
        }
    }
}
