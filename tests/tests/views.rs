//! What an operator looks at: health in every view, the tunnel's handshakes, filtered events, and `forwarder top`.

use std::process::Stdio;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::{Daemon, wait_until};
use forwarder_tests::server::web::{WebOptions, WebServer};
use forwarder_tests::site::{LISTENERS, Site, route};
use forwarder_tests::terminal::Terminal;
use serde_json::Value;

const NAME: &str = "www.example.org";
const SOON: Duration = Duration::from_secs(40);
const METRICS: &str = "127.0.0.1:9990";

fn verb(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<String> {
    run(forwarder.command()?.args(arguments))
}

fn json(forwarder: &Forwarder<'_>, arguments: &[&str]) -> Result<Value> {
    let text = run(forwarder.command()?.args(arguments).arg("--json"))?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// One node that works, one that refuses connections, one that nobody's AllowedIPs hold; all checked.
fn three_nodes(lab: &Lab) -> String {
    let address = |node: usize| lab.nodes[node].socket(Family::V4, 443);
    let mut stranger = address(1);
    stranger.set_ip("10.8.0.99".parse().unwrap());
    format!(
        "[metrics]\nlisten = \"{METRICS}\"\n{LISTENERS}\n[[pool]]\nclient_address = \"transparent\"\nname = \"web\"\nnodes = [\n\
         {{ name = \"works\", address = \"{}\" }},\n{{ name = \"refuses\", address = \"{}\" }},\n\
         {{ name = \"stranger\", address = \"{stranger}\" }}]\n\
         health = {{ check = \"tls\", interval = \"500ms\", timeout = \"400ms\", fall = 1 }}\n{}",
        address(0),
        address(1),
        route(&[NAME], "web")
    )
}

/// The node of that name in the answer of `node ls`.
fn node(answer: &Value, name: &str) -> Value {
    let mut nodes = answer["nodes"].as_array().unwrap().iter();
    let found = nodes.find(|node| node["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {answer:#}"))
}

#[test]
fn health_and_handshakes_are_in_every_view() -> Result<()> {
    let lab = Lab::builder().tunnel(TunnelKind::WireGuard, 2).build()?;
    let _web = WebServer::start(
        &lab.nodes[0].namespace,
        &lab.pki,
        WebOptions::new("node0", 443),
    )?;
    let forwarder = Forwarder::start(&lab, &three_nodes(&lab))?;
    let mut answer = Value::Null;
    wait_until("all checks and a handshake", SOON, || {
        answer = json(&forwarder, &["node", "ls"]).unwrap_or_default();
        let states = ["works", "refuses", "stranger"]
            .map(|name| node(&answer, name)["health"]["state"].clone());
        let handshake = &node(&answer, "works")["tunnel"]["handshake_age"];
        states == ["up", "down", "down"] && handshake.is_u64()
    })?;
    let works = node(&answer, "works");
    assert!(works["health"]["certificate_expires"].is_u64(), "{works:#}");
    assert_eq!(works["tunnel"]["interface"], "wg0");
    assert_eq!(works["tunnel"]["has_peer"], true);
    assert!(works["tunnel"]["handshake_age"].as_u64() < Some(180));
    let refuses = node(&answer, "refuses");
    let error = refuses["health"]["last"]["error"].as_str().unwrap();
    assert!(error.contains("refused"), "{error}");
    let stranger = node(&answer, "stranger");
    assert_eq!(stranger["tunnel"]["has_peer"], false, "{stranger:#}");

    let said = verb(&forwarder, &["node", "ls"])?;
    for words in [
        "up ",
        "DOWN ",
        "refused",
        "certificate",
        "handshake",
        "NO PEER",
    ] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let said = verb(&forwarder, &["pool", "ls"])?;
    assert!(said.contains("1/3") && said.contains("DOWN"), "{said}");
    let said = verb(&forwarder, &["status"])?;
    for words in ["web 1/3", ", up ", "NO PEER for stranger", "last handshake"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }

    let explain = ["explain", NAME, "--from", "198.51.100.4", "--port", "443"];
    verb(&forwarder, &["node", "drain", "refuses"])?;
    let explained = json(&forwarder, &explain)?;
    assert_eq!(explained["ways"][0]["node"], "works", "{explained:#}");
    let said = verb(&forwarder, &explain)?;
    for words in ["passed over: its state is drain", "only if the others fail"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let said = verb(&forwarder, &["status"])?;
    assert!(
        said.contains("edits      1 set at run time, until set anew: node drain refuses"),
        "{said}"
    );

    let mut curl = lab.entrance.command("curl")?;
    let page = run(curl.args(["-sS", &format!("http://{METRICS}/metrics")]))?;
    let value = |series: &str| -> f64 {
        let mut lines = page.lines();
        let found = lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {series} in\n{page}"))
    };
    assert_eq!(value(r#"forwarder_node_up{pool="web",node="works"}"#), 1.0);
    assert_eq!(
        value(r#"forwarder_node_up{pool="web",node="refuses"}"#),
        0.0
    );
    assert_eq!(value(r#"forwarder_pool_nodes_available{pool="web"}"#), 1.0);
    let failures = r#"forwarder_node_checks_total{pool="web",node="refuses",result="failure"}"#;
    assert!(value(failures) > 0.0);
    let drained = r#"forwarder_node_operator_state{pool="web",node="refuses",state="drain"}"#;
    assert_eq!(value(drained), 1.0);
    let expiry = r#"forwarder_node_certificate_expiry_timestamp_seconds{pool="web",node="works"}"#;
    assert!(value(expiry) > 1.7e9);
    let handshake =
        r#"forwarder_tunnel_last_handshake_timestamp_seconds{interface="wg0",node="works"}"#;
    assert!(value(handshake) > 1.7e9);
    assert_eq!(
        value(r#"forwarder_tunnel_peers_known{interface="wg0"}"#),
        1.0
    );
    assert!(
        !page.contains(r#"interface="wg0",node="stranger""#),
        "nothing is known"
    );
    Ok(())
}

fn site() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

#[test]
fn events_of_a_network_or_a_wildcard_can_be_followed() -> Result<()> {
    let site = site();
    let client = site.lab.clients[0].address(Family::V6).to_string();
    let net = format!("{client}/112");
    let mut watch = site.forwarder.command()?;
    watch.args(["watch", "--json", "--refused", "--client", &net]);
    watch.args(["--name", "*.elsewhere.example.org"]);
    let log = site.lab.folder().join("watch.log");
    let watch = Daemon::start("forwarder watch", watch, &log)?;
    // When it has begun to follow is not told: it is tried until it has.
    wait_until("an event", SOON, || {
        // By another client family, and under another name: not asked for.
        for (family, name) in [
            (Family::V4, "a.elsewhere.example.org"),
            (Family::V6, "other.example.org"),
            (Family::V6, "a.elsewhere.example.org"),
        ] {
            let refused = site.curl(family, name, "/").and_then(|curl| curl.run());
            assert_eq!(refused.unwrap().status, 0);
        }
        !watch.log().is_empty()
    })?;
    for line in watch.log().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(event["event"], "refused", "{event}");
        assert_eq!(event["name"], "a.elsewhere.example.org", "{event}");
        let from = event["client"].as_str().unwrap();
        assert!(from.starts_with(&format!("[{client}]")), "{event}");
    }
    for wrong in ["198.51.100", "2001:db8::/200"] {
        let mut command = site.forwarder.command()?;
        let output = output(command.args(["watch", "--client", wrong]))?;
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    Ok(())
}

#[test]
fn top_draws_reacts_and_gives_the_terminal_back() -> Result<()> {
    let site = site();
    site.report(Family::V4, NAME)?;
    let said = verb(&site.forwarder, &["top", "--once", "--interval", "200ms"])?;
    for words in ["connections/s", "1 Overview", "Nodes (", "CONN/S"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let no_terminal = output(site.forwarder.command()?.arg("top").stdin(Stdio::null()))?;
    let error = String::from_utf8_lossy(&no_terminal.stderr).into_owned();
    assert_eq!(no_terminal.status.code(), Some(1));
    assert!(error.contains("--once"), "{error}");

    let start = || -> Result<Terminal> {
        let mut command = site.forwarder.command()?;
        Terminal::start(command.args(["top", "--interval", "200ms"]))
    };
    let mut terminal = start()?;
    // In the picture words are apart only by movements of the cursor where they were before.
    terminal.wait_for(&["\x1b[?1049h", "Overview", "CONN/S"], SOON)?;
    assert!(!terminal.is_cooked()?);
    terminal.press("2")?;
    terminal.wait_for(&["TUNNEL", "FAIL/S"], SOON)?;
    terminal.forget();
    terminal.resize(120, 40)?;
    terminal.wait_for(&["TUNNEL", "filter"], SOON)?;
    terminal.press("q")?;
    assert_eq!(terminal.wait_exit(SOON)?.code(), Some(0));
    terminal.wait_for(&["\x1b[?1049l"], SOON)?;
    assert!(terminal.is_cooked()?);

    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut terminal = start()?;
        terminal.wait_for(&["CONN/S"], SOON)?;
        terminal.signal(signal);
        assert_eq!(terminal.wait_exit(SOON)?.code(), Some(0));
        terminal.wait_for(&["\x1b[?1049l"], SOON)?;
        assert!(terminal.is_cooked()?, "after signal {signal}");
    }
    Ok(())
}

#[test]
fn top_outlives_the_daemon_and_needs_one_to_begin() -> Result<()> {
    let mut site = site();
    let mut command = site.forwarder.command()?;
    let mut terminal = Terminal::start(command.args(["top", "--interval", "200ms"]))?;
    terminal.wait_for(&["CONN/S"], SOON)?;
    site.forwarder.kill()?;
    terminal.wait_for(&["no daemon answers"], SOON)?;
    terminal.forget();
    site.forwarder.run()?;
    // The foot shows the keys again.
    terminal.wait_for(&["quit"], SOON)?;
    terminal.press("q")?;
    assert_eq!(terminal.wait_exit(SOON)?.code(), Some(0));
    site.forwarder.stop();
    let output = output(site.forwarder.command()?.args(["top", "--once"]))?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("forwarder run"), "{error}");
    Ok(())
}
