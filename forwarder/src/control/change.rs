//! Changing: everything that `PUT`, `POST` and `DELETE` do.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::order::Order;
use super::parameters::{Named, Parameters};
use super::problem::Problem;
use super::server::Shared;
use super::view::{aside, unsound};
use crate::config::edit::{Edit, is_known};
use crate::config::model::NodeState;
use crate::dataplane::flows::{self, Filter};
use crate::dataplane::pins::Pins;

type Answer = Result<Json<Value>, Problem>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Problem> {
    body.map(|Json(own)| own).map_err(|error| {
        Problem::bad_request(error.body_text()).fix(
            "send a JSON object with `Content-Type: application/json`; docs/control.md shows each",
        )
    })
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

async fn edit(shared: &Shared, edit: Edit, how: How) -> Answer {
    let How { persist, reset } = how;
    let order = |reply| Order::Edit {
        edit,
        persist,
        reset,
        reply,
    };
    shared.orders.give(order).await.map(Json)
}

/// `POST /v1/reload`
pub async fn reload(State(shared): State<Shared>, Parameters(how): Parameters<How>) -> Answer {
    let reset = how.reset;
    shared
        .orders
        .give(|reply| Order::Reload { reset, reply })
        .await
        .map(Json)
}

/// `POST /v1/confirm`
pub async fn confirm(State(shared): State<Shared>) -> Answer {
    shared.orders.give(Order::Confirm).await.map(Json)
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
    State(shared): State<Shared>,
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
    edit(&shared, added, how).await
}

/// `DELETE /v1/routes/{name}`; several names are separated by commas.
pub async fn remove_name(
    State(shared): State<Shared>,
    Named(name): Named,
    Parameters(how): Parameters<How>,
) -> Answer {
    let names = name.split(',').map(str::to_owned).collect();
    edit(&shared, Edit::RemoveNames { names }, how).await
}

/// The body of `POST /v1/nodes/{node}/state`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    state: NodeState,
}

/// `POST /v1/nodes/{node}/state`
pub async fn state(
    State(shared): State<Shared>,
    Named(node): Named,
    Parameters(how): Parameters<How>,
    state: Body<NewState>,
) -> Answer {
    let NewState { state } = body(state)?;
    edit(&shared, Edit::State { node, state }, how).await
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
    State(shared): State<Shared>,
    Named(node): Named,
    Parameters(how): Parameters<How>,
    weight: Body<NewWeight>,
) -> Answer {
    let NewWeight { weight, pool } = body(weight)?;
    edit(&shared, Edit::Weight { node, pool, weight }, how).await
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
    State(shared): State<Shared>,
    Parameters(which): Parameters<Which>,
) -> Answer {
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
    let look = shared.orders.look().await?;
    let pins = Pins::new(look.place.bpffs());
    let registry = look.registry;
    let (node, name) = (filter.node.clone(), filter.name.clone());
    let ended = aside(move || flows::end(&pins, &registry, |flow| filter.means(flow))).await?;
    if ended == 0 {
        is_known(&look.config, node.as_deref(), name.as_deref())?;
    }
    Ok(Json(json!({ "ended": ended })))
}
