//! A lab in which a day happens within a minute: clients of several networks, uploads and downloads, refusals of
//! every kind, a node that dies and comes back, one that is drained, a flood, a full flow table, reloads.
//!
//! It is there to be watched: by the test that runs every query of the dashboards, and for the previews.
//!
//! | name | pool | nodes |
//! |---|---|---|
//! | `www.example.org` | `web`, transparent, checked by TLS | homeserver, thinkpad |
//! | `photos.example.org` | `web` | the same |
//! | `git.example.org` | `git`, proxy-v2, checked by HTTPS | homeserver-git, thinkpad-git |
//! | `old.example.org` | `old`, refuses while empty; nobody serves it | attic |

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::client::{Crypto, TlsClient, tls};
use crate::command::run;
use crate::error::{Context, Result};
use crate::forwarder::{Forwarder, entrance_section};
use crate::hello::{Hello, cases};
use crate::lab::{ClientHost, Family, Lab, TunnelKind};
use crate::mmdb;
use crate::packet::Flags;
use crate::raw::{RawTcp, SYN_OPTIONS};
use crate::server::prometheus::now;
use crate::server::web::{WebOptions, WebServer};

/// Clients, each in a network of its own.
const CLIENTS: u8 = 6;
/// Flows that fit: few, so that the table can be filled with little work.
const MAX_FLOWS: usize = 128;
/// SYNs of the flood that nothing follows.
const FLOOD: u32 = 4_000;
/// Segments a second of nobody in particular from which on the XDP filter is put on.
const XDP_ABOVE: u32 = 500;
/// The database of countries, in the lab's folder.
const COUNTRIES: &str = "countries.mmdb";
const NAMES: [&str; 3] = ["www.example.org", "photos.example.org", "git.example.org"];

/// The lab at work.
#[derive(Debug)]
pub struct Busy {
    /// The forwarder in its entrance.
    pub forwarder: Forwarder<'static>,
    /// The servers of homeserver and thinkpad, for `web` and for `git`.
    webs: Mutex<[Vec<WebServer>; 2]>,
    config: Arc<ClientConfig>,
    /// The lab. It lives until the process ends.
    pub lab: &'static Lab,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Connections of real clients that were served.
    pub served: usize,
    /// Those that were not, for the node that died or the table that was full.
    pub failed: usize,
}

impl Busy {
    /// Builds the lab and starts servers and forwarder.
    pub fn start() -> Result<Self> {
        let builder = Lab::builder()
            .clients(CLIENTS)
            .tunnel(TunnelKind::WireGuard, 2);
        let lab: &'static Lab = Box::leak(Box::new(builder.build()?));
        write_countries(lab)?;
        let busy = Self {
            webs: Mutex::new([serve(lab, 0)?, serve(lab, 1)?]),
            config: tls::config(&lab.pki, Crypto::PostQuantum, &["http/1.1"])?,
            forwarder: Forwarder::start(lab, &configuration(lab))?,
            lab,
        };
        Ok(busy)
    }

