//! From text to [`RawConfig`], collecting every syntax error, unknown key and wrong type.
//!
//! serde stops at its first error. To show all of them, what serde objects to is reported, taken out
//! of the document, and the rest is tried again. What was taken out is remembered, so that later
//! checks do not call a key missing that is merely wrong.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_spanned::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span};
use super::raw::RawConfig;
use super::schema::{self, Table};
use super::suggest;

/// Where a value stood: section, index in the section's list, key.
type Place = (String, usize, String);

/// What could be read, and what could not.
#[derive(Debug, Default)]
pub struct Shape {
    /// What could be read.
    pub raw: RawConfig,
    /// What could not.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the text is TOML at all; if not, `raw` says nothing.
    pub is_toml: bool,
    lost: BTreeSet<Place>,
}

impl Shape {
    /// Whether `key` of the `index`-th `section` was written, but could not be read.
    pub fn lost(&self, section: &str, index: usize, key: &str) -> bool {
        let place = |index, key: &str| (section.to_owned(), index, key.to_owned());
        self.lost.contains(&place(index, key)) || self.lost.contains(&place(0, ""))
    }
}

/// Reads `text`.
pub fn read(text: &str) -> Shape {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let diagnostics = errors.iter().map(|error| syntax_error(text, error));
        return Shape {
            diagnostics: diagnostics.collect(),
            ..Shape::default()
        };
    }
    let mut reader = Reader::default();
    reader.unknown_keys(table.get_mut(), &schema::root(), &mut Vec::new());
    let raw = reader.deserialize(&mut table);
    Shape {
        raw,
        diagnostics: reader.diagnostics,
        is_toml: true,
        lost: reader.lost,
    }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let mut finding = Diagnostic::error("syntax", span, "this is not TOML").label(error.message());
    if error.message().contains("duplicate key") {
        finding = finding.help("a key stands once in a table; for a further listener, pool or route start a new `[[…]]`");
    }
    finding
}

#[derive(Default)]
struct Reader {
    diagnostics: Vec<Diagnostic>,
    lost: BTreeSet<Place>,
}

