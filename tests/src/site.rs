//! A lab with the forwarder at work in its entrance and servers on its nodes: what most end-to-end
//! tests begin with.
//!
//! | Name | Pool | Node and port |
//! |---|---|---|
//! | `www.example.org`, `*.example.net` | transparent | node 0, web server, 443 |
//! | `*.apps.example.org` | transparent | node 1, web server, 443 |
//! | `proxied.example.org` | proxy-v2 | node 0, web server, 8443 |
//! | `masked.example.org` | masquerade | node 0, web server, 443 |
//! | `record.example.org` | transparent | node 0, recorder, 7000 |
//! | `record-proxied.example.org` | proxy-v2 | node 0, recorder, 7001 |
//! | `record-masked.example.org` | masquerade | node 0, recorder, 7002 |
//!
//! Every name holds on the listeners `https` (443, refuses by alert), `reset` (444) and `drop` (445).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::capture::Capture;
use crate::client::Curl;
use crate::error::Result;
use crate::forwarder::Forwarder;
use crate::hello::Hello;
use crate::lab::{Family, Lab, LabBuilder, Node, TunnelKind};
use crate::raw::{PATIENCE, RawTcp};
use crate::server::recorder::{Connection, Recorder};
use crate::server::web::{Report, WebOptions, WebServer};

/// The port of the listener that refuses by TLS alert.
pub const ALERT: u16 = 443;
/// The port of the listener that refuses by reset.
pub const RESET: u16 = 444;
/// The port of the listener that refuses by silence.
pub const DROP: u16 = 445;

/// The three listeners.
pub const LISTENERS: &str = r#"
[[listener]]
name = "https"
protocol = "tls"
port = 443
on_refuse = "alert"

[[listener]]
name = "reset"
protocol = "tls"
port = 444
on_refuse = "reset"

[[listener]]
name = "drop"
protocol = "tls"
port = 445
on_refuse = "drop"
"#;

/// A lab at work.
#[derive(Debug)]
pub struct Site {
    /// The forwarder.
    pub forwarder: Forwarder<'static>,
    /// The transparent recorder on node 0, port 7000.
    pub recorder: Recorder,
    /// The recorder behind PROXY v2 on node 0, port 7001.
    pub recorder_proxied: Recorder,
    /// The recorder behind masquerading on node 0, port 7002.
    pub recorder_masked: Recorder,
    _webs: Vec<WebServer>,
    /// The lab. It lives until the process ends.
    pub lab: &'static Lab,
}

impl Site {
    /// A WireGuard tunnel with two nodes, and two clients.
    ///
    /// # Panics
    /// With the reason, if anything goes wrong.
    #[must_use]
    pub fn start() -> Self {
        Self::build(Lab::builder().clients(2).tunnel(TunnelKind::WireGuard, 2))
    }

    /// The same in another lab, which must have two nodes.
    ///
    /// # Panics
    /// With the reason, if anything goes wrong.
    #[must_use]
    pub fn build(builder: LabBuilder) -> Self {
        builder
            .build()
            .and_then(|lab| Self::serve(Box::leak(Box::new(lab))))
            .unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn serve(lab: &'static Lab) -> Result<Self> {
        let [first, second] = [&lab.nodes[0], &lab.nodes[1]];
        let web = |node: &Node, options| WebServer::start(&node.namespace, &lab.pki, options);
        let webs = vec![
            web(first, WebOptions::new("node0", 443))?,
            web(second, WebOptions::new("node1", 443))?,
            web(first, WebOptions::new("node0", 8443).proxy())?,
        ];
        Ok(Self {
            recorder: Recorder::start(&first.namespace, 7000)?,
            recorder_proxied: Recorder::start(&first.namespace, 7001)?,
            recorder_masked: Recorder::start(&first.namespace, 7002)?,
            _webs: webs,
            forwarder: Forwarder::start(lab, &configuration(lab))?,
            lab,
        })
    }

    /// A listener's address.
    #[must_use]
    pub fn entrance(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.public(family), port)
    }

    /// A `curl` of client 0 to a name on the listener `https`.
    pub fn curl(&self, family: Family, name: &str, path: &str) -> Result<Curl> {
        let client = &self.lab.clients[0].namespace;
        Curl::new(
            client,
            &self.lab.pki,
            name,
            self.entrance(family, ALERT),
            path,
        )
    }

