//! From text to [`RawConfig`], collecting every syntax error, unknown key and wrong type.
//!
//! Several files are read one by one and laid together: lists of sections become one list, other
//! sections stand in one of the files.
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
use super::sources::Sources;
use super::{suggest, syntax};

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

/// Reads all files of a configuration.
pub fn read(sources: &Sources) -> Shape {
    let (mut reader, whole) = match parse(sources) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            return Shape {
                diagnostics,
                ..Shape::default()
            };
        }
    };
    let deserializer = toml::de::Deserializer::from(whole);
    let raw = match RawConfig::deserialize(deserializer) {
        Ok(raw) => raw,
        // What was read is used up. A configuration with errors is read once more rather than every one copied:
        // there may be a million names in it.
        Err(_) => {
            let mut raw = RawConfig::default();
            if let Ok((again, mut whole)) = parse(sources) {
                reader = again;
                raw = reader.deserialize(&mut whole, sources);
            }
            raw
        }
    };
    Shape {
        raw,
        diagnostics: reader.diagnostics,
        is_toml: true,
        lost: reader.lost,
    }
}

/// The document that all files make, without unknown keys; or where they are no TOML.
fn parse(sources: &Sources) -> Result<(Reader, Spanned<DeTable<'_>>), Vec<Diagnostic>> {
    let mut reader = Reader::default();
    let mut syntax = Vec::new();
    let mut whole = DeTable::new();
    for source in sources.files() {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        syntax.extend(syntax::findings(source, &errors));
        if syntax.is_empty() {
            let table = match source.base() {
                0 => table.into_inner(),
                base => moved_table(table.into_inner(), base),
            };
            reader.lay_together(&mut whole, table);
        }
    }
    if !syntax.is_empty() {
        return Err(syntax);
    }
    reader.unknown_keys(&mut whole, &schema::root(), &mut Vec::new());
    Ok((reader, Spanned::new(sources.span(), whole)))
}

fn moved(span: Span, by: usize) -> Span {
    span.start + by..span.end + by
}

/// Makes the places of one file those of the whole configuration.
fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let entries = table.into_iter().map(|(key, value)| {
        let key = Spanned::new(moved(key.span(), by), key.into_inner());
        (key, moved_value(value, by))
    });
    entries.collect()
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(value.span(), by);
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(list) => {
            let list = list.into_iter().map(|element| moved_value(element, by));
            DeValue::Array(list.collect())
        }
        other => other,
    };
    Spanned::new(span, inner)
}

#[derive(Default)]
struct Reader {
    diagnostics: Vec<Diagnostic>,
    lost: BTreeSet<Place>,
}

impl Reader {
    /// Adds the sections of a further file.
    fn lay_together<'i>(&mut self, whole: &mut DeTable<'i>, more: DeTable<'i>) {
        let schema = schema::root();
        for (key, value) in more {
            let name = key.get_ref().to_string();
            if !schema.keys.contains(&name.as_str()) {
                self.unknown_key(&name, key.span(), &schema, &[]);
                continue;
            }
            let Some(known) = whole.get_mut(name.as_str()) else {
                whole.insert(key, value);
                continue;
            };
            let (first, again) = (known.span(), value.span());
            let title = schema.below(&name).map_or("", |below| below.title);
            let many = title.starts_with("[[");
            match (known.get_mut(), value.into_inner()) {
                (DeValue::Array(all), DeValue::Array(more)) if many => {
                    more.into_iter().for_each(|element| all.push(element));
                }
                // The first one is of the wrong type, which is reported in its turn.
                (_, DeValue::Array(_)) if many => {}
                _ if many => {
                    let finding = Diagnostic::error(
                        "wrong-type",
                        again,
                        format!("`{name}` has a value of the wrong type"),
                    );
                    self.diagnostics.push(brackets(finding, &name));
                    self.lost.insert((name, 0, String::new()));
                }
                _ => self.diagnostics.push(
                    Diagnostic::error(
                        "duplicate-section",
                        again,
                        format!("{title} stands in two files"),
                    )
                    .label("again here")
                    .related(first, "first here")
                    .help("it stands once in all files together: move its keys to one of them"),
                ),
            }
        }
    }

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
    fn deserialize(&mut self, table: &mut Spanned<DeTable<'_>>, sources: &Sources) -> RawConfig {
        loop {
            let deserializer = toml::de::Deserializer::from(table.clone());
            let error = match RawConfig::deserialize(deserializer) {
                Ok(raw) => return raw,
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..0);
            let mut path = Vec::new();
            let removed = remove_table(table.get_mut(), &span, &mut path);
            let said = sources.said(&span);
            self.diagnostics.push(type_error(&error, span, said, &path));
            if !removed {
                // Nothing to take out: report what there is rather than try for ever.
                return RawConfig::default();
            }
            self.lost.insert(place(&path));
        }
    }
}

fn type_error(error: &toml::de::Error, span: Span, said: &str, path: &[Step]) -> Diagnostic {
    let key = path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let message = match key {
        Some(key) => format!("`{key}` has a value of the wrong type"),
        None => String::from("a value of the wrong type"),
    };
    let finding = Diagnostic::error("wrong-type", span, message);
    if let ([_], Some(section)) = (path, key) {
        return brackets(finding, section);
    }
    let (found, expected) = error
        .message()
        .trim()
        .split_once(", expected ")
        .unwrap_or((error.message(), ""));
    let found = found
        .replace("invalid type: ", "this is ")
        .replace("this is string", "this is the text")
        .replace("integer", "the number")
        .replace("floating point", "the number")
        .replace("boolean", "the value")
        .replace("this is sequence", "this is a list");
    let found = match found.as_str() {
        // The parser hands a date over as a table.
        "this is map" if said.starts_with(|c: char| c.is_ascii_digit()) => "this is a date",
        "this is map" => "this is a table",
        other => other,
    };
    let key = key.unwrap_or_default();
    let (expected, fix) = match expected {
        "i64" => (
            "a whole number",
            format!("write digits only, like `{key} = 5`"),
        ),
        "a string" => ("text", String::from("write it in quotes, `\"…\"`")),
        "a sequence" => ("a list", format!("write `{key} = [ … ]`")),
        "a boolean" => (
            "`true` or `false`",
            format!("write `{key} = true` or `{key} = false`, without quotes"),
        ),
        other if other.starts_with("\"local\"") => (
            other,
            format!("write `{key} = \"local\"`, `{key} = \"proxy\"` or `{key} = false`"),
        ),
        other if other.starts_with("struct ") => ("a table", format!("write `{key} = {{ … }}`")),
        other => (
            other,
            String::from("write it like `\"10.0.0.2:443\"` or `{ address = \"10.0.0.2:443\" }`"),
        ),
    };
    finding
        .label(format!("{found}; expected {expected}"))
        .help(fix)
}

/// Says how a section is written.
fn brackets(finding: Diagnostic, section: &str) -> Diagnostic {
    let title = schema::root()
        .below(section)
        .map_or("", |below| below.title);
    if title.starts_with("[[") {
        finding.label("expected a list of tables").help(format!(
            "write `{title}`, with double brackets: there may be several"
        ))
    } else {
        finding.label("expected one table").help(format!(
            "write `{title}`, with single brackets: there is one"
        ))
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
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Shape {
        super::read(&Sources::new(Path::new("test.toml"), text))
    }

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
