//! Edits kept where the next daemon finds them: a file with a line for each, so that one more edit costs one more line.
//! The first line says which configuration files they are about; with others, only edits of nodes go on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Config;
use crate::config::edit::Edit;
use crate::config::lasting::Kept;
use crate::instance::files::replace;

/// The file.
#[derive(Debug)]
pub struct EditsFile {
    path: PathBuf,
    /// Open while it holds all edits.
    file: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Heading {
    sources: String,
}

impl EditsFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Makes it hold these edits and no others; without any it is removed. `about` is the fingerprint of the
    /// configuration files ([`crate::config::Sources::fingerprint`]).
    pub fn save(&mut self, about: &str, edits: &[Kept]) -> io::Result<()> {
        self.file = None;
        if edits.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let sources = about.to_owned();
        let mut text = line(&Heading { sources })?;
        for edit in edits {
            text.extend(line(edit)?);
        }
        self.file = Some(replace(&self.path, &text)?);
        Ok(())
    }

    /// Adds the last one of `edits` to the others.
    pub fn append(&mut self, about: &str, edits: &[Kept]) -> io::Result<()> {
        match (self.file.take(), edits.last()) {
            (Some(mut file), Some(last)) => {
                file.write_all(&line(last)?)?;
                self.file = Some(file);
                Ok(())
            }
            _ => self.save(about, edits),
        }
    }
}

fn line<T: Serialize>(own: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(own)?;
    text.push(b'\n');
    Ok(text)
}

/// What the file holds: which sources it is about, and the edits. Half a line at the end was never answered.
fn read(at: &Path) -> Option<(String, Vec<Kept>)> {
    let text = fs::read(at).ok()?;
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let heading: Heading = serde_json::from_slice(lines.next()?).ok()?;
    let edits = lines.map_while(|line| serde_json::from_slice(line).ok());
    Some((heading.sources, edits.collect()))
}

/// The edits that a daemon left or still has, for whoever only looks.
pub fn edits_in_use(at: &Path) -> Vec<Edit> {
    let edits = read(at).map_or_else(Vec::new, |(_, edits)| edits);
    edits.into_iter().map(|own| own.edit).collect()
}

/// The edits of a former daemon that go on, now that the files are `about` this and say `config`; and whether that is
/// what the file holds.
pub fn load(at: &Path, about: &str, config: &Config) -> (Vec<Kept>, bool) {
    let Some((written_about, mut edits)) = read(at) else {
        return (Vec::new(), true);
    };
    if written_about == about {
        return (edits, true);
    }
    for own in edits.extract_if(.., |own| !own.outlives(config)) {
        warn!(edit = %own.edit, "edit of the former daemon ends: the configuration has changed since");
    }
    (edits, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn edits_outlive_the_daemon_and_those_of_nodes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("e.json");
        let text = r#"
            entrance = { public = ["eth0"], tunnels = ["wg0"] }
            listener = [{ name = "https", protocol = "tls", port = 443 }]
            pool = [{ name = "web", client_address = "transparent", nodes = ["10.0.0.2:443"] }]
            route = [{ names = ["a.example.org"], pool = "web" }]
        "#;
        let config = crate::config::parse(Path::new("f.toml"), text.to_owned());
        let config = config.config.unwrap();
        let [one, two] = ["one", "two"].map(|text| {
            let sources = Sources::new(Path::new("f.toml"), text);
            sources.fingerprint(sources.digest())
        });
        let names = vec![String::from("a.example.org")];
        let node = String::from("10.0.0.2");
        let state = crate::config::model::NodeState::Drain;
        let edits = [Edit::State { node, state }, Edit::RemoveNames { names }];
        let edits = edits.map(|edit| Kept::new(edit, &config));
        let load = |about: &str| load(&at, about, &config);
        let mut file = EditsFile::new(at.clone());
        assert_eq!(load(&one), (Vec::new(), true));
        file.append(&one, &edits[..1]).unwrap();
        assert_eq!(load(&one), (edits[..1].to_vec(), true));
        file.append(&one, &edits).unwrap();
        assert_eq!(load(&one), (edits.to_vec(), true));
        assert_eq!(load(&two), (edits[..1].to_vec(), false));
        let mut torn = fs::read(&at).unwrap();
        torn.truncate(torn.len() - 5);
        fs::write(&at, torn).unwrap();
        assert_eq!(load(&one), (edits[..1].to_vec(), true));
        file.save(&one, &edits).unwrap();
        file.save(&one, &[]).unwrap();
        assert!(!at.exists());
    }
}
