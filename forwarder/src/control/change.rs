//! Changing: everything that `PUT`, `POST` and `DELETE` do.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use super::parameters::{Named, Parameters};
use super::peer::Peer;
use super::problem::Problem;
use super::view::{blocking, unsound};
use crate::config::edit::{Edit, is_known};
use crate::config::model::NodeState;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::flows::open as flows;
use crate::dataplane::flows::open::Filter;
use crate::reconcile::Handle;
use crate::reconcile::command::Command;
use crate::reconcile::refused::Refused;

type Answer = Result<Json<Value>, Problem>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Problem> {
    body.map(|Json(own)| own).map_err(|error| {
        Problem::bad_request(error.body_text()).fix(
            "send a JSON object with `Content-Type: application/json`; docs/control.md shows each",
        )
    })
}

/// What the daemon answered, as JSON.
fn answer<T: Serialize>(answer: Result<T, Refused>) -> Answer {
    let value = serde_json::to_value(answer?);
    value.map(Json).map_err(|error| Problem::internal(&error))
}

/// Parameters of changes that may last and may end flows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct How {
    /// Also in the file.
    #[serde(default)]
    persist: bool,
    /// End the flows that are left over.
    #[serde(default)]
    reset: bool,
}

/// Says in the log who wanted what, and what came of it. `command` is the command line that does it.
fn told(peer: &Peer, command: &str, answer: Answer) -> Answer {
    let (uid, pid, program) = (peer.uid(), peer.pid(), peer.program());
    match &answer {
        Ok(_) => info!(uid, pid, program, "done by order: {command}"),
        Err(Problem {
            status, message, ..
        }) => info!(
            uid,
            pid, program, status, "refused by order: {command}: {message}"
        ),
    }
    answer
}

/// The option, if it is given.
fn option(given: bool, option: &str) -> String {
    if given {
        format!(" --{option}")
    } else {
        String::new()
    }
}

async fn edit(shared: &Handle, peer: &Peer, edit: Edit, how: How) -> Answer {
    let How { persist, reset } = how;
    let command = format!(
        "{}{}{}",
        shortened(&edit),
        option(persist, "persist"),
        option(reset, "reset")
    );
    let command_of = |reply| Command::Edit {
        edit,
        persist,
        reset,
        reply,
    };
    let answer = answer(shared.commands.give(command_of).await);
    told(peer, &command, answer)
}

/// An edit in one line, however many names it is about.
fn shortened(edit: &Edit) -> String {
    const NAMES: usize = 10;
    let mut edit = edit.clone();
    let more = match &mut edit {
        Edit::AddRoute { names, .. } | Edit::RemoveNames { names } => {
            let more = names.len().saturating_sub(NAMES);
            names.truncate(NAMES);
            more
        }
        Edit::State { .. } | Edit::Weight { .. } => 0,
    };
    match more {
        0 => edit.to_string(),
        more => format!("{edit} (and {more} more names)"),
    }
}

/// Parameters of `POST /v1/reload`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// End the flows that are left over.
    #[serde(default)]
    reset: bool,
    /// Back to the former configuration after this time, unless somebody confirms before.
    confirm: Option<String>,
}

/// `POST /v1/reload`
pub async fn reload(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Parameters(how): Parameters<Reload>,
) -> Answer {
    let reset = how.reset;
    let confirm = how.confirm.as_deref().map(humantime::parse_duration);
    let confirm = confirm.transpose().map_err(|error| {
        Problem::bad_request(format!("`confirm` is not a time: {error}"))
            .fix("write it like `60s` or `5m`")
    })?;
    let command_of = |reply| Command::Reload {
        reset,
        confirm,
        reply,
    };
    let answer = answer(shared.commands.give(command_of).await);
    let time = how.confirm.map(|time| format!(" --confirm {time}"));
    let command = format!(
        "reload{}{}",
        time.unwrap_or_default(),
        option(reset, "reset")
    );
    told(&peer, &command, answer)
}

