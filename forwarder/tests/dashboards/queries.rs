//! Every query of the dashboards and rules parses, and asks only for metrics and labels that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use forwarder::telemetry::metrics::catalog;
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};

use super::{dashboards, list, panels, root};

/// Names of series and the labels each can have, recorded ones included.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all = BTreeMap::new();
    for metric in catalog::ALL {
        let mut labels: BTreeSet<_> = metric.labels().iter().copied().collect();
        // Added by Prometheus.
        labels.extend(["instance", "job"]);
        let name = metric.name();
        if metric.kind().as_str() == "histogram" {
            all.insert(format!("{name}_sum"), labels.clone());
            all.insert(format!("{name}_count"), labels.clone());
            labels.insert("le");
            all.insert(format!("{name}_bucket"), labels);
        } else {
            all.insert(name, labels);
        }
    }
    all.insert(String::from("up"), BTreeSet::from(["instance", "job"]));
    let of_alerts = BTreeSet::from(["alertname", "alertstate", "instance"]);
    all.insert(String::from("ALERTS"), of_alerts);
    for (name, _) in rules().into_iter().filter(|(name, _)| name.contains(':')) {
        // `level:metric:operation`, and the level is what the rule keeps of the labels.
        let known = ["instance", "route", "direction", "node", "map"];
        let level = name.split(':').next().unwrap_or_default();
        let labels = known
            .into_iter()
            .filter(|label| level.split('_').any(|own| own == *label));
        all.insert(name.clone(), labels.collect());
    }
    all
}

/// Every vector selector of an expression.
fn selectors<'a>(expr: &'a Expr, found: &mut Vec<&'a VectorSelector>) {
    match expr {
        Expr::Aggregate(e) => selectors(&e.expr, found),
        Expr::Unary(e) => selectors(&e.expr, found),
        Expr::Binary(e) => {
            selectors(&e.lhs, found);
            selectors(&e.rhs, found);
        }
        Expr::Paren(e) => selectors(&e.expr, found),
        Expr::Subquery(e) => selectors(&e.expr, found),
        Expr::VectorSelector(own) => found.push(own),
        Expr::MatrixSelector(e) => found.push(&e.vs),
        Expr::Call(e) => e.args.args.iter().for_each(|arg| selectors(arg, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::Extension(_) => panic!("an extension of PromQL"),
    }
}

/// Checks a query; returns how many metrics it names.
fn check(place: &str, query: &str) -> usize {
    let plain = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h");
    let expr = parser::parse(&plain).unwrap_or_else(|error| panic!("{place}: {query}: {error}"));
    let series = series();
    let mut found = Vec::new();
    selectors(&expr, &mut found);
    for selector in &found {
        let name = selector.name.as_deref().unwrap_or_default();
        let labels = series
            .get(name)
            .unwrap_or_else(|| panic!("{place}: there is no metric {name}"));
        for matcher in &selector.matchers.matchers {
            let known = labels.contains(matcher.name.as_str());
            assert!(known, "{place}: {name} has no label {}", matcher.name);
            if matcher.op == MatchOp::Equal && matcher.name == "map" {
                assert!(
                    MAPS.contains(&matcher.value.as_str()),
                    "{place}: {}",
                    matcher.value
                );
            }
        }
    }
    found.len()
}

const MAPS: &[&str] = forwarder::dataplane::bpf::pins::MAPS;

#[test]
fn every_panel_asks_for_what_exists() {
    for (file, dashboard) in &dashboards() {
        for panel in panels(dashboard) {
            let place = format!("{file}: {}", panel["title"]);
            let targets = list(&panel["targets"]);
            assert!(!targets.is_empty(), "{place}");
            for target in targets {
                let query = target["expr"].as_str().unwrap();
                assert!(check(&place, query) > 0, "{place}: {query}");
            }
        }
        for annotation in list(&dashboard["annotations"]["list"]) {
            let query = annotation["expr"].as_str().unwrap();
            assert!(check(file, query) > 0, "{file}: {query}");
        }
    }
}

#[test]
fn every_dashboard_has_the_same_variables() {
    for (file, dashboard) in dashboards() {
        let variables = list(&dashboard["templating"]["list"]);
        let names: Vec<_> = variables
            .iter()
            .filter_map(|v| v["name"].as_str())
            .collect();
        assert_eq!(names, ["datasource", "instance", "route", "node"], "{file}");
        for variable in &variables[1..] {
            let query = variable["definition"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").unwrap();
            let (selector, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            check(&file, selector);
            let name = selector.split('{').next().unwrap();
            assert!(series()[name].contains(label), "{file}: {query}");
        }
    }
}

#[test]
fn every_metric_of_the_forwarder_is_shown_somewhere() {
    let text: String = dashboards().iter().map(|(_, d)| d.to_string()).collect();
    let text = text + &fs::read_to_string(root().join("packaging/prometheus/rules.yml")).unwrap();
    for metric in catalog::ALL {
        assert!(text.contains(&metric.name()), "{}", metric.name());
    }
}

/// Name and expression of each rule. The file keeps each on one line, so that no YAML reader is needed.
fn rules() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("packaging/prometheus/rules.yml")).unwrap();
    let mut all = Vec::new();
    let mut name = None;
    for line in text.lines().map(str::trim) {
        let named = line
            .strip_prefix("- record: ")
            .or_else(|| line.strip_prefix("- alert: "));
        if let Some(named) = named {
            assert_eq!(
                name.replace(named.to_owned()),
                None,
                "a rule without expression"
            );
        } else if let Some(expr) = line.strip_prefix("expr: ") {
            all.push((name.take().unwrap(), expr.to_owned()));
        }
    }
    all
}

#[test]
fn every_rule_asks_for_what_exists() {
    let rules = rules();
    assert!(rules.len() >= 12);
    for (name, query) in &rules {
        assert!(check(name, query) > 0, "{name}");
    }
}

#[test]
fn every_alert_is_explained() {
    let page = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let explained: BTreeSet<&str> = page
        .split('`')
        .filter(|word| word.starts_with("Forwarder"))
        .collect();
    let rules = rules();
    let alerts = rules.iter().map(|(name, _)| name.as_str());
    let alerts: BTreeSet<&str> = alerts.filter(|name| !name.contains(':')).collect();
    assert_eq!(alerts, explained, "docs/monitoring.md");
}
