//! Nodes that stop working and come back: who notices, how soon, and what happens to connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::client::{Crypto, TlsClient, tls};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::netns::Namespace;
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::RawTcp;
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::server::recorder::{End, Recorder};
use forwarder_tests::server::web::{WebOptions, WebServer};
use forwarder_tests::site::{LISTENERS, route};
use forwarder_tests::wire::Fate;
use serde_json::Value;

const NAME: &str = "www.example.org";
const PORT: u16 = 443;
/// Checks that a test need not wait for.
const QUICK: &str = "health = { check = \"tls\", interval = \"300ms\", timeout = \"500ms\" }\n";

/// A lab with nodes that serve one name, and the forwarder.
struct Place {
    lab: &'static Lab,
    webs: Vec<Option<WebServer>>,
    forwarder: Forwarder<'static>,
    config: Arc<rustls::ClientConfig>,
}

impl Place {
    /// So many nodes, and further keys of their pool.
    fn start(nodes: u8, keys: &str) -> Result<Self> {
        let builder = Lab::builder().tunnel(TunnelKind::Ethernet, nodes);
        let lab: &'static Lab = Box::leak(Box::new(builder.tunnel_wires().build()?));
        let addresses: Vec<String> = lab
            .nodes
            .iter()
            .map(|node| node.socket(Family::V4, PORT).to_string())
            .collect();
        let pool = format!(
            "[[pool]]\nclient_address = \"transparent\"\nname = \"web\"\nbalance = \"random\"\nnodes = {addresses:?}\n{keys}"
        );
        let webs = lab.nodes.iter().enumerate();
        let webs = webs.map(|(at, node)| web(lab, &node.namespace, at).map(Some));
        Ok(Self {
            lab,
            webs: webs.collect::<Result<_>>()?,
            config: tls::config(&lab.pki, Crypto::Classic, &["http/1.1"])?,
            forwarder: Forwarder::start(
                lab,
                &format!("{LISTENERS}\n{pool}\n{}", route(&[NAME], "web")),
            )?,
        })
    }

    fn serve(&mut self, node: usize) -> Result<()> {
        let namespace = &self.lab.nodes[node].namespace;
        self.webs[node] = Some(web(self.lab, namespace, node)?);
        Ok(())
    }

    /// Ends a node's server: its kernel answers SYNs with resets.
    fn close(&mut self, node: usize) {
        self.webs[node] = None;
    }

    /// Nothing comes from a node, and nothing goes to it.
    fn silence(&self, node: usize) {
        self.lab.nodes[node].wire().set_rule(|_, _| Fate::Lose);
    }

    fn entrance(&self) -> SocketAddr {
        SocketAddr::new(self.lab.public(Family::V4), PORT)
    }

    /// One connection of a client: the node that served it.
    fn connect(&self) -> Result<usize> {
        let client = &self.lab.clients[0].namespace;
        let mut client = TlsClient::connect(client, &self.config, NAME, self.entrance())?;
        let server = client.report()?.server;
        Ok(server.trim_start_matches("node").parse().expect("a number"))
    }

    /// What `status` says about a node.
    fn node(&self, node: usize) -> Result<Value> {
        let address = self.lab.nodes[node].socket(Family::V4, PORT).to_string();
        let status = self.forwarder.status()?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let found = nodes.into_iter().find(|own| own["address"] == *address);
        Ok(found.unwrap_or_else(|| panic!("{address} is not in the status")))
    }

    fn state(&self, node: usize) -> Result<String> {
        let node = self.node(node)?;
        let state = node["health"][0]["state"].as_str();
        Ok(state
            .unwrap_or_else(|| panic!("no state in {node}"))
            .to_owned())
    }

    fn syns(&self, node: usize) -> Result<u64> {
        Ok(self.node(node)?["syns"].as_u64().expect("a number"))
    }

