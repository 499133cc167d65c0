//! Writes an edit into the configuration files, comments and layout kept.
//!
//! An edit goes where the thing it is about stands: a weight to the file that lists the node, a removed name
//! to the file (or files) with its route, and a new route to the file that defines its pool. What the files
//! say afterwards is read again and compared with what the edit means, before anything is written.

use std::path::PathBuf;

use thiserror::Error;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::diagnostic::Report;
use super::difference::Difference;
use super::edit::{Edit, EditError, selects};
use super::replacement::{ReplaceError, Replacement, replace_all};
use super::sources::Sources;
use crate::config::model::Pattern;

/// Why the files were not changed.
#[derive(Debug, Error)]
pub enum PersistError {
    /// They cannot be written, or somebody else has just written one.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// One is not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml_edit::TomlError>,
    },
    /// They hold errors, or would.
    #[error("with this edit the configuration file would have errors")]
    Invalid(Box<Report>),
    /// Nothing in them corresponds to the edit.
    #[error("{files} has no such {what}")]
    Absent {
        /// Of what sort.
        what: &'static str,
        /// The files.
        files: String,
    },
    /// They say something else than what is in use, so that the edit makes no sense there.
    #[error("{files} says otherwise: {source}")]
    Otherwise {
        /// The files.
        files: String,
        /// What they say.
        source: EditError,
    },
    /// The files are written in a way that this program can read but not edit.
    #[error("{files} cannot be edited: its layout is not understood")]
    Layout {
        /// The files.
        files: String,
    },
    /// The files cannot say this.
    #[error("the state of a node is not part of the configuration file")]
    NoKey,
    /// The files cannot say this either.
    #[error("a weight of 0 is not part of the configuration file")]
    NoWeight,
}

/// The files as they will be.
#[derive(Debug)]
pub struct Pending {
    /// As they were read.
    before: Sources,
    sources: Sources,
    changed: Vec<PathBuf>,
}

/// Prepares the files with `edit`; nothing is written yet.
pub fn prepare(sources: &Sources, edit: &Edit) -> Result<Pending, PersistError> {
    match edit {
        Edit::State { .. } => return Err(PersistError::NoKey),
        Edit::Weight { weight: 0, .. } => return Err(PersistError::NoWeight),
        _ => {}
    }
    let before = super::validate(sources.clone());
    let Some(before) = before.config else {
        return Err(PersistError::Invalid(Box::new(before.report)));
    };
    let files = || sources.title();
    let (new, changed) = edited(sources, edit)?;
    let outcome = super::validate(new.clone());
    let Some(after) = outcome.config else {
        return Err(PersistError::Invalid(Box::new(outcome.report)));
    };
    let meant = edit
        .apply(&before)
        .map_err(|source| PersistError::Otherwise {
            files: files(),
            source,
        })?;
    if !Difference::between(&meant, &after).is_empty() {
        return Err(PersistError::Layout { files: files() });
    }
    Ok(Pending {
        before: sources.clone(),
        sources: new,
        changed,
    })
}

impl Pending {
    /// Replaces each file that changes, all or none; returns what the files hold now, and which were written. A file
    /// that somebody has changed since it was read stays as it is, and so do the others.
    pub fn write(self) -> Result<(Sources, Vec<PathBuf>), PersistError> {
        let files = self.before.files().zip(self.sources.files());
        let changed = files.filter(|(_, new)| self.changed.contains(&new.path));
        let replacements: Vec<_> = changed
            .map(|(old, new)| Replacement {
                path: &new.path,
                old: &old.text,
                new: &new.text,
            })
            .collect();
        replace_all(&replacements)?;
        Ok((self.sources, self.changed))
    }
}

