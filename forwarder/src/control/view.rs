//! Looking: everything that `GET` shows but events.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parameters::Parameters;
use super::problem::Problem;
use crate::config::difference::word;
use crate::config::edit::is_known;
use crate::config::model::Node;
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::flows::open as flows;
use crate::dataplane::flows::open::{Filter, OpenFlow};
use crate::explain::{self, Question};
use crate::health::report::Report;
use crate::instance::fatal;
use crate::reconcile::Handle;
use crate::reconcile::command::Snapshot;
use crate::status::{self, Status};

type Answer = Result<Json<Value>, Problem>;

/// Does what may take a while on another thread.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Problem::internal(&error)),
        Err(error) => Err(Problem::internal(&error)),
    }
}

fn to_json<T: Serialize>(value: &T) -> Answer {
    let value = serde_json::to_value(value).map_err(|error| Problem::internal(&error))?;
    Ok(Json(value))
}

async fn look_and_read(shared: &Handle) -> Result<(Snapshot, Status), Problem> {
    fatal::point("control");
    let snapshot = shared.commands.show().await?;
    let place = snapshot.paths.clone();
    let status = blocking(move || status::read(&place)).await?;
    Ok((snapshot, status))
}

/// `GET /v1/status`
pub async fn status(State(shared): State<Handle>) -> Answer {
    let (snapshot, status) = look_and_read(&shared).await?;
    let mut value = to_json(&status)?.0;
    value["edits"] = to_json(&snapshot.edits)?.0;
    Ok(Json(value))
}

/// `GET /v1/listeners`
pub async fn listeners(State(shared): State<Handle>) -> Answer {
    let (snapshot, status) = look_and_read(&shared).await?;
    let of = |own: &crate::config::model::Listener| {
        let name = own.name.get_ref();
        let counted = status.listeners.iter().find(|one| one.name == *name);
        json!({
            "name": name,
            "protocol": own.protocol,
            "port": own.port,
            "on_refuse": own.on_refuse,
            "addresses": counted.map(|one| &one.addresses),
            "opened": counted.map(|one| one.opened),
            "refused": counted.map(|one| one.refused),
        })
    };
    let all: Vec<_> = snapshot.config.listeners.iter().map(of).collect();
    Ok(Json(json!({ "listeners": all })))
}

/// `GET /v1/routes`
pub async fn routes(State(shared): State<Handle>) -> Answer {
    let (snapshot, status) = look_and_read(&shared).await?;
    let config = &snapshot.config;
    let of = |own: &std::sync::Arc<crate::config::model::Route>| {
        let names: Vec<_> = own.names.iter().map(ToString::to_string).collect();
        let pool = config.pools[own.pool].name.get_ref();
        let listeners = own.listeners.iter().map(|at| &config.listeners[*at]);
        let listeners: Vec<_> = listeners.map(|one| one.name.get_ref()).collect();
        let counted = status
            .routes
            .iter()
            .find(|one| Some(&one.first_name) == names.first() && one.pool == *pool);
        json!({
            "names": names,
            "pool": pool,
            "listeners": listeners,
            "opened": counted.map(|one| one.traffic.opened),
        })
    };
    let all: Vec<_> = config.routes.iter().map(of).collect();
    Ok(Json(json!({ "routes": all })))
}

fn node_of(node: &Node, pool: &str, status: &Status, of_node: &[&OpenFlow]) -> Value {
    let address = node.address.get_ref().to_string();
    let counted = status.nodes.iter().find(|one| one.address == address);
    let health = counted.and_then(|one| one.health.iter().find(|own| own.pool == pool));
    let flows = of_node
        .iter()
        .filter(|flow| flow.node_address == Some(*node.address.get_ref()))
        .count();
    json!({
        "name": node.name,
        "address": address,
        "state": word(node.state),
        "weight": node.weight,
        "health": health,
        "reachable": counted.map(|one| one.reachable),
        "tunnel": counted.map(|one| &one.tunnel),
        "accepted": counted.map(|one| one.accepted),
        "syn_timeouts": counted.map(|one| one.syn_timeouts),
        "syn_resets": counted.map(|one| one.syn_resets),
        "flows": flows,
    })
}

