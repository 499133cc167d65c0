//! A real Prometheus scrapes a busy lab: every query of the dashboards, every recording rule and every alert finds
//! data there. Whether alerts fire when they should, and only then, is tested by `promtool test rules`, on series
//! that say what an hour of trouble looks like (`packaging/prometheus/tests/`).
//!
//! An alert whose condition is not met gives nothing, and that is right. What its expression looks at must be there
//! all the same, or it could never fire: so it is asked without its comparisons.

use std::collections::BTreeSet;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::busy::Busy;
use forwarder_tests::command::{self, run, run_with_input};
use forwarder_tests::dashboard::{self, Dashboard, Values, interpolate};
use forwarder_tests::server::prometheus::{self, Prometheus, Series};
use promql_parser::parser::{self, Expr};

/// How long the lab is busy.
const BUSY: Duration = Duration::from_secs(20);
/// What rates look back over in range queries, and in instant ones, which ask at the end only.
const WINDOW: &str = "5s";
const ALL: &str = "60s";

/// Whether there is a number in any of the series: an infinity or NaN shows nothing.
fn has_data(series: &[Series]) -> bool {
    let mut points = series.iter().flat_map(|own| &own.points);
    points.any(|(_, value)| value.is_finite())
}

#[test]
fn every_query_has_data_in_a_busy_lab() -> Result<()> {
    let busy = Busy::start()?;
    let prometheus = Prometheus::start(busy.lab)?;
    let start = prometheus::now();
    let tally = busy.run(BUSY)?;
    let end = prometheus::now();
    assert!(tally.served > 50, "{tally:?}");

    let mut empty = Vec::new();
    for dashboard in dashboard::all()? {
        let values = values(&prometheus, &dashboard)?;
        for target in dashboard.targets() {
            let series = if target.instant {
                prometheus.query(&interpolate(target.expression, &values, ALL, ALL))?
            } else {
                let query = interpolate(target.expression, &values, WINDOW, ALL);
                prometheus.query_range(&query, start, end, 1.0)?
            };
            if !has_data(&series) {
                empty.push(format!("{}: {target:?}", dashboard.name));
            }
        }
        for (name, query) in dashboard.annotations() {
            let query = interpolate(query, &values, WINDOW, ALL);
            if !has_data(&prometheus.query_range(&query, start, end, 1.0)?) {
                empty.push(format!("{}: annotation {name}", dashboard.name));
            }
        }
    }
    for rule in rules(&prometheus)? {
        // A rule that Prometheus could not evaluate has its own word for it.
        assert_eq!(rule.health, "ok", "{}: {}", rule.name, rule.query);
        let found = if rule.alerts {
            let expr = parser::parse(&rule.query).expect("Prometheus has parsed it");
            prometheus.query(&without_comparisons(&expr).to_string())?
        } else {
            prometheus.query_range(&rule.name, start, end, 1.0)?
        };
        if !has_data(&found) {
            empty.push(format!("rule {}: {}", rule.name, rule.query));
        }
    }
    assert!(empty.is_empty(), "without data:\n{}", empty.join("\n"));
    the_page_is_as_prometheus_wants_it(&busy)
}

/// The values of a dashboard's variables, by the queries of the variables themselves.
fn values(prometheus: &Prometheus<'_>, dashboard: &Dashboard) -> Result<Values> {
    let mut values = Values::new();
    for variable in dashboard.variables()? {
        let selector = interpolate(variable.selector, &values, WINDOW, ALL);
        let found = prometheus.label_values(&selector, variable.label)?;
        assert!(!found.is_empty(), "{}: {variable:?}", dashboard.name);
        values.insert(variable.name.to_owned(), found);
    }
    Ok(values)
}

struct Rule {
    name: String,
    query: String,
    alerts: bool,
    health: String,
}

/// The rules that Prometheus has loaded, as it tells them.
fn rules(prometheus: &Prometheus<'_>) -> Result<Vec<Rule>> {
    let data = prometheus.get("rules", &[])?;
    let groups = data["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .map(|rule| {
            let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            Rule {
                name: text("name"),
                query: text("query"),
                alerts: rule["type"] == "alerting",
                health: text("health"),
            }
        })
        .collect();
    assert!(rules.iter().any(|rule| rule.alerts), "{data}");
    Ok(rules)
}

/// An expression in which each comparison is replaced by its left side, and so is what `unless` takes away: without
/// its comparison it would take away everything.
fn without_comparisons(expr: &Expr) -> Expr {
    let boxed = |expr: &Expr| Box::new(without_comparisons(expr));
    match expr {
        Expr::Binary(own) if own.op.is_comparison_operator() || own.op.to_string() == "unless" => {
            without_comparisons(&own.lhs)
        }
        Expr::Binary(own) => {
            let mut own = own.clone();
            (own.lhs, own.rhs) = (boxed(&own.lhs), boxed(&own.rhs));
            Expr::Binary(own)
        }
        Expr::Paren(own) => {
            let mut own = own.clone();
            own.expr = boxed(&own.expr);
            Expr::Paren(own)
        }
        Expr::Aggregate(own) => {
            let mut own = own.clone();
            own.expr = boxed(&own.expr);
            Expr::Aggregate(own)
        }
        _ => expr.clone(),
    }
}

/// `promtool check metrics` on the older text format, which is what `curl` gets.
fn the_page_is_as_prometheus_wants_it(busy: &Busy) -> Result<()> {
    let mut curl = busy.lab.entrance.command("curl")?;
    let page = run(curl.args(["-sS", "http://127.0.0.1:9469/metrics"]))?;
    assert!(page.contains("# TYPE forwarder_ready gauge"), "{page}");
    let mut promtool = command::command("promtool")?;
    let said = run_with_input(promtool.args(["check", "metrics"]), &page)?;
    assert_eq!(said, "", "promtool's remarks");
    Ok(())
}

#[test]
fn configuration_and_rules_are_valid() -> Result<()> {
    let folder = prometheus::folder();
    let check = |what: &str, file: &str| {
        let mut promtool = command::command("promtool")?;
        run(promtool
            .args(["check", what, "--lint=all", "--lint-fatal"])
            .arg(folder.join(file)))
    };
    let said = check("rules", "rules.yml")?;
    assert!(said.contains("rules found"), "{said}");
    check("config", "scrape.yml")?;
    Ok(())
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() -> Result<()> {
    let folder = prometheus::folder().join("tests");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of rule tests")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yml"))
        .collect();
    files.sort();
    let mut promtool = command::command("promtool")?;
    let said = run(promtool
        .args(["test", "rules"])
        .args(&files)
        .current_dir(&folder))?;
    assert_eq!(said.matches("SUCCESS").count(), files.len(), "{said}");

    // Each alert stands in the tests both with an alert that is expected and with none.
    let rules = std::fs::read_to_string(prometheus::folder().join("rules.yml")).unwrap_or_default();
    let tests: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap_or_default())
        .collect();
    let alerts: BTreeSet<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    for alert in alerts {
        let of_alert: Vec<&str> = tests
            .split("alertname: ")
            .skip(1)
            .filter(|text| text.lines().next() == Some(alert))
            .collect();
        let quiet = of_alert.iter().filter(|text| {
            let next = text.lines().nth(1).unwrap_or_default();
            next.trim() == "exp_alerts: []"
        });
        let quiet = quiet.count();
        assert!(quiet > 0, "{alert} is not tested to be silent");
        assert!(quiet < of_alert.len(), "{alert} is not tested to fire");
    }
    Ok(())
}
