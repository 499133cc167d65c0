//! Writes an edit into the configuration file, comments and layout kept.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use forwarder_common::name::Pattern;
use thiserror::Error;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::diagnostic::Report;
use super::edit::{Edit, selects};

/// Why the file was not changed.
#[derive(Debug, Error)]
pub enum PersistError {
    /// It cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("the file is not TOML")]
    Syntax(#[source] Box<toml_edit::TomlError>),
    /// It holds errors, or would.
    #[error("with this edit the file would have errors")]
    Invalid(Box<Report>),
    /// Nothing in the file corresponds to the edit.
    #[error("{} has no such {what}", path.display())]
    Absent {
        /// Of what sort.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot say this.
    #[error("the state of a node is not part of the configuration file")]
    NoKey,
}

/// A file as it will be.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    text: String,
    digest: u64,
}

/// Prepares the file at `path` with `edit`; nothing is written yet.
pub fn prepare(path: &Path, edit: &Edit) -> Result<Pending, PersistError> {
    let text = fs::read_to_string(path).map_err(|source| PersistError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    let text = edited(path, &text, edit)?;
    let outcome = super::parse(path, text.as_str());
    let Some(config) = outcome.config else {
        return Err(PersistError::Invalid(Box::new(outcome.report)));
    };
    Ok(Pending {
        path: path.to_owned(),
        text,
        digest: config.digest,
    })
}

impl Pending {
    /// What [`Config::digest`](super::Config::digest) will be of the file.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Replaces the file at once; owner and mode stay.
    pub fn write(self) -> Result<(), PersistError> {
        let write = || {
            let path = fs::canonicalize(&self.path)?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let new = directory.join(format!(".{name}.new"));
            let mut file = fs::File::create(&new)?;
            file.set_permissions(fs::metadata(&path)?.permissions())?;
            let owner = fs::metadata(&path)?;
            use std::os::unix::fs::MetadataExt;
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            file.write_all(self.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| PersistError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }
}

fn edited(path: &Path, text: &str, edit: &Edit) -> Result<String, PersistError> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error| PersistError::Syntax(Box::new(error)))?;
    let path = path.to_owned();
    let absent = |what| PersistError::Absent { what, path };
    match edit {
        Edit::AddRoute {
            names,
            pool,
            listeners,
        } => add_route(&mut document, names, pool, listeners.as_deref()),
        Edit::RemoveNames { names } => {
            if !remove_names(&mut document, names) {
                return Err(absent("route"));
            }
        }
        Edit::State { .. } => return Err(PersistError::NoKey),
        Edit::Weight { node, pool, weight } => {
            if !set_weight(&mut document, node, pool.as_deref(), *weight) {
                return Err(absent("node"));
            }
        }
    }
    Ok(document.to_string())
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
    if let Some(routes) = routes.as_array_of_tables_mut() {
        routes.push(route);
    }
}

/// Says whether each name was there.
fn remove_names(document: &mut DocumentMut, names: &[String]) -> bool {
    let Some(routes) = document
        .get_mut("route")
        .and_then(Item::as_array_of_tables_mut)
    else {
        return false;
    };
    let mut missing: Vec<Option<Pattern>> =
        names.iter().map(|name| Pattern::parse(name).ok()).collect();
    let wanted: Vec<Option<Pattern>> = missing.clone();
    for route in routes.iter_mut() {
        let Some(list) = route.get_mut("names").and_then(Item::as_array_mut) else {
            continue;
        };
        list.retain(|name| {
            let pattern = name.as_str().and_then(|name| Pattern::parse(name).ok());
            missing.retain(|own| *own != pattern);
            pattern.is_none() || !wanted.contains(&pattern)
        });
    }
    routes.retain(|route| {
        let names = route.get("names").and_then(Item::as_array);
        names.is_none_or(|names| !names.is_empty())
    });
    missing.is_empty()
}

/// Says whether there was such a node.
fn set_weight(document: &mut DocumentMut, node: &str, pool: Option<&str>, weight: u16) -> bool {
    let mut found = false;
    let Some(pools) = document
        .get_mut("pool")
        .and_then(Item::as_array_of_tables_mut)
    else {
        return false;
    };
    for own in pools.iter_mut() {
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
    use super::*;

    const TEXT: &str = "# top\n[entrance]\npublic = [\"eth0\"] # the one\ntunnels = [\"wg0\"]\n\n[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n\n[[pool]]\nname = \"k3s\"\nnodes = [\n  \"10.0.0.2:443\", # first\n  { name = \"thinkpad\", address = \"10.0.0.3:443\" },\n]\n\n# the site\n[[route]]\nnames = [\"a.example.org\", \"b.example.org\"] # two\npool = \"k3s\"\n";

    fn written(edit: &Edit) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forwarder.toml");
        fs::write(&path, TEXT).unwrap();
        prepare(&path, edit).unwrap().write().unwrap();
        fs::read_to_string(&path).unwrap()
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

    #[test]
    fn an_edit_that_would_break_the_file_is_refused() {
        let edit = Edit::Weight {
            node: String::from("thinkpad"),
            pool: None,
            weight: 0,
        };
        let result = edited(Path::new("x"), TEXT, &edit).unwrap();
        assert!(super::super::parse(Path::new("x"), result).config.is_none());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forwarder.toml");
        fs::write(&path, TEXT).unwrap();
        assert!(matches!(
            prepare(&path, &edit),
            Err(PersistError::Invalid(_))
        ));
        let absent = Edit::RemoveNames {
            names: names(&["zz.example.org"]),
        };
        assert!(matches!(
            prepare(&path, &absent),
            Err(PersistError::Absent { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), TEXT);
    }
}