async fn pools_of(shared: &Handle) -> Result<(Snapshot, Vec<Value>), Problem> {
    let (snapshot, status) = look_and_read(shared).await?;
    let open = open_flows(&snapshot).await?;
    let of = |own: &crate::config::model::Pool| {
        let name = own.name.get_ref();
        let of_pool: Vec<_> = open
            .iter()
            .filter(|flow| flow.pool.as_ref() == Some(name))
            .collect();
        let nodes: Vec<_> = own
            .nodes
            .iter()
            .map(|node| node_of(node, name, &status, &of_pool))
            .collect();
        let report = status.pools.iter().find(|one| one.name == *name);
        json!({
            "name": name,
            "client_address": own.client_address,
            "balance": own.balance,
            "check": own.health.check,
            "when_empty": own.when_empty,
            "available": report.map(|one| one.available),
            "refusing": report.map(|one| one.refusing),
            "flows": of_pool.len(),
            "nodes": nodes,
        })
    };
    let all = snapshot.config.pools.iter().map(of).collect();
    Ok((snapshot, all))
}

/// `GET /v1/pools`
pub async fn pools(State(shared): State<Handle>) -> Answer {
    let (_, pools) = pools_of(&shared).await?;
    Ok(Json(json!({ "pools": pools })))
}

/// `GET /v1/nodes`
pub async fn nodes(State(shared): State<Handle>) -> Answer {
    let (_, mut pools) = pools_of(&shared).await?;
    let mut nodes = Vec::new();
    for pool in &mut pools {
        let name = pool["name"].take();
        for node in pool["nodes"].as_array_mut().into_iter().flatten() {
            node["pool"] = name.clone();
            nodes.push(node.take());
        }
    }
    Ok(Json(json!({ "nodes": nodes })))
}

async fn open_flows(snapshot: &Snapshot) -> Result<Vec<OpenFlow>, Problem> {
    let pins = Pins::new(snapshot.paths.bpffs());
    let registry = snapshot.registry.clone();
    blocking(move || flows::list(&pins, &registry)).await
}

/// The parameters of `GET /v1/flows`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flows {
    client: Option<String>,
    name: Option<String>,
    node: Option<String>,
    /// Only so many, those that have carried most bytes.
    busiest: Option<usize>,
}

/// `GET /v1/flows`
pub async fn flows(State(shared): State<Handle>, Parameters(asked): Parameters<Flows>) -> Answer {
    let filter = Filter {
        client: asked.client,
        name: asked.name,
        node: asked.node,
    };
    if !filter.is_sound() {
        return Err(unsound());
    }
    let snapshot = shared.commands.show().await?;
    let mut flows = open_flows(&snapshot).await?;
    flows.retain(|flow| filter.means(flow));
    if flows.is_empty() {
        is_known(
            &snapshot.config,
            filter.node.as_deref(),
            filter.name.as_deref(),
        )?;
    }
    if let Some(busiest) = asked.busiest {
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.up_bytes + flow.down_bytes));
        flows.truncate(busiest);
    }
    to_json(&json!({ "flows": flows }))
}

/// The client filter is not an address.
pub(super) fn unsound() -> Problem {
    Problem::bad_request("`client` is not an address")
        .fix("write 198.51.100.4, 198.51.100.0/24, 198.51.100.4:50000 or [2001:db8::7]:50000")
}

/// The parameters of `GET /v1/explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    name: String,
    from: Option<IpAddr>,
    port: Option<u16>,
}

/// `GET /v1/explain`
pub async fn explain(
    State(shared): State<Handle>,
    Parameters(asked): Parameters<Explain>,
) -> Answer {
    let snapshot = shared.commands.show().await?;
    let Some(from) = asked.from else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "`from` is missing")
            .fix("say which client: ?name=www.example.org&from=198.51.100.4"));
    };
    let question = Question {
        name: asked.name,
        from,
        port: asked.port,
    };
    let pins = Pins::new(snapshot.paths.bpffs());
    let answer = blocking(move || {
        let health = Report::load(&snapshot.paths.health()).unwrap_or_default();
        explain::explain(
            &question,
            &snapshot.config,
            &snapshot.registry,
            &pins,
            &health,
        )
    });
    to_json(&answer.await?)
}
