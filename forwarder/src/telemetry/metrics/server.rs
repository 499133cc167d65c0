//! The HTTP server of the metrics page. Three pages, plain text, no state.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

use super::snapshot::Snapshot;
use super::{collect, text_format};
use crate::config::model::Metrics;
use crate::instance::fatal;
use crate::instance::paths::Paths;
use crate::telemetry::counters::Tally;
use crate::telemetry::readiness::Readiness;

/// Connections at once.
const CONNECTIONS: usize = 16;
/// A connection may last so long.
const LIFETIME: Duration = Duration::from_secs(300);
/// A request must be there within this time.
const HEADER: Duration = Duration::from_secs(10);
/// How long until a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#protocol-negotiation>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The server, if one is wanted. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    pages: Arc<Pages>,
    running: Option<(SocketAddr, JoinHandle<()>)>,
}

/// What the pages are made of.
#[derive(Debug)]
struct Pages {
    place: Paths,
    readiness: Arc<Readiness>,
    tally: Arc<Tally>,
    /// `[metrics] max_targets`.
    max_targets: AtomicU32,
    /// One reading of the maps at a time.
    reading: Mutex<()>,
}

impl Server {
    /// A server that is not running.
    pub fn new(place: Paths, readiness: Arc<Readiness>, tally: Arc<Tally>) -> Self {
        let pages = Pages {
            place,
            readiness,
            tally,
            max_targets: AtomicU32::new(u32::MAX),
            reading: Mutex::default(),
        };
        Self {
            pages: Arc::new(pages),
            running: None,
        }
    }

    /// Serves as configured from now on, and nowhere else.
    pub fn listen(&mut self, metrics: Metrics) {
        let Metrics {
            listen,
            max_targets,
        } = metrics;
        self.pages.max_targets.store(max_targets, Ordering::Relaxed);
        if self.running.as_ref().map(|(at, _)| *at) == listen {
            return;
        }
        self.stop();
        self.running = listen.map(|at| (at, tokio::spawn(serve(at, self.pages.clone()))));
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(at: SocketAddr, pages: Arc<Pages>) {
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) => error!(
                error = &error as &dyn Error,
                "metrics cannot be served at {at}; trying again in {} s",
                RETRY.as_secs()
            ),
        }
        sleep(RETRY).await;
    };
    info!("metrics at http://{at}/metrics");
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // Connections end with the server: the set aborts them when it is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    converse(stream, pages).await;
                });
            }
            Err(error) => {
                debug!(%error, "accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(LIFETIME, connection).await {
        debug!(%error, "metrics connection");
    }
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only\n");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(wants_open_metrics(request)).await,
            "/healthz" if self.readiness.is_alive() => text(StatusCode::OK, "ok\n"),
            "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon hangs\n"),
            "/readyz" => match self.readiness.problem() {
                None => text(StatusCode::OK, "ready\n"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz\n"),
        }
    }

    async fn metrics(&self, open_metrics: bool) -> Response<Full<Bytes>> {
        fatal::point("metrics");
        let _alone = self.reading.lock().await;
        let place = self.place.clone();
        let read = tokio::task::spawn_blocking(move || Snapshot::read(&place)).await;
        let failed = |error: &(dyn Error + 'static)| {
            error!(error, "metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        };
        let snapshot = match read {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(error)) => return failed(&error),
            Err(error) => return failed(&error),
        };
        let ready = self.readiness.problem().is_none();
        let max_targets = self.max_targets.load(Ordering::Relaxed);
        let page = match collect::page(snapshot, ready, self.tally.clone(), max_targets) {
            Ok(page) => page,
            Err(error) => return failed(&error),
        };
        let mut answer = match open_metrics {
            true => typed(StatusCode::OK, OPEN_METRICS, page),
            false => {
                let page = text_format::from_open_metrics(&page);
                typed(StatusCode::OK, text_format::CONTENT_TYPE, page)
            }
        };
        let vary = hyper::header::HeaderValue::from_static("Accept");
        answer.headers_mut().insert(VARY, vary);
        answer
    }
}

/// Whether the request names OpenMetrics among what it accepts; Prometheus does.
fn wants_open_metrics(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, PLAIN, body)
}

fn typed(
    status: StatusCode,
    content: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content = hyper::header::HeaderValue::from_static(content);
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}
