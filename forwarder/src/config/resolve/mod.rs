//! From [`RawConfig`] to [`Config`]: defaults, ranges, references and contradictions.
//!
//! Each section is resolved on its own and reports all it finds; a value that does not resolve leaves
//! a gap rather than stopping the rest. A [`Config`] results only if nothing was an error.

mod context;
mod entrance;
mod health;
mod listener;
mod metrics;
mod pool;
mod route;
mod seeing;
mod value;

use std::sync::Arc;

use self::context::Context;
use super::diagnostic::{Diagnostic, Severity};
use super::model::Config;
use super::shape::Shape;

/// Resolves what `shape` could read.
pub fn resolve(shape: &Shape) -> (Option<Config>, Vec<Diagnostic>) {
    let mut context = Context {
        shape,
        findings: Vec::new(),
    };
    let entrance = entrance::resolve(&mut context);
    let metrics = metrics::resolve(&mut context);
    let flow_log = seeing::flow_log(&mut context);
    let geoip = seeing::geoip(&mut context);
    let listeners = listener::resolve(&mut context);
    let pools = pool::resolve(&mut context);
    let routes = route::resolve(&mut context, &listeners, &pools);
    let findings = context.findings;

    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    if shape.diagnostics.iter().chain(&findings).any(is_error) {
        return (None, findings);
    }
    let config = entrance.and_then(|entrance| {
        Some(Config {
            digest: 0,
            entrance,
            metrics: metrics?,
            flow_log: flow_log?,
            geoip: geoip?,
            listeners: listeners.into_iter().collect::<Option<_>>()?,
            pools: pools.into_iter().collect::<Option<_>>()?,
            routes: routes
                .into_iter()
                .map(|route| route.map(Arc::new))
                .collect::<Option<_>>()?,
        })
    });
    (config, findings)
}
