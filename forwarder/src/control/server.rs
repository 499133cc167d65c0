//! The HTTP side: paths, parameters, who may do what.

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use tokio::net::UnixListener;
use tracing::{error, info};

use super::peer::{GROUP, Peer};
use super::problem::Problem;
use super::{change, events, view};
use crate::reconcile::Handle;

/// More than the names that fit on a command line, each in quotes.
const BODY_MAX: usize = 16 << 20;

/// Serves until the runtime ends.
pub async fn serve(listener: UnixListener, handle: Handle) {
    let service = router(handle).into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(listener, service).await {
        error!(%error, "the control socket is closed");
    }
}

fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(view::status))
        .route("/v1/listeners", get(view::listeners))
        .route(
            "/v1/routes",
            get(view::routes)
                .merge(put(change::add_route))
                .merge(axum::routing::delete(change::remove_names)),
        )
        .route(
            "/v1/routes/{name}",
            axum::routing::delete(change::remove_name),
        )
        .route("/v1/pools", get(view::pools))
        .route("/v1/nodes", get(view::nodes))
        .route("/v1/nodes/{node}/state", post(change::state))
        .route("/v1/nodes/{node}/weight", post(change::weight))
        .route(
            "/v1/flows",
            get(view::flows).merge(axum::routing::delete(change::end_flows)),
        )
        .route("/v1/explain", get(view::explain))
        .route("/v1/events", get(events::follow))
        .route("/v1/reload", post(change::reload))
        .route("/v1/confirm", post(change::confirm))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(guard))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(handle)
}

/// Whoever may connect may look; changes need more, and are logged by whoever makes them.
async fn guard(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let (method, path) = (request.method(), request.uri());
        if !peer.may_change() {
            info!(
                %method,
                %path,
                uid = peer.uid(),
                pid = peer.pid(),
                program = peer.program(),
                "control request denied"
            );
            let message = "this user may look but not change anything";
            return Err(Problem::new(StatusCode::FORBIDDEN, message)
                .fix(format!("be root, or a member of the group `{GROUP}`")));
        }
    }
    Ok(next.run(request).await)
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
        .fix("docs/control.md lists every path; they begin with /v1/")
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not know {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, message).fix("docs/control.md lists every method")
}