/// The files with the edit in them, and which of them it is.
fn edited(sources: &Sources, edit: &Edit) -> Result<(Sources, Vec<PathBuf>), PersistError> {
    let mut documents = Vec::new();
    for source in sources.files() {
        let document: DocumentMut = source.text.parse().map_err(|error| PersistError::Syntax {
            path: source.path.clone(),
            source: Box::new(error),
        })?;
        documents.push((source, document));
    }
    let absent = |what| PersistError::Absent {
        what,
        files: sources.title(),
    };
    match edit {
        Edit::AddRoute {
            names,
            pool,
            listeners,
        } => {
            let home = documents
                .iter_mut()
                .find_map(|(_, document)| defines_pool(document, pool).then_some(document));
            let home = home.ok_or_else(|| absent("pool"))?;
            add_route(home, names, pool, listeners.as_deref());
        }
        Edit::RemoveNames { names } => {
            let wanted: Vec<_> = names.iter().map(|name| Pattern::parse(name).ok()).collect();
            let mut missing = wanted.clone();
            for (_, document) in &mut documents {
                remove_names(document, &wanted, &mut missing);
            }
            if !missing.is_empty() {
                return Err(absent("route"));
            }
        }
        Edit::Weight { node, pool, weight } => {
            let mut found = false;
            for (_, document) in &mut documents {
                found |= set_weight(document, node, pool.as_deref(), *weight);
            }
            if !found {
                return Err(absent("node"));
            }
        }
        Edit::State { .. } => return Err(PersistError::NoKey),
    }
    let mut new = sources.clone();
    let mut changed = Vec::new();
    for (source, document) in documents {
        let text = document.to_string();
        if text != source.text {
            new = new.with(&source.path, &text);
            changed.push(source.path.clone());
        }
    }
    Ok((new, changed))
}

/// The tables of a list of sections, in either form.
fn sections<'a>(
    document: &'a mut DocumentMut,
    key: &str,
) -> Box<dyn Iterator<Item = &'a mut dyn TableLike> + 'a> {
    match document.get_mut(key) {
        Some(Item::ArrayOfTables(tables)) => {
            Box::new(tables.iter_mut().map(|table| table as &mut dyn TableLike))
        }
        Some(Item::Value(Value::Array(list))) => Box::new(
            list.iter_mut()
                .filter_map(Value::as_inline_table_mut)
                .map(|table| table as &mut dyn TableLike),
        ),
        _ => Box::new(std::iter::empty()),
    }
}

fn defines_pool(document: &mut DocumentMut, pool: &str) -> bool {
    sections(document, "pool").any(|own| own.get("name").and_then(Item::as_str) == Some(pool))
}

fn add_route(document: &mut DocumentMut, names: &[String], pool: &str, on: Option<&[String]>) {
    let list = |items: &[String]| Value::from_iter(items.iter().map(String::as_str));
    let mut route = Table::new();
    route.insert("names", Item::Value(list(names)));
    route.insert("pool", pool.into());
    if let Some(listeners) = on {
        route.insert("listeners", Item::Value(list(listeners)));
    }
    let routes = document
        .entry("route")
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    match routes {
        Item::ArrayOfTables(routes) => routes.push(route),
        Item::Value(Value::Array(routes)) => routes.push(route.into_inline_table()),
        _ => {}
    }
}

/// Removes the names `wanted`; those that are here are no longer `missing`.
fn remove_names(
    document: &mut DocumentMut,
    wanted: &[Option<Pattern>],
    missing: &mut Vec<Option<Pattern>>,
) {
    for route in sections(document, "route") {
        let Some(list) = route.get_mut("names").and_then(Item::as_array_mut) else {
            continue;
        };
        list.retain(|name| {
            let pattern = name.as_str().and_then(|name| Pattern::parse(name).ok());
            missing.retain(|own| *own != pattern);
            pattern.is_none() || !wanted.contains(&pattern)
        });
    }
    let has_names = |route: &dyn TableLike| {
        let names = route.get("names").and_then(Item::as_array);
        names.is_none_or(|names| !names.is_empty())
    };
    match document.get_mut("route") {
        Some(Item::ArrayOfTables(routes)) => routes.retain(|route| has_names(route)),
        Some(Item::Value(Value::Array(routes))) => {
            routes.retain(|route| route.as_inline_table().is_none_or(|own| has_names(own)));
        }
        _ => {}
    }
}