    /// Lets everything happen within a time, each event at its share of it.
    pub fn run(&self, time: Duration) -> Result<Tally> {
        let (served, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let over = AtomicBool::new(false);
        let events = std::thread::scope(|scope| {
            let (over, served, failed) = (&over, &served, &failed);
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    let mut visit = usize::from(client);
                    while !over.load(Ordering::Relaxed) {
                        let done = match self.visit(client, visit) {
                            Ok(()) => served,
                            Err(_) => failed,
                        };
                        done.fetch_add(1, Ordering::Relaxed);
                        visit += 1;
                        // The first clients come more often than the last.
                        std::thread::sleep(Duration::from_millis(60 * u64::from(client + 1)));
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // What a single forged packet brings about is not what this is a test of.
                    let _ = self.misbehave();
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
            let events = self.events(time);
            over.store(true, Ordering::Relaxed);
            events
        });
        events?;
        Ok(Tally {
            served: served.into_inner(),
            failed: failed.into_inner(),
        })
    }

    /// One connection of a client, of a kind that its number decides.
    fn visit(&self, client: u8, number: usize) -> Result<()> {
        let host = &self.lab.clients[usize::from(client)];
        let family = Family::BOTH[usize::from(number % 5 == 4)];
        let name = NAMES[number % NAMES.len()];
        let entrance = SocketAddr::new(self.lab.public(family), 443);
        let connect = |name| TlsClient::connect(&host.namespace, &self.config, name, entrance);
        let mut open = match number % 6 {
            // In 16 pieces and more, and each is acknowledged.
            3 => {
                let space = &host.namespace;
                TlsClient::connect_in_pieces(space, &self.config, name, entrance, 100)?
            }
            _ => connect(name)?,
        };
        match number % 6 {
            0 => drop(open.download("/bytes/2000000")?),
            1 => drop(open.upload("/", 3, 400_000)?),
            // It stays a while.
            2 => drop(open.get("/sleep/1500")?),
            _ => drop(open.report()?),
        }
        Ok(())
    }

    /// Connections that are refused, one of each kind, and segments that belong to nothing.
    fn misbehave(&self) -> Result<()> {
        let refused = cases::all("www.example.org").into_iter();
        let refused = refused.filter(|case| case.verdict == cases::Verdict::Refuse);
        let strangers = ["private.example.org", "old.example.org"];
        let strangers = strangers.map(|name| Hello::small(name).record());
        let plain = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n".to_vec();
        let all = strangers.into_iter().chain([plain]);
        for (number, bytes) in all.chain(refused.map(|case| case.bytes)).enumerate() {
            let client = &self.lab.clients[number % usize::from(CLIENTS)];
            let port = [443, 444][number % 2];
            let mut raw = self.raw(client, port)?;
            raw.connect()?;
            raw.send_in_pieces(&bytes, 1_200)?;
            // The entrance's answer, so that it is not sent before the bytes have been read.
            raw.receive_matching(Duration::from_millis(200), |own| {
                own.flags.has(Flags::FIN) || own.flags.has(Flags::RST)
            })?;
        }
        // A segment of a connection that the entrance has never seen, and one that is out of order.
        let client = &self.lab.clients[0];
        let mut lost = self.raw(client, 443)?;
        lost.next = lost.next.wrapping_add(1);
        lost.expected = 1;
        lost.send_data(b"anyone?")?;
        let mut early = self.raw(client, 443)?;
        early.connect()?;
        early.send(&early.data_at(100, b"later bytes first"))
    }

    fn raw(&self, client: &ClientHost, port: u16) -> Result<RawTcp> {
        RawTcp::new(client, SocketAddr::new(self.lab.public(Family::V4), port))
    }

    /// What happens to the entrance, in its order.
    fn events(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        let at = |share: f64| {
            let wanted = time.mul_f64(share);
            std::thread::sleep(wanted.saturating_sub(begin.elapsed()));
        };
        let verb = |words: &[&str]| run(self.forwarder.command()?.args(words)).map(drop);
        at(0.15);
        verb(&["reload"])?;
        at(0.2);
        self.webs.lock().unwrap_or_else(PoisonError::into_inner)[1].clear();
        at(0.4);
        let back = serve(self.lab, 1)?;
        self.webs.lock().unwrap_or_else(PoisonError::into_inner)[1] = back;
        at(0.5);
        self.flood()?;
        at(0.6);
        verb(&["node", "drain", "homeserver"])?;
        at(0.7);
        verb(&["node", "ready", "homeserver"])?;
        at(0.75);
        self.break_the_file()?;
        at(0.8);
        self.fill_the_table()?;
        at(1.0);
        Ok(())
    }

    /// SYNs from addresses that never answer.
    fn flood(&self) -> Result<()> {
        let source = self.raw(&self.lab.clients[3], 443)?;
        for number in 0..FLOOD {
            let mut syn = source.segment(Flags::SYN);
            let [.., high, low] = number.to_be_bytes();
            let address = self.lab.clients[3].raw_address(Family::V4, 2 + low % 100);
            syn.source = SocketAddr::new(address, 1_024 + u16::from_be_bytes([high, low]));
            syn.options = SYN_OPTIONS.to_vec();
            source.send(&syn)?;
        }
        Ok(())
    }

    /// A reload that is refused, and one that works.
    fn break_the_file(&self) -> Result<()> {
        let good = configuration(self.lab);
        self.forwarder
            .write_config(&good.replace("port = 444", "port = 444444"))?;
        let refused = run(self.forwarder.command()?.arg("reload"));
        assert!(refused.is_err(), "a file with an error was taken");
        self.forwarder.write_config(&good)?;
        run(self.forwarder.command()?.arg("reload")).map(drop)
    }

    /// More connections than fit, open for two seconds.
    fn fill_the_table(&self) -> Result<()> {
        let hello = Hello::small(NAMES[0]).record();
        let mut open = Vec::new();
        for _ in 0..MAX_FLOWS + 10 {
            let mut raw = self.raw(&self.lab.clients[4], 443)?;
            raw.connect()?;
            raw.send_data(&hello)?;
            open.push(raw);
        }
        std::thread::sleep(Duration::from_secs(2));
        for raw in &mut open {
            let answers = raw.drain(Duration::from_millis(1))?;
            for answer in answers.iter().filter(|own| !own.payload.is_empty()) {
                raw.expected = answer.end();
            }
            raw.send(&raw.segment(Flags::RST_ACK))?;
        }
        Ok(())
    }
}

/// The servers of a node: one of `web`, one of `git`.
fn serve(lab: &Lab, node: usize) -> Result<Vec<WebServer>> {
    let name = ["homeserver", "thinkpad"][node];
    let namespace = &lab.nodes[node].namespace;
    [
        WebOptions::new(name, 443),
        WebOptions::new(name, 8443).proxy(),
    ]
    .map(|options| WebServer::start(namespace, &lab.pki, options))
    .into_iter()
    .collect()
}

/// A database in which each client's network is in another country, but for the last one's, which is in none.
fn write_countries(lab: &Lab) -> Result<()> {
    let codes = ["DE", "US", "FR", "IN", "BR"];
    let networks: Vec<_> = codes
        .into_iter()
        .zip(&lab.clients)
        .flat_map(|(code, client)| {
            [(Family::V4, 24), (Family::V6, 48)]
                .map(|(family, length)| (client.address(family), length, code))
        })
        .collect();
    let built = now() as u64 - 9 * 86_400;
    let path = lab.folder().join(COUNTRIES);
    std::fs::write(&path, mmdb::countries(built, &networks))
        .context(|| format!("writing {}", path.display()))
}

fn configuration(lab: &Lab) -> String {
    let node = |name: &str, at: usize, port: u16| {
        Family::BOTH.map(|family| {
            let address = lab.nodes[at].socket(family, port).to_string();
            let name = match family {
                Family::V4 => name.to_owned(),
                Family::V6 => format!("{name}-v6"),
            };
            format!("{{ name = {name:?}, address = {address:?} }}")
        })
    };
    let nodes = |all: &[[String; 2]]| all.concat().join(", ");
    let web = nodes(&[node("homeserver", 0, 443), node("thinkpad", 1, 443)]);
    let git = nodes(&[
        node("homeserver-git", 0, 8443),
        node("thinkpad-git", 1, 8443),
    ]);
    let attic = nodes(&[node("attic", 1, 9999)]);
    format!(
        r#"
{entrance}max_flows = {MAX_FLOWS}
xdp_above = {XDP_ABOVE}
xdp_calm = "3s"

[metrics]
listen = "127.0.0.1:9469"

[flow_log]
to = {flows:?}
opened = true

[geoip]
country = {countries:?}

[[listener]]
name = "https"
protocol = "tls"
port = 443

[[listener]]
name = "alternative"
protocol = "tls"
port = 444
on_refuse = "reset"

[[pool]]
name = "web"
client_address = "transparent"
balance = "random"
health = {{ check = "tls", interval = "500ms", timeout = "500ms" }}
slow_start = "3s"
nodes = [{web}]

[[pool]]
name = "git"
client_address = "proxy-v2"
balance = "random"
health = {{ check = "https", interval = "500ms", timeout = "500ms", server_name = "git.example.org" }}
nodes = [{git}]

[[pool]]
name = "old"
client_address = "masquerade"
health = {{ check = "tcp", interval = "500ms", timeout = "500ms" }}
when_empty = "refuse"
nodes = [{attic}]

[[route]]
names = ["www.example.org"]
pool = "web"

[[route]]
names = ["photos.example.org"]
pool = "web"

[[route]]
names = ["git.example.org"]
pool = "git"

[[route]]
names = ["old.example.org"]
pool = "old"
"#,
        entrance = entrance_section(lab),
        flows = lab.folder().join("flows.jsonl"),
        countries = lab.folder().join(COUNTRIES),
    )
}
