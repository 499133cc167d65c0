//! `forwarder status`: what is attached, and the counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use forwarder::config::lasting::Lasts;
use forwarder::config::model::NodeState as Operator;
use forwarder::control::client::{Client, ClientError};
use forwarder::control::peer::GROUP;
use forwarder::dataplane::bpf::attach::Attachment;
use forwarder::dataplane::bpf::pins::Side;
use forwarder::health::report::NodeReport;
use forwarder::health::words;
use forwarder::instance::paths::Paths;
use forwarder::status::{self, Flows, NodeStatus, Status, Traffic};
use forwarder::units::{self, bytes};

use super::globals::Globals;
use super::output::show;

const AFTER_HELP: &str = "\
Reads the pinned maps, so it works whether the daemon runs or not. Members of the group `forwarder`, who may not
read them, are answered by the daemon.

Examples:
  forwarder status
  forwarder status --json | jq '.nodes[] | {name, accepted, syn_timeouts}'

Exit codes:
  0  shown
  1  no forwarder is loaded, or this user may not look
  2  the command line is wrong";

/// Show what is attached, flows, listeners, routes, nodes and refusals.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ShowStatus {
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        let place = globals.place(None);
        let status = match status::read(&place) {
            Err(error) if error.is_forbidden() => by_socket(&place)?,
            read => read?,
        };
        let text = if self.json {
            let mut json = serde_json::to_string_pretty(&status)?;
            json.push('\n');
            json
        } else {
            render(&status)
        };
        show(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The same from the daemon, for members of the group, who may not read what is root's.
fn by_socket(place: &Paths) -> anyhow::Result<Status> {
    let answer = Client::new(&place.control()).ask("GET", "/v1/status", None);
    match answer {
        Err(error @ (ClientError::Absent { .. } | ClientError::Forbidden { .. })) => {
            let why = format!(
                "permission denied: be root, or a member of the group `{GROUP}` while the daemon runs"
            );
            Err(anyhow::Error::from(error).context(why))
        }
        answer => Ok(answer?),
    }
}

fn render(status: &Status) -> String {
    let now = SystemTime::now();
    let mut out = String::new();
    for (key, value) in summary(status, now) {
        let _ = writeln!(out, "{key:<10} {value}");
    }
    let mut listeners = table(&[
        "LISTENER",
        "ADDRESSES",
        "SYNS",
        "HELLOS",
        "OPENED",
        "REFUSED",
    ]);
    for own in &status.listeners {
        listeners.add_row([
            own.name.clone(),
            own.addresses.join("\n"),
            own.syns.to_string(),
            own.hellos.to_string(),
            own.opened.to_string(),
            own.refused.to_string(),
        ]);
    }
    let mut routes = table(&[
        "ROUTE", "POOL", "OPENED", "CLOSED", "RESET", "EXPIRED", "FAILED", "UP", "DOWN",
    ]);
    for own in &status.routes {
        let mut row = vec![own.first_name.clone(), own.pool.clone()];
        row.extend(traffic(&own.traffic));
        routes.add_row(row);
    }
    let mut nodes = table(&[
        "NODE", "ADDRESS", "TUNNEL", "HEALTH", "ACCEPTED", "TIMEOUTS", "RESETS", "CONNECT", "UP",
        "DOWN",
    ]);
    for own in &status.nodes {
        let connect = own
            .connect_us
            .map(|us| format!("{:.1} ms", us as f64 / 1_000.0));
        nodes.add_row([
            own.name.clone(),
            own.address.clone(),
            tunnel(own),
            health(&own.health, now),
            own.accepted.to_string(),
            own.syn_timeouts.to_string(),
            own.syn_resets.to_string(),
            connect.unwrap_or_default(),
            bytes(own.traffic.up_bytes),
            bytes(own.traffic.down_bytes),
        ]);
    }
    let mut drops = table(&["NOT FORWARDED", "COUNT"]);
    for (reason, count) in &status.drops {
        drops.add_row([reason.clone(), count.to_string()]);
    }
    for table in [listeners, routes, nodes, drops] {
        if !table.is_empty() {
            let _ = write!(out, "\n{table}\n");
        }
    }
    out
}

/// The lines above the tables: what one wants to know first.
fn summary(status: &Status, now: SystemTime) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let uptime = status.started.map(|started| {
        let up = Duration::try_from_secs_f64(seconds.as_secs_f64() - started);
        format!(", up {}", units::age(up.unwrap_or_default()))
    });
    lines.push((
        "daemon",
        match &status.daemon {
            Some(pid) => format!("process {pid}{}", uptime.unwrap_or_default()),
            None => {
                String::from("NOT RUNNING; programs serve on their own, with the health known last")
            }
        },
    ));
    let hook = |own: &Attachment| format!("{:?}", own.hook).to_lowercase();
    for own in status
        .attachments
        .iter()
        .filter(|own| own.side == Side::Public)
    {
        lines.push(("public", format!("{} ({})", own.interface, hook(own))));
    }
    for own in status
        .attachments
        .iter()
        .filter(|own| own.side == Side::Tunnel)
    {
        let peers = peers(status, &own.interface, now);
        lines.push((
            "tunnel",
            format!("{} ({}){peers}", own.interface, hook(own)),
        ));
    }
    if status.attachments.is_empty() {
        let what = "no program stands at any interface; a daemon attaches them again";
        lines.push(("DETACHED", String::from(what)));
    }
    if let Some(own) = &status.upgrade {
        let what = format!("{} flows are yet to come over from {}", own.flows, own.from);
        lines.push(("upgrade", what));
    }
    for interface in &status.missing {
        lines.push(("MISSING", format!("{interface}: no such interface")));
    }
    for interface in &status.down {
        lines.push(("DOWN", format!("{interface}: nothing passes it")));
    }
    for own in &status.xdp {
        let word = match (&own.refusal, own.attached_now) {
            (Some(why), _) => format!("refused: {why}"),
            (None, true) => String::from("on"),
            (None, false) => String::from("off"),
        };
        let began = own
            .since
            .map(|since| UNIX_EPOCH + Duration::from_secs(since));
        let since = began.map_or_else(String::new, |began| {
            let since = now.duration_since(began).unwrap_or_default();
            format!(" for {}", units::age(since))
        });
        let (interface, times) = (&own.interface, own.attached);
        let words = format!("{interface} {word}{since}; put on {times} times");
        lines.push(("armour", words));
    }
    let pools = status.pools.iter();
    let pools: Vec<_> = pools
        .map(|own| format!("{} {}", own.name, words::pool(own)))
        .collect();
    if !pools.is_empty() {
        lines.push(("pools", format!("{} (nodes that work)", pools.join(", "))));
    }
    let Flows { open, max } = status.flows;
    let share = open as f64 * 100.0 / f64::from(max.max(1));
    lines.push(("flows", format!("{open} of {max} ({share:.1} %)")));
    if !status.closing.is_empty() {
        let what = "no longer claimed; open flows go on, new connections are the host's";
        lines.push(("closing", format!("{}: {what}", status.closing.join(", "))));
    }
    lines.push(("refused", refused(&status.refusals)));
    if !status.edits.is_empty() {
        for (lasts, words) in [
            (Lasts::Changed, "set at run time, until set anew"),
            (Lasts::Reload, "until the next reload"),
        ] {
            let edits = status.edits.iter();
            let edits = edits.filter(|own| Lasts::of(own, false) == lasts);
            let edits: Vec<_> = edits.map(ToString::to_string).collect();
            if !edits.is_empty() {
                let count = edits.len();
                lines.push(("edits", format!("{count} {words}: {}", edits.join("; "))));
            }
        }
    }
    lines
}

