//! Edits kept where the next daemon finds them, should this one be killed: a file with a line for each, so that one
//! more edit costs one more line. The first line says which configuration files they are about.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::edit::Edit;
use crate::files::replace;

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
    pub fn save(&mut self, about: &str, edits: &[Edit]) -> io::Result<()> {
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
    pub fn append(&mut self, about: &str, edits: &[Edit]) -> io::Result<()> {
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
fn read(at: &Path) -> Option<(String, Vec<Edit>)> {
    let text = fs::read(at).ok()?;
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let heading: Heading = serde_json::from_slice(lines.next()?).ok()?;
    let edits = lines.map_while(|line| serde_json::from_slice(line).ok());
    Some((heading.sources, edits.collect()))
}

/// The edits that a daemon left or still has, for whoever only looks.
pub fn edits_in_use(at: &Path) -> Vec<Edit> {
    read(at).map_or_else(Vec::new, |(_, edits)| edits)
}

/// The edits of a former daemon, unless they are about other files.
pub fn load(at: &Path, about: &str) -> Vec<Edit> {
    let Some((written_about, edits)) = read(at) else {
        return Vec::new();
    };
    if written_about == about {
        return edits;
    }
    warn!("edits of the former daemon end: the configuration has changed since");
    let _ = fs::remove_file(at);
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn edits_outlive_the_daemon_and_not_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("e.json");
        let [one, two] = ["one", "two"].map(|text| {
            let sources = Sources::new(Path::new("f.toml"), text);
            sources.fingerprint(sources.digest())
        });
        let edits: Vec<_> = ["a.example.org", "b.example.org"]
            .map(|name| Edit::RemoveNames {
                names: vec![String::from(name)],
            })
            .into();
        let mut file = EditsFile::new(at.clone());
        assert_eq!(load(&at, &one), []);
        file.append(&one, &edits[..1]).unwrap();
        assert_eq!(load(&at, &one), edits[..1]);
        file.append(&one, &edits).unwrap();
        assert_eq!(load(&at, &one), edits);
        let mut torn = fs::read(&at).unwrap();
        torn.truncate(torn.len() - 5);
        fs::write(&at, torn).unwrap();
        assert_eq!(load(&at, &one), edits[..1]);
        assert_eq!(load(&at, &two), []);
        assert!(!at.exists());
        file.save(&one, &edits).unwrap();
        file.save(&one, &[]).unwrap();
        assert!(!at.exists());
    }
}