    /// Waits for a node to be in a state.
    fn wait(&self, node: usize, state: &str, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let now = self.state(node)?;
            if now == state {
                return Ok(begin.elapsed());
            }
            assert!(
                begin.elapsed() < limit,
                "node {node} is {now} and not {state} after {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Lines of the log with this text.
    fn logged(&self, text: &str) -> usize {
        let log = self.forwarder.log();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

fn web(lab: &Lab, namespace: &Namespace, node: usize) -> Result<WebServer> {
    let options = WebOptions::new(&format!("node{node}"), PORT);
    WebServer::start(namespace, &lab.pki, options)
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_node_that_falls_silent_is_out_by_its_clients_and_back_after_a_while() -> Result<()> {
    let place = Place::start(2, "")?;
    let used: Vec<usize> = (0..20).map(|_| place.connect()).collect::<Result<_>>()?;
    assert!(used.contains(&0) && used.contains(&1), "{used:?}");
    assert_eq!(place.state(1)?, "unwatched");
    place.silence(1);
    let begin = Instant::now();
    while place.state(1)? != "down" {
        assert_eq!(place.connect()?, 0);
        assert!(begin.elapsed() < SOON * 2, "still in use");
    }
    println!("out {:?} after it fell silent", begin.elapsed());
    let syns = place.syns(1)?;
    for _ in 0..20 {
        assert_eq!(place.connect()?, 0);
    }
    assert_eq!(place.syns(1)?, syns, "nobody waits for it any more");
    assert_eq!(place.logged("node is down"), 1);
    assert!(place.forwarder.status_text()?.contains("DOWN"));

    place.lab.nodes[1].wire().mend();
    // Ten seconds after it was taken out.
    place.wait(1, "unwatched", SOON)?;
    let begin = Instant::now();
    while place.connect()? != 1 {
        assert!(begin.elapsed() < SOON, "not in use again");
    }
    Ok(())
}

#[test]
fn checks_take_a_node_out_and_bring_it_back_step_by_step() -> Result<()> {
    let mut place = Place::start(2, &format!("{QUICK}slow_start = \"4s\"\n"))?;
    place.wait(0, "up", SOON)?;
    place.wait(1, "up", SOON)?;
    let health = place.node(1)?["health"][0].clone();
    assert!(health["certificate_expires"].as_i64() > Some(0), "{health}");
    assert_eq!(health["last"]["error"], Value::Null, "{health}");
    let syns = place.syns(1)?;
    place.close(1);
    let took = place.wait(1, "down", SOON)?;
    println!("out {took:?} after its server ended");
    for _ in 0..10 {
        assert_eq!(place.connect()?, 0);
    }
    assert_eq!(place.syns(1)?, syns, "no client met it");
    let error = place.node(1)?["health"][0]["last"]["error"].clone();
    assert!(
        error.as_str().is_some_and(|text| text.contains("refused")),
        "{error}"
    );

    place.serve(1)?;
    place.wait(1, "up", SOON)?;
    let mut shares = Vec::new();
    let begin = Instant::now();
    while shares.last() != Some(&100) {
        assert!(begin.elapsed() < SOON, "{shares:?}");
        shares.push(
            place.node(1)?["health"][0]["share"]
                .as_u64()
                .expect("a number"),
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(shares.is_sorted() && shares[0] < 100, "{shares:?}");
    let used: Vec<usize> = (0..20).map(|_| place.connect()).collect::<Result<_>>()?;
    assert!(used.contains(&1), "{used:?}");
    assert_eq!(place.logged("node is down"), 1);
    assert_eq!(place.logged("node is up"), 1);
    Ok(())
}

#[test]
fn a_check_of_a_proxy_port_says_local() -> Result<()> {
    let lab: &'static Lab = Box::leak(Box::new(
        Lab::builder().tunnel(TunnelKind::Ethernet, 1).build()?,
    ));
    let node = &lab.nodes[0];
    let _nginx = Nginx::serve_tls(lab, &node.namespace, "node0", 8443, true)?;
    let pool = |name: &str, more: &str| {
        let address = node.socket(Family::V4, 8443);
        format!(
            "[[pool]]\nname = \"{name}\"\nclient_address = \"proxy-v2\"\nnodes = [\"{address}\"]\n\
             health = {{ check = \"https\", path = \"/whoami\", interval = \"300ms\"{more} }}\n"
        )
    };
    let config = [
        LISTENERS.to_owned(),
        pool("default", ", expect = [200]"),
        pool("without", ", proxy = false"),
        route(&["a.example.org"], "default"),
        route(&["b.example.org"], "without"),
    ];
    let forwarder = Forwarder::start(lab, &config.join("\n"))?;
    let begin = Instant::now();
    loop {
        let health = forwarder.status()?["nodes"][0]["health"].clone();
        let state = |at: usize| health[at]["state"].as_str().unwrap_or_default().to_owned();
        if state(0) == "up" && state(1) == "down" {
            assert!(
                health[0]["certificate_expires"].as_i64() > Some(0),
                "{health}"
            );
            return Ok(());
        }
        assert!(begin.elapsed() < SOON, "{health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_nodes_connections_are_refused_until_the_daemon_has_been_gone_for_a_while() -> Result<()>
{
    let mut place = Place::start(1, &format!("{QUICK}when_empty = \"refuse\"\n"))?;
    place.wait(0, "up", SOON)?;
    assert_eq!(place.connect()?, 0);
    place.close(0);
    place.wait(0, "down", SOON)?;
    let syns = place.syns(0)?;
    let refused = |place: &Place| {
        place
            .forwarder
            .status()
            .map(|all| all["drops"]["no_node"].clone())
    };
    let begin = Instant::now();
    while place.connect().is_ok() || refused(&place)? == Value::Null {
        assert!(begin.elapsed() < SOON, "not refused");
    }
    let error = place.connect().expect_err("no node").to_string();
    assert_eq!(place.syns(0)?, syns, "{error}");

    // Nobody is left to say that it works again.
    place.forwarder.kill()?;
    place.serve(0)?;
    let begin = Instant::now();
    while place.connect().is_err() {
        assert!(begin.elapsed() < SOON * 2, "refused for ever");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn without_nodes_all_are_tried() -> Result<()> {
    let checks = "health = { check = \"tcp\", interval = \"1d\", fall = 1, passive = false }\n";
    let mut place = Place::start(2, checks)?;
    place.wait(0, "up", SOON)?;
    place.wait(1, "up", SOON)?;
    place.forwarder.stop();
    place.close(0);
    place.close(1);
    place.forwarder.run()?;
    // The first checks of the new daemon decide, and the next ones are a day away.
    place.wait(0, "down", SOON)?;
    place.wait(1, "down", SOON)?;
    place.serve(0)?;
    for _ in 0..10 {
        assert_eq!(place.connect()?, 0, "health is wrong, and does no harm");
    }
    assert_eq!(place.state(0)?, "down");
    Ok(())
}

#[test]
fn health_that_nobody_renews_closes_nothing() -> Result<()> {
    let mut place = Place::start(2, QUICK)?;
    place.wait(0, "up", SOON)?;
    place.wait(1, "up", SOON)?;
    place.close(1);
    place.wait(1, "down", SOON)?;
    place.forwarder.kill()?;
    // Now the node that is taken to work does not, and the other one does.
    place.close(0);
    place.serve(1)?;
    for _ in 0..10 {
        assert_eq!(place.connect()?, 1);
    }
    Ok(())
}

#[test]
fn a_restarted_daemon_neither_reopens_a_dead_node_nor_closes_a_live_one() -> Result<()> {
    let mut place = Place::start(2, QUICK)?;
    place.wait(0, "up", SOON)?;
    place.wait(1, "up", SOON)?;
    place.close(1);
    place.wait(1, "down", SOON)?;
    let syns = place.syns(1)?;
    for killed in [true, false] {
        // What is known is written down within a second.
        std::thread::sleep(Duration::from_secs(1));
        if killed {
            place.forwarder.kill()?;
        } else {
            place.forwarder.stop();
        }
        assert_eq!(place.connect()?, 0);
        place.forwarder.run()?;
        assert_eq!(
            (place.state(0)?, place.state(1)?),
            ("up".into(), "down".into())
        );
        for _ in 0..10 {
            assert_eq!(place.connect()?, 0);
        }
    }
    assert_eq!(place.syns(1)?, syns, "no client met it");
    assert_eq!(place.logged("node is down"), 1);
    assert_eq!(place.logged("node is up"), 0);
    // The new daemon finds out by itself when it is back.
    place.serve(1)?;
    place.wait(1, "up", SOON)?;
    Ok(())
}

#[test]
fn edits_keep_no_dead_node_in_use() -> Result<()> {
    let checks =
        "health = { check = \"tls\", interval = \"1s\", timeout = \"1500ms\", passive = false }\n";
    let place = Place::start(2, checks)?;
    place.wait(0, "up", SOON)?;
    place.wait(1, "up", SOON)?;
    place.silence(1);
    let node = place.lab.nodes[0].socket(Family::V4, PORT).to_string();
    let begin = Instant::now();
    let mut weight = 1;
    while place.state(1)? != "down" {
        assert!(begin.elapsed() < SOON, "edits keep it up");
        weight = 3 - weight;
        let mut edit = place.forwarder.command()?;
        edit.args(["node", "weight", &node, &weight.to_string()]);
        forwarder_tests::command::run(&mut edit)?;
        std::thread::sleep(Duration::from_millis(800));
    }
    println!("out {:?} after it fell silent", begin.elapsed());
    Ok(())
}

#[test]
fn connections_of_a_dead_node_are_reset_if_asked() -> Result<()> {
    for (keys, reset) in [
        ("on_down = \"reset\"\n", true),
        ("on_down = \"keep\"\n", false),
    ] {
        let mut place = Place::start(1, &format!("{QUICK}{keys}"))?;
        place.close(0);
        let node = &place.lab.nodes[0];
        let recorder = Recorder::start(&node.namespace, PORT)?;
        // What listens now speaks no TLS; take it for working until the wire is cut.
        let address = node.socket(Family::V4, PORT);
        let pool = format!(
            "[[pool]]\nclient_address = \"transparent\"\nname = \"web\"\nnodes = [\"{address}\"]\n{keys}{}",
            QUICK.replace("tls", "tcp")
        );
        place
            .forwarder
            .write_config(&format!("{LISTENERS}\n{pool}\n{}", route(&[NAME], "web")))?;
        place.forwarder.stop();
        place.forwarder.run()?;
        place.wait(0, "up", SOON)?;
        let mut raw = RawTcp::new(&place.lab.clients[0], place.entrance())?;
        raw.connect()?;
        let hello = Hello::small(NAME).record();
        raw.send_data(&hello)?;
        let local = raw.local;
        let open = recorder.wait_for("the hello", SOON, |own| {
            own.peer == local && own.bytes == hello
        })?;
        open.send(b"welcome")?;
        assert_eq!(raw.read(7, SOON)?, b"welcome");
        place.silence(0);
        place.wait(0, "down", SOON)?;
        if reset {
            let begin = Instant::now();
            while place.logged("connections of a dead node are reset") == 0 {
                assert!(begin.elapsed() < SOON, "no word of resets");
                std::thread::sleep(Duration::from_millis(20));
            }
            // The client has not said a word since.
            raw.expect("a reset at once", |segment| segment.flags.has(Flags::RST))?;
        }
        place.lab.nodes[0].wire().mend();
        raw.send_data(b"still there?")?;
        let next = raw.next;
        let answer = raw.receive_matching(Duration::from_secs(5), |segment| {
            segment.flags.has(Flags::RST) || segment.ack == next
        })?;
        let answer = answer.expect("some answer");
        assert_eq!(answer.flags.has(Flags::RST), reset, "{keys}: {answer:?}");
        if reset {
            open.send(b"and you?")?;
            recorder.wait_for("the node's reset", SOON, |own| {
                own.peer == local && own.end == End::Reset
            })?;
        }
    }
    Ok(())
}
