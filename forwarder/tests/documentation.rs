//! Every key of the configuration is documented, and what is documented exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use forwarder::config::{self, schema};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Section title and key of every key there is.
fn keys() -> BTreeSet<(String, String)> {
    let mut keys = BTreeSet::new();
    let sections = [
        "entrance", "metrics", "flow_log", "geoip", "listener", "pool", "route",
    ];
    let mut tables: Vec<_> = sections
        .iter()
        .map(|name| schema::root().below(name).unwrap())
        .collect();
    while let Some(table) = tables.pop() {
        for key in table.keys {
            keys.insert((table.title.to_owned(), (*key).to_owned()));
            tables.extend(table.below(key));
        }
    }
    keys
}

/// The same of every heading of `docs/config.md`, each with the text below it.
fn documented() -> Vec<(String, String, String)> {
    let text = read("docs/config.md");
    let mut section = String::new();
    let mut below = "";
    let mut found: Vec<(String, String, String)> = Vec::new();
    for line in text.lines() {
        let quoted = |prefix: &str| {
            line.strip_prefix(prefix)?
                .strip_prefix('`')?
                .strip_suffix('`')
        };
        if line.starts_with("## ") {
            section = quoted("## ").unwrap_or_default().to_owned();
        } else if let Some(key) = quoted("### ") {
            below = if key == "nodes" { "a node" } else { "health" };
            found.push((section.clone(), key.to_owned(), String::new()));
        } else if let Some(key) = quoted("#### ") {
            found.push((below.to_owned(), key.to_owned(), String::new()));
        } else if let Some((_, _, below)) = found.last_mut() {
            below.push_str(line);
            below.push('\n');
        }
    }
    found
}

#[test]
fn the_manual_describes_every_key_and_no_other() {
    let documented: BTreeSet<_> = documented()
        .into_iter()
        .map(|(section, key, _)| (section, key))
        .collect();
    assert_eq!(documented, keys());
}

#[test]
fn each_key_has_type_default_and_example() {
    for (section, key, below) in documented() {
        for row in ["| type |", "| default |", "| example |"] {
            assert!(below.contains(row), "{section} {key} has no {row}");
        }
        let example = below
            .lines()
            .find(|line| line.starts_with("| example |"))
            .unwrap();
        assert!(
            example.contains(&format!("{key} =")),
            "{section} {key}: {example}"
        );
    }
}

#[test]
fn the_example_file_shows_every_key() {
    let text = read("packaging/forwarder.toml.example");
    for (section, key) in keys() {
        let shown = text.lines().any(|line| {
            let line = line.trim_start().trim_start_matches("# ");
            line.starts_with(&format!("{key} =")) || line.contains(&format!(" {key} ="))
        });
        assert!(shown, "{section} {key}");
    }
}

#[test]
fn the_example_file_and_the_manual_are_valid() {
    let example = read("packaging/forwarder.toml.example");
    let manual = read("docs/config.md");
    let manual = manual
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let with_health = example.replace("\n# health = ", "\nhealth = ");
    assert_ne!(with_health, example);
    for text in [example.as_str(), with_health.as_str(), manual] {
        let outcome = config::parse(Path::new("example"), text);
        assert_eq!(
            outcome.report.diagnostics.len(),
            0,
            "{}",
            outcome.report.render(false)
        );
    }
}

/// A commented key shows its default: taking the comment away changes nothing.
#[test]
fn commented_keys_show_their_defaults() {
    let example = read("packaging/forwarder.toml.example");
    let uncommented: Vec<String> = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) && !shows_no_default(rest) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let parse = |text: &str| {
        let mut config = config::parse(Path::new("example"), text).config.unwrap();
        config.digest = 0;
        config
    };
    let with = parse(&uncommented.join("\n"));
    let without = parse(&example);
    assert_ne!(uncommented.join("\n"), example.trim_end());
    assert_eq!(plain(&with), plain(&without));
}

/// Keys whose default no value stands for.
fn shows_no_default(line: &str) -> bool {
    ["addresses", "health", "country", "asn"]
        .iter()
        .any(|key| line.starts_with(key))
}

fn is_key(line: &str) -> bool {
    let name = line.split(" =").next().unwrap_or_default();
    line.contains(" = ")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A configuration without the places of its values in the file.
fn plain(config: &config::Config) -> String {
    let text = format!("{config:?}");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("span: ") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once(',').map_or("", |(_, after)| after);
    }
    out + rest
}

/// `UPDATE=1 cargo test -p forwarder --test documentation` writes it anew.
#[test]
fn the_metric_reference_is_what_the_code_says() {
    let page = forwarder::telemetry::metrics::reference::page();
    if std::env::var_os("UPDATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        fs::write(path, &page).unwrap();
    }
    assert_eq!(read("docs/metrics.md"), page, "run the test with UPDATE=1");
}

/// Before an upgrade the package says which layouts the daemon in it cannot take over, so it has to know the others.
#[test]
fn the_package_knows_the_layouts() {
    use forwarder::dataplane::upgrade::predecessor::CONVERTIBLE;
    let script = read("packaging/debian/preinst");
    let mut known: Vec<String> = CONVERTIBLE.iter().map(|own| format!("v{own}")).collect();
    known.push(format!("v{}", forwarder_common::abi::ABI_VERSION));
    let line = format!("'v*' | {}) ;;", known.join(" | "));
    assert!(script.contains(&line), "{line}");
}

/// The exit code that the unit does not restart is the one that `run` documents.
#[test]
fn the_unit_knows_the_exit_code() {
    let unit = read("packaging/forwarder.service");
    assert!(unit.contains("RestartPreventExitStatus=78"));
    let run = read("forwarder/src/cli/run.rs");
    assert!(run.contains("LASTING: u8 = 78"));
}
