//! Checks as a node meets them: they ask for what it serves, and it has no reason to complain.

use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::site::{LISTENERS, route};

const PORT: u16 = 8443;
const SOON: Duration = Duration::from_secs(20);

/// A pool with one node, and what is routed to it.
fn config(lab: &Lab, names: &[&str], health: &str) -> String {
    let address = lab.nodes[0].socket(Family::V4, PORT);
    format!(
        "{LISTENERS}\n[[pool]]\nname = \"web\"\nclient_address = \"masquerade\"\nnodes = [\"{address}\"]\nhealth = {health}\n\n{}",
        route(names, "web")
    )
}

/// Waits until checks of the node have ended so often, well or not.
fn checked(forwarder: &Forwarder<'_>, times: u64) -> Result<serde_json::Value> {
    let begin = Instant::now();
    loop {
        let health = forwarder.status()?["nodes"][0]["health"][0].clone();
        let count = |name: &str| health["counts"][name].as_u64().unwrap_or_default();
        if count("passed") + count("failed") >= times {
            return Ok(health);
        }
        assert!(begin.elapsed() < SOON, "{health:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_strict_node_with_wildcards_only_is_asked_for_a_name_that_it_serves() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
    let node = &lab.nodes[0].namespace;
    let _nginx = Nginx::serve_strict(&lab, node, "*.apps.example.org", PORT)?;
    for check in ["tls", "https"] {
        let health = format!("{{ check = \"{check}\", interval = \"200ms\", timeout = \"10s\" }}");
        let names = ["*.apps.example.org", "*.example.org"];
        let forwarder = Forwarder::start(&lab, &config(&lab, &names, &health))?;
        let health = checked(&forwarder, 3)?;
        assert_eq!(health["state"], "up", "{check}: {health:#}");
        assert_eq!(health["counts"]["failed"], 0, "{check}: {health:#}");
    }
    Ok(())
}

#[test]
fn checks_leave_nothing_in_the_log_of_a_node() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?;
    let node = &lab.nodes[0].namespace;
    let nginx = Nginx::serve_strict(&lab, node, "*.apps.example.org", PORT)?;
    for health in [
        "{ interval = \"200ms\", timeout = \"10s\" }",
        "{ check = \"tls\", interval = \"200ms\", timeout = \"10s\" }",
        "{ check = \"https\", interval = \"200ms\", timeout = \"10s\" }",
    ] {
        // The one before may have been stopped in the middle of a check.
        let mut before = nginx.log().len();
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(300));
            let now = nginx.log().len();
            if now == before {
                break;
            }
            before = now;
        }
        let forwarder = Forwarder::start(&lab, &config(&lab, &["a.apps.example.org"], health))?;
        let found = checked(&forwarder, 5)?;
        assert_eq!(found["state"], "up", "{health}: {found:#}");
        let log = nginx.log().split_off(before);
        // The lab itself has tried whether it listens.
        let said: Vec<_> = log
            .lines()
            .filter(|line| line.contains("client") && !line.contains("client: 127.0.0.1"))
            // At `info` nginx notes each connection that ends without a request.
            .filter(|line| !line.contains("closed connection while waiting for request"))
            .collect();
        assert!(said.is_empty(), "{health}: {said:#?}");
    }
    Ok(())
}
