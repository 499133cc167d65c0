//! Clients of an address family that no node has.

use std::net::SocketAddr;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::RawTcp;
use forwarder_tests::server::web::{Report, WebOptions, WebServer};
use forwarder_tests::site::{pool, route};

const NAME: &str = "www.example.org";
const LISTENER: &str = "[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\n";

/// A browser tries IPv6 first: it must be reset, not answered and then refused, so that it comes by IPv4.
#[test]
fn a_family_without_a_node_is_left_to_the_host() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::WireGuard, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let _web = WebServer::start(&node.namespace, &lab.pki, WebOptions::new("node0", 443))?;
    let both = [
        LISTENER.to_owned(),
        pool("web", "transparent", &[(node, 443)]),
        route(&[NAME], "web"),
    ]
    .join("\n");
    let six = node.socket(Family::V6, 443);
    let only_four = both.replace(&format!(", {:?}", six.to_string()), "");
    assert_ne!(both, only_four);
    let forwarder = Forwarder::start(lab, &only_four)?;
    let served = |family: Family| -> Result<Report> {
        let address = SocketAddr::new(lab.public(family), 443);
        let curl = Curl::new(&lab.clients[0].namespace, &lab.pki, NAME, address, "/")?;
        curl.limit(Duration::from_secs(5)).json()
    };
    let first_answer = |family: Family| -> Result<Flags> {
        let address = SocketAddr::new(lab.public(family), 443);
        let mut raw = RawTcp::new(&lab.clients[0], address)?;
        let syn = raw.segment(Flags::SYN);
        raw.send(&syn)?;
        Ok(raw.expect("an answer to the SYN", |_| true)?.flags)
    };
    assert_eq!(served(Family::V4)?.server, "node0");
    assert!(first_answer(Family::V6)?.has(Flags::RST));
    assert!(served(Family::V6).is_err());

    // As browsers do: both addresses, IPv6 first.
    let mut happy = lab.clients[0].namespace.command("curl")?;
    let name = format!(
        "{NAME}:443:[{}],{}",
        lab.public(Family::V6),
        lab.public(Family::V4)
    );
    let said = run(happy
        .args(["-sS", "--max-time", "5", "--resolve", &name, "--cacert"])
        .arg(&lab.pki.authority)
        .arg(format!("https://{NAME}/")))?;
    assert!(said.contains("node0"), "{said}");

    let check = output(forwarder.command()?.args(["check", "--json"]))?;
    let report: serde_json::Value = serde_json::from_slice(&check.stdout).expect("JSON");
    let codes: Vec<_> = report["diagnostics"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let codes: Vec<_> = codes
        .iter()
        .filter_map(|own| own["code"].as_str())
        .collect();
    assert!(codes.contains(&"family-not-claimed"), "{report:#}");

    // A node of the family appears, and goes again.
    forwarder.write_config(&both)?;
    run(forwarder.command()?.arg("reload"))?;
    for family in Family::BOTH {
        assert_eq!(served(family)?.server, "node0");
    }
    forwarder.write_config(&only_four)?;
    run(forwarder.command()?.arg("reload"))?;
    assert!(first_answer(Family::V6)?.has(Flags::RST));
    assert_eq!(served(Family::V4)?.server, "node0");
    Ok(())
}
