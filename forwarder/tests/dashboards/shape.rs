//! Grafana can read the dashboards: what its JSON model asks for is there, panels do not cover each other, and each
//! says what it shows (<https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{dashboards, list, panels};

/// Units by Grafana's identifiers for them.
const UNITS: &[&str] = &[
    "short",
    "none",
    "cps",
    "pps",
    "Bps",
    "bytes",
    "s",
    "percentunit",
    "dateTimeAsIso",
];
/// Colours by Grafana's names for them.
const COLOURS: &[&str] = &["green", "orange", "red", "blue", "purple", "text"];
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// What a panel's options must have for its type.
fn options(kind: &str) -> &'static [&'static str] {
    match kind {
        "stat" => &["reduceOptions", "colorMode", "graphMode", "textMode"],
        "gauge" => &["reduceOptions", "showThresholdMarkers"],
        "bargauge" => &["reduceOptions", "orientation", "displayMode"],
        "timeseries" => &["legend", "tooltip"],
        "state-timeline" => &["legend", "tooltip", "showValue", "mergeValues"],
        "heatmap" => &["calculate", "color", "yAxis", "rowsFrame"],
        "table" => &["showHeader", "sortBy", "footer"],
        "geomap" => &["view", "basemap", "layers", "controls"],
        _ => panic!("a panel of the unknown type {kind}"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn every_dashboard_has_what_grafana_asks_for() {
    let mut titles = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], file.as_str());
        assert!(file.len() <= 40, "Grafana's limit of an uid");
        assert!(
            titles.insert(text(&dashboard, "title").to_owned()),
            "{file}"
        );
        assert!(text(&dashboard, "description").ends_with('.'), "{file}");
        assert_eq!(dashboard["schemaVersion"], 39, "{file}");
        assert_eq!(dashboard["id"], Value::Null, "{file}: of one installation");
        // The menu of dashboards with this tag, which keeps variables and time.
        assert_eq!(dashboard["tags"], json!(["forwarder"]), "{file}");
        let menu = &dashboard["links"][0];
        assert_eq!(menu["tags"], dashboard["tags"], "{file}");
        assert_eq!(
            (&menu["includeVars"], &menu["keepTime"]),
            (&json!(true), &json!(true))
        );
    }
}

#[test]
fn panels_lie_beside_each_other_and_say_what_they_show() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let place = format!("{file}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}");
            let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            let (x, y, w, h) = (grid("x"), grid("y"), grid("w"), grid("h"));
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{place}");
            for (column, line) in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert((column, line)), "{place} covers another panel");
            }
        }
        for panel in panels(&dashboard) {
            let place = format!("{file}: {}", panel["title"]);
            assert!(!text(panel, "title").is_empty(), "{place}");
            assert!(
                text(panel, "description").ends_with('.'),
                "{place}: no description"
            );
            let kind = text(panel, "type");
            for key in options(kind) {
                assert!(panel["options"].get(key).is_some(), "{place}: no {key}");
            }
        }
    }
}

#[test]
fn units_thresholds_and_mappings_are_known() {
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let place = format!("{file}: {}", panel["title"]);
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(UNITS.contains(&text(defaults, "unit")), "{place}");
            let overridden: Vec<&Value> = list(&panel["fieldConfig"]["overrides"])
                .iter()
                .flat_map(|own| list(&own["properties"]))
                .collect();
            let of = |id: &str| -> Vec<&Value> {
                let all = overridden.iter().filter(|own| own["id"] == id);
                all.map(|own| &own["value"]).collect()
            };
            for unit in of("unit") {
                assert!(UNITS.contains(&unit.as_str().unwrap()), "{place}: {unit}");
            }
            for thresholds in [&defaults["thresholds"]]
                .into_iter()
                .chain(of("thresholds"))
            {
                steps(&place, thresholds);
            }
            for mappings in [&defaults["mappings"]].into_iter().chain(of("mappings")) {
                for mapping in list(mappings) {
                    assert_eq!(mapping["type"], "value", "{place}");
                    for shown in mapping["options"].as_object().unwrap().values() {
                        assert!(COLOURS.contains(&text(shown, "color")), "{place}");
                        assert!(!text(shown, "text").is_empty(), "{place}");
                    }
                }
            }
        }
    }
}

/// Steps rise, and the first holds below all others.
fn steps(place: &str, thresholds: &Value) {
    assert_eq!(thresholds["mode"], "absolute", "{place}");
    let steps = list(&thresholds["steps"]);
    assert_eq!(steps[0]["value"], Value::Null, "{place}");
    let values: Vec<f64> = steps[1..]
        .iter()
        .map(|step| step["value"].as_f64().unwrap())
        .collect();
    assert!(values.is_sorted_by(|a, b| a < b), "{place}: {values:?}");
    for step in steps {
        assert!(COLOURS.contains(&text(step, "color")), "{place}");
    }
}

#[test]
fn queries_use_the_chosen_data_source_and_links_lead_somewhere() {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let all = dashboards();
    let known: BTreeSet<&str> = all.iter().map(|(file, _)| file.as_str()).collect();
    for (file, dashboard) in &all {
        for annotation in list(&dashboard["annotations"]["list"]) {
            assert_eq!(annotation["datasource"], source, "{file}");
        }
        for panel in panels(dashboard) {
            let place = format!("{file}: {}", panel["title"]);
            assert_eq!(panel["datasource"], source, "{place}");
            let mut letters = BTreeSet::new();
            for target in list(&panel["targets"]) {
                assert_eq!(target["datasource"], source, "{place}");
                assert!(letters.insert(text(target, "refId")), "{place}");
                // Tables and maps show one moment, in Grafana's format for that.
                let rows = matches!(text(panel, "type"), "table" | "geomap");
                assert_eq!(target["format"] == "table", rows, "{place}");
                assert!(!rows || target["instant"] == true, "{place}");
            }
            for link in list(&panel["links"]) {
                let path = text(link, "url").strip_prefix("/d/").unwrap();
                let target = path.split('?').next().unwrap();
                assert!(known.contains(target), "{place}: {path}");
            }
        }
    }
}
