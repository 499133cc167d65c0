//! The dashboards and rules as files: what they ask for exists, and Grafana can read them. That every query finds
//! data is a test of the lab, with a real Prometheus.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

mod queries;
mod shape;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every dashboard with the name of its file.
fn dashboards() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            all.push((name, serde_json::from_str(&text).unwrap()));
        }
    }
    assert_eq!(all.len(), 5);
    all
}

/// A list inside a dashboard.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The panels that show something: rows are headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = list(&dashboard["panels"]).iter();
    panels.filter(|panel| panel["type"] != "row")
}
