//! What the verbs that talk to the daemon share: the socket, tables, and how an answer is shown.

use std::time::SystemTime;

use anyhow::Context;
use comfy_table::{Table, presets};
use forwarder::config::difference::Difference;
use forwarder::config::lasting::Lasts;
use forwarder::control::client::{Client, ClientError};
use forwarder::dataplane::flows::open::{Clients, NoClient};
use forwarder::health::report::NodeReport;
use forwarder::health::words;
use forwarder::status::NodeTunnelStatus;
use forwarder::units;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::globals::Globals;
pub use super::output::show;
use super::output::tell;

/// What the help of these verbs ends with.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  not done: no daemon, no permission, or it says no
  2  the command line is wrong";

/// The daemon of this instance.
pub fn client(globals: &Globals) -> Client {
    Client::new(&globals.place(None).control())
}

/// The report inside a refusal is shown as `check` shows it.
pub fn explained<T>(answer: Result<T, ClientError>) -> anyhow::Result<T> {
    if let Err(ClientError::Refused(problem)) = &answer
        && let Some(rendered) = &problem.rendered
    {
        tell(rendered)?;
    }
    Ok(answer?)
}

/// A client filter of the command line: wrong ones are refused before anybody is asked.
pub fn clients(text: &str) -> Result<String, NoClient> {
    text.parse::<Clients>().map(|_| text.to_owned())
}

/// Writes one JSON document.
pub fn show_json(value: &Value) -> anyhow::Result<()> {
    show(&format!("{value:#}\n"))
}

/// A table without lines.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

/// What an edit changed, and how long that lasts.
pub fn show_edit(answer: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return show_json(answer);
    }
    let difference: Difference = understood(&answer["difference"])?;
    let mut text = difference.render();
    if difference.is_empty() {
        text.push_str("nothing changed; it was so already\n");
    } else if answer["persisted"] == true {
        let files = answer["files"].as_array().into_iter().flatten();
        let files: Vec<_> = files.map(cell).collect();
        text.push_str(&format!("in use, and written to {}\n", files.join(" and ")));
    } else {
        text.push_str(match understood(&answer["until"])? {
            Lasts::Changed => "in use, also after reloads and restarts, until it is set anew\n",
            Lasts::Reload | Lasts::Filed => "in use until the next reload\n",
        });
    }
    if let Some(count) = answer["reset"].as_u64().filter(|count| *count > 0) {
        text.push_str(&format!("{} ended\n", units::count(count, "flow")));
    }
    show(&text)
}

/// The text of a JSON value in a cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::from("-"),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join("\n"),
        Value::Bool(true) => String::from("yes"),
        Value::Bool(false) => String::from("NO"),
        other => other.to_string(),
    }
}

/// Health of a node as the control socket tells it, in words.
pub fn health_cell(node: &Value) -> anyhow::Result<String> {
    let report: Option<NodeReport> = understood(&node["health"])?;
    let now = SystemTime::now();
    Ok(report.map_or_else(|| String::from("-"), |own| words::health(&own, now)))
}

/// The tunnel of a node as the control socket tells it, in words.
pub fn tunnel_cell(node: &Value) -> anyhow::Result<String> {
    let tunnel: Option<NodeTunnelStatus> = understood(&node["tunnel"])?;
    Ok(tunnel.map_or_else(|| String::from("NONE"), |own| own.words()))
}

fn understood<T: DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    serde_json::from_value(value.clone())
        .context("the daemon's answer cannot be understood; is it of another version?")
}

/// A table of the objects below `key`, a column for each pair of header and field.
pub fn table_of(answer: &Value, key: &str, columns: &[(&str, &str)]) -> String {
    let headers: Vec<_> = columns.iter().map(|(header, _)| *header).collect();
    let mut out = table(&headers);
    for own in answer[key].as_array().into_iter().flatten() {
        out.add_row(columns.iter().map(|(_, field)| cell(&own[*field])));
    }
    if out.is_empty() {
        return format!("no {key}\n");
    }
    format!("{out}\n")
}
