//! `docs/metrics.md`, made of the catalog.

use std::fmt::Write;

use forwarder_common::verdict::DropReason;
use prometheus_client::metrics::MetricType;

use super::catalog::{ALL, Metric};

const INTRODUCTION: &str = "\
# Metrics

`forwarder run` serves them where [`[metrics]`](config.md#metrics) says, at `/metrics`, in the OpenMetrics format to whoever
asks for it, as Prometheus does, and in the older text format to others (`curl`, `promtool check metrics`).
Counters are read from the kernel's maps whenever somebody asks: they go on over restarts and upgrades of the daemon
and begin anew after a reboot or `forwarder unload`, unless they say that the daemon counts them. Label values are names from the configuration and words of the
lists below, and codes of countries; nothing a client sent is ever one. `route` is the first name of the route.

How many series there are: 13 for each target (listener, route, pool, node), of which there are at most
[`max_targets`](config.md#max_targets) (2,000 unless told otherwise) or one for each listener; 12 for each listener; 24 for
each node; 17 for each node of a pool; 3 for each pool; one or two for each interface, two for each country; and about
130 others. Ten routes to a pool of three nodes on one listener make about 700.

`packaging/prometheus/` has a scrape configuration, recording rules and alerts, and `dashboards/` shows it all.
This page is made from the source; do not edit it.
";

/// The whole page.
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut section = "";
    for metric in ALL {
        if metric.section() != section {
            section = metric.section();
            // Writing to a string does not fail.
            let _ = writeln!(page, "\n## {section}\n");
            let _ = writeln!(page, "| metric | type | labels | |\n|---|---|---|---|");
        }
        let _ = writeln!(page, "{}", row(metric));
    }
    let _ = writeln!(
        page,
        "\n## Reasons\n\nThe label `reason`. `status` and the log use the same words.\n\n| reason | |\n|---|---|"
    );
    for reason in DropReason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.label(), reason.describe());
    }
    page
}

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric
        .labels()
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    format!(
        "| `{}` | {} | {} | {} |",
        metric.name(),
        word(metric.kind()),
        labels.join(", "),
        metric.help()
    )
}

fn word(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Info => "info",
        MetricType::Unknown => "unknown",
    }
}
