//! A `transparent` pool before a node that does not send its answers back: checks pass, clients hang. It is said
//! wherever one looks.

use std::net::SocketAddr;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::server::web::{WebOptions, WebServer};
use forwarder_tests::site::{pool, route};

const NAME: &str = "www.example.org";
const SOON: Duration = Duration::from_secs(40);

#[test]
fn answers_that_do_not_come_back_are_told() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let _web = WebServer::start(&node.namespace, &lab.pki, WebOptions::new("node0", 443))?;
    let config = [
        "[metrics]\nlisten = \"127.0.0.1:9469\"\n".to_owned(),
        "[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n".to_owned(),
        pool("web", "transparent", &[(node, 443)])
            + "health = { check = \"tcp\", interval = \"300ms\" }\n",
        route(&[NAME], "web"),
    ];
    let forwarder = Forwarder::start(lab, &config.join("\n"))?;
    let address = SocketAddr::new(lab.public(Family::V4), 443);
    let curl = |limit: u64| -> Result<Curl> {
        let curl = Curl::new(&lab.clients[0].namespace, &lab.pki, NAME, address, "/")?;
        Ok(curl.limit(Duration::from_secs(limit)))
    };
    assert_eq!(curl(10)?.run()?.status, 200);
    let lost = || -> Result<bool> {
        let status = forwarder.status()?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let mut health = nodes.flat_map(|own| own["health"].as_array().into_iter().flatten());
        Ok(health.any(|own| own["answers_lost"] == true))
    };
    assert!(!lost()?);

    // As with a node whose default route leads elsewhere: only the entrance's own address finds its way back.
    let client = lab.clients[0].address(Family::V4);
    let nft = |line: &str| -> Result<String> { run(node.namespace.command("nft")?.arg(line)) };
    nft(&format!(
        "add table ip lost; add chain ip lost out {{ type filter hook output priority 0; }}; add rule ip lost out ip daddr {client} drop"
    ))?;
    wait_until("that answers are lost", SOON, || {
        let _ = curl(4).and_then(Curl::run);
        lost().unwrap_or_default()
    })?;
    let status = forwarder.status_text()?;
    assert!(status.contains("ANSWERS DO NOT COME BACK"), "{status}");
    assert!(
        forwarder
            .log()
            .contains("answers to clients do not come back"),
        "{}",
        forwarder.log()
    );
    let page = run(lab
        .entrance
        .command("curl")?
        .args(["-s", "http://127.0.0.1:9469/metrics"]))?;
    let series =
        |line: &str| line.starts_with("forwarder_node_answers_lost{") && line.ends_with(" 1");
    assert!(page.lines().any(series), "{page}");
    let doctor = output(
        forwarder
            .command()?
            .args(["doctor", "--json", "--no-trial"]),
    )?;
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let findings = report["findings"].as_array().into_iter().flatten();
    let failures: Vec<_> = findings
        .filter(|own| own["verdict"] == "failure")
        .filter_map(|own| own["code"].as_str())
        .collect();
    assert!(failures.contains(&"transparent-return"), "{report:#}");

    nft("delete table ip lost")?;
    wait_until("an answer", SOON, || {
        curl(4)
            .and_then(Curl::run)
            .is_ok_and(|own| own.status == 200)
    })?;
    wait_until("that this is seen", SOON, || !lost().unwrap_or(true))?;
    Ok(())
}
