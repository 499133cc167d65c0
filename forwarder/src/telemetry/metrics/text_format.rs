//! From OpenMetrics to the older text format, for whoever does not ask for OpenMetrics: `curl`,
//! `promtool check metrics`, and collectors other than Prometheus.
//!
//! The samples are the same. What differs is the description: there `# TYPE` names the series as it is
//! scraped, suffix included, a unit has no line of its own, and information is a gauge.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

/// The content type of [`from_open_metrics`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites a page that [`collect`](super::collect) wrote.
pub fn from_open_metrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // `# HELP` comes before `# TYPE`, which tells the suffix.
    let mut help = "";
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), text) => help = text.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                out.push_str(&format!(
                    "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
                ));
            }
            (Some("#"), ..) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_what_is_scraped() {
        let page = "# HELP a_seconds Time \\\"x\\\".\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1.5\n# HELP b B.\n# TYPE b info\nb_info{version=\"1\"} 1\n# HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n# EOF\n";
        assert_eq!(
            from_open_metrics(page),
            "# HELP a_seconds_total Time \\\"x\\\".\n# TYPE a_seconds_total counter\na_seconds_total 1.5\n# HELP b_info B.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n# HELP c C.\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n"
        );
    }
}