/// Says whether there was such a node.
fn set_weight(document: &mut DocumentMut, node: &str, pool: Option<&str>, weight: u16) -> bool {
    let mut found = false;
    for own in sections(document, "pool") {
        let name = own.get("name").and_then(Item::as_str);
        if pool.is_some_and(|pool| name != Some(pool)) {
            continue;
        }
        match own.get_mut("nodes") {
            Some(Item::Value(Value::Array(nodes))) => {
                for value in nodes.iter_mut() {
                    found |= weigh(value, node, weight);
                }
            }
            Some(Item::ArrayOfTables(nodes)) => {
                for table in nodes.iter_mut() {
                    if is_meant(table, node) {
                        table.insert("weight", i64::from(weight).into());
                        found = true;
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn weigh(value: &mut Value, selector: &str, weight: u16) -> bool {
    if let Value::InlineTable(table) = value {
        if !is_meant(table, selector) {
            return false;
        }
        table.insert("weight", i64::from(weight).into());
        // Else the blank before the brace stays before the new comma.
        table.fmt();
        return true;
    }
    let Some(text) = value.as_str() else {
        return false;
    };
    if !text.parse().is_ok_and(|at| selects(selector, text, at)) {
        return false;
    }
    let mut table = InlineTable::new();
    table.insert("address", text.into());
    table.insert("weight", i64::from(weight).into());
    let decor = value.decor().clone();
    *value = Value::InlineTable(table);
    *value.decor_mut() = decor;
    true
}

fn is_meant(table: &dyn TableLike, selector: &str) -> bool {
    let text = |key| table.get(key).and_then(Item::as_str);
    let name = text("name").unwrap_or_default();
    let address = text("address").and_then(|text| text.parse().ok());
    address.is_some_and(|address| selects(selector, name, address))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const TEXT: &str = "# top\n[entrance]\npublic = [\"eth0\"] # the one\ntunnels = [\"wg0\"]\n\n[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n\n[[pool]]\nclient_address = \"transparent\"\nname = \"k3s\"\nnodes = [\n  \"10.0.0.2:443\", # first\n  { name = \"thinkpad\", address = \"10.0.0.3:443\" },\n]\n\n# the site\n[[route]]\nnames = [\"a.example.org\", \"b.example.org\"] # two\npool = \"k3s\"\n";

    fn written(edit: &Edit) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forwarder.toml");
        fs::write(&path, TEXT).unwrap();
        let before = Sources::read(&path).unwrap();
        let (after, changed) = prepare(&before, edit).unwrap().write().unwrap();
        assert_eq!(changed, [path.as_path()]);
        assert_eq!(Sources::read(&path).unwrap(), after);
        fs::read_to_string(&path).unwrap()
    }

    /// What an edit of `main` with one drop-in changes: the name of the file, and its text.
    fn written_with_drop_in(main: &str, drop_in: &str, edit: &Edit) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forwarder.toml");
        fs::write(&path, main).unwrap();
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        fs::write(directory.path().join("conf.d/shop.toml"), drop_in).unwrap();
        let before = Sources::read(&path).unwrap();
        let (after, changed) = prepare(&before, edit).unwrap().write().unwrap();
        assert_eq!(Sources::read(&path).unwrap(), after);
        let named = changed.iter().map(|path| {
            let name = path.strip_prefix(directory.path()).unwrap();
            (
                name.display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        });
        named.collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_route_is_appended() {
        let text = written(&Edit::AddRoute {
            names: names(&["c.example.org"]),
            pool: String::from("k3s"),
            listeners: None,
        });
        let tail = "\n[[route]]\nnames = [\"c.example.org\"]\npool = \"k3s\"\n";
        assert_eq!(text, format!("{TEXT}{tail}"));
    }

    #[test]
    fn a_name_goes_and_the_comments_stay() {
        let edit = Edit::RemoveNames {
            names: names(&["A.example.org"]),
        };
        let text = written(&edit);
        assert!(
            text.contains("# the site") && text.contains("# two"),
            "{text}"
        );
        assert!(!text.contains("a.example.org") && text.contains("b.example.org"));
        let both = Edit::RemoveNames {
            names: names(&["a.example.org", "b.example.org"]),
        };
        assert!(!written(&both).contains("[[route]]"));
    }

    #[test]
    fn weights_are_written_in_either_form() {
        for (node, expected) in [
            (
                "10.0.0.2",
                "{ address = \"10.0.0.2:443\", weight = 7 }, # first",
            ),
            ("thinkpad", "address = \"10.0.0.3:443\", weight = 7 }"),
        ] {
            let edit = Edit::Weight {
                node: node.to_owned(),
                pool: None,
                weight: 7,
            };
            let text = written(&edit);
            assert!(text.contains(expected), "{text}");
        }
    }

    const SHOP: &str = "# the shop\n[[pool]]\nclient_address = \"transparent\"\nname = \"shop\"\nnodes = [\"10.0.0.9:443\"] # one\n\n[[route]]\nnames = [\"shop.example.org\", \"b.example.com\"]\npool = \"shop\"\n";

    #[test]
    fn an_edit_goes_to_the_file_of_its_thing() {
        let add = |pool: &str| Edit::AddRoute {
            names: names(&["c.example.org"]),
            pool: pool.to_owned(),
            listeners: None,
        };
        let tail =
            |pool: &str| format!("\n[[route]]\nnames = [\"c.example.org\"]\npool = \"{pool}\"\n");
        assert_eq!(
            written_with_drop_in(TEXT, SHOP, &add("shop")),
            [(
                String::from("conf.d/shop.toml"),
                format!("{SHOP}{}", tail("shop"))
            )]
        );
        assert_eq!(
            written_with_drop_in(TEXT, SHOP, &add("k3s")),
            [(
                String::from("forwarder.toml"),
                format!("{TEXT}{}", tail("k3s"))
            )]
        );
        let weight = Edit::Weight {
            node: String::from("10.0.0.9"),
            pool: None,
            weight: 3,
        };
        let expected = SHOP.replace(
            "[\"10.0.0.9:443\"]",
            "[{ address = \"10.0.0.9:443\", weight = 3 }]",
        );
        assert_eq!(
            written_with_drop_in(TEXT, SHOP, &weight),
            [(String::from("conf.d/shop.toml"), expected)]
        );
        // Names of two files go from both at once.
        let remove = Edit::RemoveNames {
            names: names(&["b.example.org", "shop.example.org"]),
        };
        let changed = written_with_drop_in(TEXT, SHOP, &remove);
        assert_eq!(changed.len(), 2);
        assert!(
            changed[0].1.contains("names = [\"a.example.org\"] # two"),
            "{changed:?}"
        );
        assert!(
            changed[1].1.contains("names = [ \"b.example.com\"]"),
            "{changed:?}"
        );
    }

    #[test]
    fn routes_in_one_line_are_edited_too() {
        let at = TEXT.find("# the site").unwrap();
        let main = format!(
            "route = [{{ names = [\"a.example.org\"], pool = \"k3s\" }}]\n{}",
            &TEXT[..at]
        );
        let add = Edit::AddRoute {
            names: names(&["c.example.org"]),
            pool: String::from("k3s"),
            listeners: Some(names(&["https"])),
        };
        let changed = written_with_drop_in(&main, SHOP, &add);
        let expected = "route = [{ names = [\"a.example.org\"], pool = \"k3s\" }, { names = [\"c.example.org\"], pool = \"k3s\", listeners = [\"https\"] }]\n";
        assert!(changed[0].1.starts_with(expected), "{}", changed[0].1);
        let remove = Edit::RemoveNames {
            names: names(&["a.example.org"]),
        };
        let changed = written_with_drop_in(&main, SHOP, &remove);
        assert!(changed[0].1.starts_with("route = []\n"), "{}", changed[0].1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, real) = (
            directory.path().join("forwarder.toml"),
            directory.path().join("real"),
        );
        fs::write(&real, TEXT).unwrap();
        std::os::unix::fs::symlink("real", &path).unwrap();
        let edit = Edit::RemoveNames {
            names: names(&["a.example.org"]),
        };
        let sources = Sources::read(&path).unwrap();
        prepare(&sources, &edit).unwrap().write().unwrap();
        assert!(path.is_symlink());
        assert!(!fs::read_to_string(&real).unwrap().contains("a.example.org"));
    }

    #[test]
    fn what_an_editor_saved_meanwhile_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forwarder.toml");
        fs::write(&path, TEXT).unwrap();
        let edit = Edit::RemoveNames {
            names: names(&["a.example.org"]),
        };
        let sources = Sources::read(&path).unwrap();
        let pending = prepare(&sources, &edit).unwrap();
        let theirs = format!("{TEXT}# theirs\n");
        fs::write(&path, &theirs).unwrap();
        let error = pending.write().unwrap_err();
        assert!(error.to_string().contains("by somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_the_files_cannot_say_is_refused() {
        let sources = Sources::new(Path::new("x.toml"), TEXT);
        let weight = |node: &str, weight| Edit::Weight {
            node: node.to_owned(),
            pool: None,
            weight,
        };
        let zero = prepare(&sources, &weight("thinkpad", 0));
        assert!(matches!(zero, Err(PersistError::NoWeight)));
        let large = prepare(&sources, &weight("thinkpad", 1_001));
        assert!(matches!(large, Err(PersistError::Invalid(_))), "{large:?}");
        for absent in [
            Edit::RemoveNames {
                names: names(&["zz.example.org"]),
            },
            weight("zz", 1),
            Edit::AddRoute {
                names: names(&["c.example.org"]),
                pool: String::from("zz"),
                listeners: None,
            },
        ] {
            let error = prepare(&sources, &absent).unwrap_err();
            assert!(matches!(error, PersistError::Absent { .. }), "{error}");
        }
        let broken = Sources::new(Path::new("x.toml"), TEXT.replace("443", "444444"));
        let error = prepare(&broken, &weight("thinkpad", 2)).unwrap_err();
        assert!(matches!(error, PersistError::Invalid(_)), "{error}");
    }
}