/// `POST /v1/confirm`
pub async fn confirm(State(shared): State<Handle>, ConnectInfo(peer): ConnectInfo<Peer>) -> Answer {
    let answer = answer(shared.commands.give(Command::Confirm).await);
    told(&peer, "confirm", answer)
}

/// The body of `PUT /v1/routes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRoute {
    names: Vec<String>,
    pool: String,
    listeners: Option<Vec<String>>,
}

/// `PUT /v1/routes`
pub async fn add_route(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Parameters(how): Parameters<How>,
    route: Body<NewRoute>,
) -> Answer {
    let NewRoute {
        names,
        pool,
        listeners,
    } = body(route)?;
    let added = Edit::AddRoute {
        names,
        pool,
        listeners,
    };
    edit(&shared, &peer, added, how).await
}

/// `DELETE /v1/routes/{name}`; several names are separated by commas.
pub async fn remove_name(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Named(name): Named,
    Parameters(how): Parameters<How>,
) -> Answer {
    let names = name.split(',').map(str::to_owned).collect();
    edit(&shared, &peer, Edit::RemoveNames { names }, how).await
}

/// The body of `DELETE /v1/routes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    names: Vec<String>,
}

/// `DELETE /v1/routes`: as many names as one likes.
pub async fn remove_names(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Parameters(how): Parameters<How>,
    names: Body<Names>,
) -> Answer {
    let Names { names } = body(names)?;
    edit(&shared, &peer, Edit::RemoveNames { names }, how).await
}

/// The body of `POST /v1/nodes/{node}/state`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    state: NodeState,
}

/// `POST /v1/nodes/{node}/state`
pub async fn state(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Named(node): Named,
    Parameters(how): Parameters<How>,
    state: Body<NewState>,
) -> Answer {
    let NewState { state } = body(state)?;
    edit(&shared, &peer, Edit::State { node, state }, how).await
}

/// The body of `POST /v1/nodes/{node}/weight`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    weight: u16,
    pool: Option<String>,
}

/// `POST /v1/nodes/{node}/weight`
pub async fn weight(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Named(node): Named,
    Parameters(how): Parameters<How>,
    weight: Body<NewWeight>,
) -> Answer {
    let NewWeight { weight, pool } = body(weight)?;
    edit(&shared, &peer, Edit::Weight { node, pool, weight }, how).await
}

/// Parameters of `DELETE /v1/flows`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    client: Option<String>,
    name: Option<String>,
    node: Option<String>,
    /// Without any filter: really all.
    #[serde(default)]
    all: bool,
}

/// `DELETE /v1/flows`
pub async fn end_flows(
    State(shared): State<Handle>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Parameters(which): Parameters<Which>,
) -> Answer {
    let given = [
        ("client", &which.client),
        ("name", &which.name),
        ("node", &which.node),
    ];
    let given = given.map(|(name, value)| match value {
        Some(value) => format!(" --{name} {value}"),
        None => String::new(),
    });
    let command = format!("flow kill{}{}", given.concat(), option(which.all, "all"));
    let answer = end(&shared, which).await;
    told(&peer, &command, answer)
}

async fn end(shared: &Handle, which: Which) -> Answer {
    let all = which.all;
    let filter = Filter {
        client: which.client,
        name: which.name,
        node: which.node,
    };
    if filter.is_empty() && !all {
        return Err(
            Problem::bad_request("without a filter this would end every flow")
                .fix("name a client, name or node, or say `--all` (all=true)"),
        );
    }
    if !filter.is_sound() {
        return Err(unsound());
    }
    let snapshot = shared.commands.show().await?;
    let pins = Pins::new(snapshot.paths.bpffs());
    let registry = snapshot.registry;
    let (node, name) = (filter.node.clone(), filter.name.clone());
    let ended = blocking(move || flows::end(&pins, &registry, |flow| filter.means(flow))).await?;
    if ended == 0 {
        is_known(&snapshot.config, node.as_deref(), name.as_deref())?;
    }
    Ok(Json(json!({ "ended": ended })))
}
