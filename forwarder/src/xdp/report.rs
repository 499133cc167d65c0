//! What is known of the XDP filter, as a file beside the registry.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::instance::files::replace;

/// Every public interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `[entrance] xdp`.
    #[serde(default)]
    pub mode: String,
    /// In the order of the configuration.
    pub interfaces: Vec<Interface>,
}

/// One public interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub interface: String,
    /// Whether the XDP filter is attached.
    #[serde(rename = "worn")]
    pub attached_now: bool,
    /// Since when that is so, seconds since 1970.
    pub since: Option<u64>,
    /// How often it was attached.
    pub attached: u64,
    /// How often it was detached.
    pub detached: u64,
    /// How often the driver refused.
    pub refused: u64,
    /// Why it refused last; none since it was attached.
    pub refusal: Option<String>,
}

impl Report {
    /// Reads it; nothing if there is none that can be read.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec(self)?).map(drop)
    }

    /// The entry of an interface, made if there is none.
    pub fn entry(&mut self, interface: &str) -> &mut Interface {
        let at = self
            .interfaces
            .iter()
            .position(|own| own.interface == interface);
        let at = at.unwrap_or_else(|| {
            self.interfaces.push(Interface {
                interface: interface.to_owned(),
                ..Interface::default()
            });
            self.interfaces.len() - 1
        });
        &mut self.interfaces[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xdp.json");
        assert_eq!(Report::load(&path), None);
        let mut report = Report::default();
        report.entry("eth0").attached = 3;
        report.entry("eth1").refusal = Some(String::from("no native XDP"));
        report.entry("eth0").attached_now = true;
        assert_eq!(report.interfaces.len(), 2);
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path), Some(report));
        fs::write(&path, "{").unwrap();
        assert_eq!(Report::load(&path), None);
    }
}
