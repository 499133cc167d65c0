//! Grafana's dashboards of the folder `dashboards/`, and what Grafana does to a query before it asks Prometheus.
//!
//! Variables are replaced as Grafana's Prometheus data source replaces those that can have several values: by
//! `(a|b)`, with what is special in a regular expression escaped
//! (<https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/>).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Context, Error, Result};

/// One dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its file without ending.
    pub name: String,
    /// The whole file.
    pub json: Value,
}

/// A query of a panel.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The panel's title.
    pub panel: &'a str,
    /// The panel's number in the dashboard.
    pub panel_id: u64,
    /// The query's letter in the panel.
    pub letter: &'a str,
    /// The query with its variables.
    pub expression: &'a str,
    /// Whether only the present is asked for, and not a range of time.
    pub instant: bool,
}

/// A variable whose values Prometheus knows.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// The series it looks at; it may hold earlier variables.
    pub selector: &'a str,
    /// The label whose values it takes.
    pub label: &'a str,
}

/// Values of variables: one or several each.
pub type Values = BTreeMap<String, Vec<String>>;

/// Every dashboard, by name.
pub fn all() -> Result<Vec<Dashboard>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let read = || {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let json = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
                all.push(Dashboard {
                    name: name.into_owned(),
                    json,
                });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    };
    read().context(|| format!("reading the dashboards in {}", folder.display()))
}

impl Dashboard {
    /// Its panels, rows left out.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = self.json["panels"].as_array().into_iter().flatten();
        panels.filter(|panel| panel["type"] != "row")
    }

    /// Every query of every panel.
    #[must_use]
    pub fn targets(&self) -> Vec<Target<'_>> {
        self.panels()
            .flat_map(|panel| {
                let targets = panel["targets"].as_array().into_iter().flatten();
                targets.map(|target| Target {
                    panel: panel["title"].as_str().unwrap_or_default(),
                    panel_id: panel["id"].as_u64().unwrap_or_default(),
                    letter: target["refId"].as_str().unwrap_or_default(),
                    expression: target["expr"].as_str().unwrap_or_default(),
                    instant: target["instant"] == true,
                })
            })
            .collect()
    }

    /// The queries of its annotations, with their names.
    #[must_use]
    pub fn annotations(&self) -> Vec<(&str, &str)> {
        let all = self.json["annotations"]["list"].as_array();
        all.into_iter()
            .flatten()
            .filter_map(|own| Some((own["name"].as_str()?, own["expr"].as_str()?)))
            .collect()
    }

    /// Its variables, in the order in which they build upon each other; the data source is not one of them.
    pub fn variables(&self) -> Result<Vec<Variable<'_>>> {
        let all = self.json["templating"]["list"].as_array();
        all.into_iter()
            .flatten()
            .filter(|own| own["type"] == "query")
            .map(|own| {
                variable(own).ok_or_else(|| Error::Unintelligible {
                    what: format!("a variable of {}", self.name),
                    text: own.to_string(),
                })
            })
            .collect()
    }
}

/// A variable with `label_values(SELECTOR, LABEL)`.
fn variable(own: &Value) -> Option<Variable<'_>> {
    let inner = own["query"]["query"].as_str()?;
    let inner = inner.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inner.rsplit_once(", ")?;
    let name = own["name"].as_str()?;
    Some(Variable {
        name,
        selector,
        label,
    })
}

/// A query as it is sent: variables, and the times that Grafana computes, replaced. `window` is what a rate
/// looks back over, `range` the whole time that is shown.
#[must_use]
pub fn interpolate(query: &str, values: &Values, window: &str, range: &str) -> String {
    let mut text = query
        .replace("$__rate_interval", window)
        .replace("$__interval", window)
        .replace("$__range", range);
    for (name, values) in values {
        let escaped: Vec<String> = values.iter().map(|value| escape(value)).collect();
        let value = match &escaped[..] {
            [one] => one.clone(),
            all => format!("({})", all.join("|")),
        };
        text = text
            .replace(&format!("${{{name}}}"), &value)
            .replace(&format!("${name}"), &value);
    }
    text
}

/// Escapes what is special in a regular expression, for a place inside double quotes.
fn escape(value: &str) -> String {
    let mut text = String::new();
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str(r"\\\\"),
            _ if "$^*{}[]'+?.()|".contains(letter) => {
                text.push_str(r"\\");
                text.push(letter);
            }
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Values, interpolate};

    #[test]
    fn variables_become_regular_expressions() {
        let values = |all: &[&str]| {
            let all = all.iter().map(|one| (*one).to_owned()).collect();
            Values::from([(String::from("route"), all)])
        };
        let query = "rate(a{route=~\"$route\"}[$__rate_interval])";
        let one = interpolate(query, &values(&["*.example.org"]), "5s", "1h");
        assert_eq!(one, "rate(a{route=~\"\\\\*\\\\.example\\\\.org\"}[5s])");
        let two = interpolate(query, &values(&["a", "b"]), "5s", "1h");
        assert_eq!(two, "rate(a{route=~\"(a|b)\"}[5s])");
    }
}