impl Reader {
    /// Reports and removes keys that the schema does not know.
    fn unknown_keys(&mut self, table: &mut DeTable<'_>, schema: &Table, path: &mut Vec<Step>) {
        let unknown: Vec<_> = table
            .keys()
            .filter(|key| !schema.keys.contains(&key.get_ref().as_ref()))
            .map(|key| (key.get_ref().to_string(), key.span()))
            .collect();
        for (key, span) in unknown {
            table.remove(key.as_str());
            self.unknown_key(&key, span, schema, path);
        }
        for (key, value) in table.iter_mut() {
            let Some(below) = schema.below(key.get_ref()) else {
                continue;
            };
            path.push(Step::Key(key.get_ref().to_string()));
            match value.get_mut() {
                DeValue::Table(inner) => self.unknown_keys(inner, &below, path),
                DeValue::Array(list) => {
                    for (index, element) in list.iter_mut().enumerate() {
                        if let DeValue::Table(inner) = element.get_mut() {
                            path.push(Step::Index(index));
                            self.unknown_keys(inner, &below, path);
                            path.pop();
                        }
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }

    fn unknown_key(&mut self, key: &str, span: Span, schema: &Table, path: &[Step]) {
        let meant = suggest::closest(key, schema.keys.iter().copied());
        let mut finding = Diagnostic::error("unknown-key", span, format!("unknown key `{key}`"))
            .label(format!("{} has no such key", schema.title))
            .suggest(meant);
        if meant.is_none() {
            let known = schema.keys.iter().copied();
            finding = finding.help(format!("its keys are {}", suggest::alternatives(known)));
        }
        self.diagnostics.push(finding);
        // A misspelt key is not reported a second time as missing.
        if let Some(meant) = meant {
            let mut path = path.to_vec();
            path.push(Step::Key(meant.to_owned()));
            self.lost.insert(place(&path));
        }
    }

    /// Deserializes, taking out what does not fit until the rest does.
    fn deserialize(&mut self, table: &mut Spanned<DeTable<'_>>) -> RawConfig {
        loop {
            let deserializer = toml::de::Deserializer::from(table.clone());
            let error = match RawConfig::deserialize(deserializer) {
                Ok(raw) => return raw,
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..0);
            let mut path = Vec::new();
            let removed = remove_table(table.get_mut(), &span, &mut path);
            self.diagnostics.push(type_error(&error, span, &path));
            if !removed {
                // Nothing to take out: report what there is rather than try for ever.
                return RawConfig::default();
            }
            self.lost.insert(place(&path));
        }
    }
}

fn type_error(error: &toml::de::Error, span: Span, path: &[Step]) -> Diagnostic {
    let key = path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let message = match key {
        Some(key) => format!("`{key}` has a value of the wrong type"),
        None => String::from("a value of the wrong type"),
    };
    let label = error
        .message()
        .trim()
        .replace("invalid type: ", "this is ")
        .replace("expected i64", "expected a whole number")
        .replace("this is map", "this is a table")
        .replace("this is sequence", "this is a list")
        .replace("expected a sequence", "expected a list")
        .replace("integer", "the number")
        .replace(", expected", "; expected");
    let finding = Diagnostic::error("wrong-type", span, message).label(label);
    match (path.len(), key) {
        (1, Some(key @ ("entrance" | "metrics" | "flow_log" | "geoip"))) => finding.help(format!(
            "write `[{key}]`, with single brackets: there is one"
        )),
        (1, Some(key)) => finding.help(format!(
            "write `[[{key}]]`, with double brackets: there may be several"
        )),
        _ => finding,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// Section, index and key of a path; a lost section as a whole has an empty key.
fn place(path: &[Step]) -> Place {
    let keys: Vec<_> = path
        .iter()
        .filter_map(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Index(_) => None,
        })
        .collect();
    let index = match path.get(1) {
        Some(Step::Index(index)) => *index,
        _ => 0,
    };
    let section = keys.first().cloned().unwrap_or_default();
    (section, index, keys.get(1).cloned().unwrap_or_default())
}

/// Removes the innermost value that holds `at`; says whether there was one and leaves its path.
fn remove_table(table: &mut DeTable<'_>, at: &Span, path: &mut Vec<Step>) -> bool {
    let mut direct = None;
    for (key, value) in table.iter_mut() {
        path.push(Step::Key(key.get_ref().to_string()));
        if remove_below(value, at, path) {
            return true;
        }
        path.pop();
        if holds(&value.span(), at) || holds(&key.span(), at) {
            direct = Some(key.get_ref().to_string());
        }
    }
    let Some(key) = direct else {
        return false;
    };
    table.remove(key.as_str());
    path.push(Step::Key(key));
    true
}

fn remove_below(value: &mut Spanned<DeValue<'_>>, at: &Span, path: &mut Vec<Step>) -> bool {
    match value.get_mut() {
        DeValue::Table(inner) => remove_table(inner, at, path),
        DeValue::Array(list) => {
            let mut wrong = None;
            for (index, element) in list.iter_mut().enumerate() {
                path.push(Step::Index(index));
                if remove_below(element, at, path) {
                    return true;
                }
                // An element of a section's own list stays: the indices of its siblings are
                // what `Shape::lost` answers with.
                if path.len() > 2 && holds(&element.span(), at) {
                    wrong = Some(index);
                    break;
                }
                path.pop();
            }
            if let Some(wrong) = wrong {
                let all = std::mem::replace(list, DeArray::new()).into_iter();
                let kept = all.enumerate().filter(|(index, _)| *index != wrong);
                *list = kept.map(|(_, element)| element).collect();
                return true;
            }
            false
        }
        _ => false,
    }
}

fn holds(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(&'static str, String)> {
        let found = read(text).diagnostics;
        let said = |span: Span| text.get(span).unwrap_or_default().to_owned();
        found.into_iter().map(|d| (d.code, said(d.span))).collect()
    }

    #[test]
    fn collects_every_wrong_type() {
        let text = "[entrance]\nmax_flows = \"many\"\npublic = [\"eth0\", 5]\n[[listener]]\nport = true\n[[pool]]\nnodes = [7, { address = 1 }]\n";
        let found = codes(text);
        let places: Vec<_> = found.iter().map(|(_, said)| said.as_str()).collect();
        for wrong in ["\"many\"", "5", "true", "7", "1"] {
            assert!(places.contains(&wrong), "{wrong} not in {places:?}");
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn what_is_right_survives_what_is_wrong() {
        let shape = read("[entrance]\nmax_flows = \"many\"\npublic = [\"eth0\", 5]\n");
        let entrance = shape.raw.entrance.as_ref().unwrap().get_ref();
        let public = entrance.public.as_ref().unwrap().get_ref();
        assert_eq!(public.len(), 1);
        assert!(shape.lost("entrance", 0, "max_flows"));
        assert!(!shape.lost("entrance", 0, "tunnels"));
    }

    #[test]
    fn unknown_keys_at_every_level_are_found() {
        let text = "titel = 1\n[entrance]\npulbic = []\n[[pool]]\nnodes = [{ adress = \"x\" }]\n[[pool]]\nfoo = 1\n";
        let shape = read(text);
        assert_eq!(shape.diagnostics.len(), 4);
        assert!(shape.lost("entrance", 0, "public"));
        assert!(!shape.lost("pool", 1, "nodes"));
    }

    #[test]
    fn single_brackets_are_explained() {
        let shape = read("[listener]\nname = \"https\"\n");
        assert_eq!(shape.diagnostics.len(), 1);
        assert!(shape.diagnostics[0].help[0].contains("[[listener]]"));
        assert!(shape.lost("listener", 3, "name"));
    }

    #[test]
    fn several_syntax_errors_are_all_reported() {
        let shape = read("a = \nb = 1\nc = ]\n");
        assert!(!shape.is_toml);
        assert!(shape.diagnostics.len() >= 2);
    }

    #[test]
    fn node_list_takes_text_and_tables() {
        let shape = read(
            "[[pool]]\nnodes = [\"10.0.0.2:443\", { name = \"a\", address = \"10.0.0.3:443\" }]\n",
        );
        assert!(shape.diagnostics.is_empty(), "{:?}", shape.diagnostics);
        let pool = shape.raw.pool[0].get_ref();
        assert_eq!(pool.nodes.as_ref().unwrap().get_ref().len(), 2);
    }
}