/// How the peers of a tunnel are, the worst first: `; peers answered 12s to 1m ago`, `; SILENT: thinkpad`.
fn peers(status: &Status, interface: &str, now: SystemTime) -> String {
    let Some(tunnel) = status.tunnels.iter().find(|own| own.interface == interface) else {
        return String::new();
    };
    if tunnel.source.is_none() {
        return String::from(", handshakes not known");
    }
    let mut groups = [Vec::new(), Vec::new(), Vec::new()];
    let mut newest = None;
    for node in &tunnel.nodes {
        let name = node.node.as_str();
        match &node.peer {
            Some(peer) if peer.silent => groups[0].push(name),
            None => groups[1].push(name),
            Some(peer) if peer.last_handshake.is_none() => groups[2].push(name),
            Some(peer) => newest = newest.max(peer.last_handshake),
        }
    }
    let mut words: Vec<_> = ["SILENT", "NO PEER for", "no handshake yet:"]
        .iter()
        .zip(groups)
        .filter(|(_, nodes)| !nodes.is_empty())
        .map(|(word, nodes)| format!("{word} {}", nodes.join(", ")))
        .collect();
    if let Some(newest) = newest {
        let age = now.duration_since(newest).unwrap_or_default();
        words.push(format!("last handshake {} ago", units::age(age)));
    }
    words.iter().map(|word| format!(", {word}")).collect()
}

/// `15: 12 unlisted_name, 3 not_tls`, the most frequent first.
fn refused(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = reasons.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = sorted
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    match reasons.values().sum::<u64>() {
        0 => String::from("0"),
        all => format!("{all}: {}", words.join(", ")),
    }
}

/// A line for each pool of the node.
fn health(pools: &[NodeReport], now: SystemTime) -> String {
    let lines = pools.iter().map(|own| match words::hindrance(own, now) {
        Some(why) if own.operator != Operator::Ready => {
            format!("{}, {why}", words::health(own, now))
        }
        _ => words::health(own, now),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn tunnel(node: &NodeStatus) -> String {
    match (&node.tunnel, node.reachable) {
        (Some(tunnel), _) => tunnel.words(),
        (None, true) => String::from("yes"),
        (None, false) => String::from("NONE"),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn traffic(traffic: &Traffic) -> [String; 7] {
    [
        traffic.opened.to_string(),
        traffic.closed.to_string(),
        traffic.reset.to_string(),
        traffic.expired.to_string(),
        traffic.failed.to_string(),
        bytes(traffic.up_bytes),
        bytes(traffic.down_bytes),
    ]
}