    /// What the web server behind a name sees of client 0.
    pub fn report(&self, family: Family, name: &str) -> Result<Report> {
        self.curl(family, name, "/")?.json()
    }

    /// A hand-made connection of client 0, yet to be opened.
    pub fn raw(&self, family: Family, port: u16) -> Result<RawTcp> {
        RawTcp::new(&self.lab.clients[0], self.entrance(family, port))
    }

    /// A hand-made connection that has reached the transparent recorder with a small hello, which
    /// has been acknowledged; and the recorder's end of it.
    pub fn established(&self, family: Family) -> Result<(RawTcp, Connection)> {
        let raw = self.raw(family, ALERT)?;
        self.establish(raw)
    }

    /// The same with a connection that is yet to be opened.
    pub fn establish(&self, mut raw: RawTcp) -> Result<(RawTcp, Connection)> {
        let hello = Hello::small("record.example.org").record();
        raw.connect()?;
        raw.send_data(&hello)?;
        let connection = self.recorded(&raw, hello.len())?;
        let next = raw.next;
        raw.expect("the node's acknowledgement of the hello", |segment| {
            segment.ack == next
        })?;
        Ok((raw, connection))
    }

    /// The transparent recorder's end of a hand-made connection, once it has got so many bytes.
    pub fn recorded(&self, raw: &RawTcp, length: usize) -> Result<Connection> {
        let what = format!("{length} bytes from {}", raw.local);
        self.recorder.wait_for(&what, PATIENCE, |c| {
            c.peer == raw.local && c.bytes.len() >= length
        })
    }

    /// Records what passes the tunnel, on the nodes' side, where nothing is hidden.
    pub fn tunnel(&self, node: usize) -> Result<Capture> {
        let node = &self.lab.nodes[node];
        Capture::start(&node.namespace, &node.interface)
    }
}

/// Runs an attempt so many times on some threads, and fails with all that went wrong.
///
/// # Panics
/// If an attempt failed.
pub fn crowd(total: usize, threads: usize, attempt: impl Fn(usize) -> Result<()> + Sync) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    if let Err(error) = attempt(number) {
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push(format!("{number}: {error:?}"));
                    }
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    assert!(
        failures.is_empty(),
        "{} of {total} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The configuration of a site, without `[entrance]`.
#[must_use]
pub fn configuration(lab: &Lab) -> String {
    let pools = [
        pool("web", "transparent", &[(&lab.nodes[0], 443)]),
        pool("apps", "transparent", &[(&lab.nodes[1], 443)]),
        pool("proxied", "proxy-v2", &[(&lab.nodes[0], 8443)]),
        pool("masked", "masquerade", &[(&lab.nodes[0], 443)]),
        pool("record", "transparent", &[(&lab.nodes[0], 7000)]),
        pool("record-proxied", "proxy-v2", &[(&lab.nodes[0], 7001)]),
        pool("record-masked", "masquerade", &[(&lab.nodes[0], 7002)]),
    ];
    let routes = [
        route(&["www.example.org", "*.example.net"], "web"),
        route(&["*.apps.example.org"], "apps"),
        route(&["proxied.example.org"], "proxied"),
        route(&["masked.example.org"], "masked"),
        route(&["record.example.org"], "record"),
        route(&["record-proxied.example.org"], "record-proxied"),
        route(&["record-masked.example.org"], "record-masked"),
    ];
    format!("{LISTENERS}\n{}\n{}", pools.join("\n"), routes.join("\n"))
}

/// A `[[pool]]` whose nodes are given with both their addresses.
#[must_use]
pub fn pool(name: &str, client_address: &str, nodes: &[(&Node, u16)]) -> String {
    let nodes: Vec<String> = nodes
        .iter()
        .flat_map(|(node, port)| Family::BOTH.map(|family| node.socket(family, *port).to_string()))
        .collect();
    format!("[[pool]]\nname = {name:?}\nclient_address = {client_address:?}\nnodes = {nodes:?}\n")
}

/// A `[[route]]` on every listener.
#[must_use]
pub fn route(names: &[&str], pool: &str) -> String {
    format!("[[route]]\nnames = {names:?}\npool = {pool:?}\n")
}

/// How long a refusal may take: no node is asked, so it comes at once.
pub const REFUSAL: Duration = Duration::from_secs(3);
