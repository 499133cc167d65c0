//! `forwarder explain`: which way a connection would take, and why.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::SystemTime;

use forwarder::control::client::target;
use forwarder::explain::{Explanation, Turn};
use forwarder::health::report::NodeReport;
use forwarder::health::words;
use serde_json::Value;

use super::globals::Globals;
use super::remote::{client, show, show_json, table};

const AFTER_HELP: &str = "\
Examples:
  forwarder explain www.example.org
  forwarder explain www.example.org --from 198.51.100.4
  forwarder explain www.example.org --from 2001:db8::4 --port 443 --json

Exit codes:
  0  at least one listener would forward it
  1  none would, or there is no daemon
  2  the command line is wrong";

/// Tell which listener, route, pool and node a connection would take, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Explain {
    /// The server name that the client sends.
    name: String,
    /// The client's address [default: that of your SSH session, or one that nobody has].
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// The port it connects to; every listener when absent.
    #[arg(long)]
    port: Option<u16>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let told = self.from;
        let from = told.or_else(ssh_client).unwrap_or(ANYBODY);
        let (from, port) = (from.to_string(), self.port.map(|port| port.to_string()));
        let parameters = [
            ("name", Some(self.name.as_str())),
            ("from", Some(from.as_str())),
            ("port", port.as_deref()),
        ];
        let answer: Value =
            client(globals).ask("GET", &target("/v1/explain", &parameters), None)?;
        let explanation: Explanation = serde_json::from_value(answer.clone())?;
        if self.json {
            show_json(&answer)?;
        } else {
            let mut text = render(&explanation);
            if told.is_none() {
                text.push_str(&format!(
                    "\nfor a client at {}; --from asks for another\n",
                    explanation.from
                ));
            }
            show(&text)?;
        }
        let forwarded = explanation.ways.iter().any(|way| way.forwarded);
        Ok(ExitCode::from(u8::from(!forwarded)))
    }
}

/// Of a block that is for documentation only (RFC 5737).
const ANYBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The other end of the SSH session, if this is one: whoever asks is most likely to try.
fn ssh_client() -> Option<IpAddr> {
    let session = std::env::var("SSH_CONNECTION").ok()?;
    session.split_whitespace().next()?.parse().ok()
}

/// Why a node is not in turn, or less often than its weight says.
fn note(turn: &Turn) -> String {
    let down = turn.health.as_ref().is_some_and(NodeReport::is_down);
    match (&turn.passed_over, &turn.hindrance) {
        (Some(why), _) => format!("passed over: {why}"),
        // The column before says since when and why.
        (None, Some(_)) if down => String::from("only if the others fail"),
        (None, Some(why)) => why.clone(),
        (None, None) => String::new(),
    }
}

fn render(explanation: &Explanation) -> String {
    let now = SystemTime::now();
    let mut out = String::new();
    if let Some(note) = &explanation.note {
        let _ = writeln!(out, "{note}");
    }
    for way in &explanation.ways {
        let verdict = match (&way.node, way.forwarded) {
            (Some(node), true) => format!("node {node}"),
            (None, true) => String::from("a node at random"),
            (_, false) => String::from("refused"),
        };
        let _ = writeln!(
            out,
            "listener {} (port {}): {verdict}",
            way.listener, way.port
        );
        for why in &way.why {
            let _ = writeln!(out, "  {why}");
        }
        let mut turns = table(&["  TURN", "NODE", "ADDRESS", "SHARE", "HEALTH", ""]);
        for (at, turn) in way.nodes.iter().enumerate() {
            turns.add_row([
                format!("  {}", at + 1),
                turn.name.clone(),
                turn.address.clone(),
                format!("{:.1} %", turn.share),
                turn.health
                    .as_ref()
                    .map_or_else(|| String::from("-"), |own| words::health(own, now)),
                if way.forwarded {
                    note(turn)
                } else {
                    String::new()
                },
            ]);
        }
        if !way.nodes.is_empty() {
            let _ = writeln!(out, "{turns}");
        }
    }
    out
}
