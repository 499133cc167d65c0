//! How the nodes of a pool are checked: what the configuration says, and the name that is asked for.

use std::sync::Arc;

use forwarder_common::name::{MAX_NAME, PatternKind};
use tracing::warn;

use super::check::Method;
use super::tls::Trust;
use crate::config::Config;
use crate::config::model::{Check, Pool};

/// Stands for the `*` of a wildcard where a pool has no other names.
const UNDER_WILDCARD: &str = "health-check";

/// What checks with TLS need. This machine's authorities are read once, when they are first asked for.
#[derive(Default)]
pub(super) struct Trusts {
    verifying: Option<Arc<Trust>>,
    other: Option<Arc<Trust>>,
}

impl Trusts {
    fn of(&mut self, verify: bool) -> Result<Arc<Trust>, rustls::Error> {
        let own = if verify {
            &mut self.verifying
        } else {
            &mut self.other
        };
        match own {
            Some(trust) => Ok(Arc::clone(trust)),
            None => {
                let trust = Arc::new(Trust::new(verify)?);
                *own = Some(Arc::clone(&trust));
                Ok(trust)
            }
        }
    }
}

/// How the nodes of the pool at this index are checked.
pub(super) fn method(config: &Config, at: usize, pool: &Pool, trusts: &mut Trusts) -> Method {
    let checks = pool.health.clone();
    let trust = checks.check.is_tls().then(|| trusts.of(checks.verify));
    let trust = trust.and_then(|trust| {
        trust
            .map_err(|error| warn!(pool = pool.name.get_ref(), %error, "no TLS for checks"))
            .ok()
    });
    Method {
        server_name: checks.server_name.clone().or_else(|| routed(config, at)),
        trust,
        checks,
    }
}

/// The names that checks ask for where none is written, by pool.
pub fn checked_names(config: &Config) -> Vec<Option<String>> {
    let pools = config.pools.iter().enumerate();
    let name = |(at, pool): (usize, &Pool)| {
        let asks = pool.health.check != Check::None && pool.health.server_name.is_none();
        asks.then(|| routed(config, at)).flatten()
    };
    pools.map(name).collect()
}

/// The first exact name that is routed to a pool; without one, a name below the first wildcard that leaves room
/// for it.
fn routed(config: &Config, pool: usize) -> Option<String> {
    let names = || {
        let routes = config.routes.iter().filter(|route| route.pool == pool);
        routes.flat_map(|route| &route.names)
    };
    let exact = names().find(|name| name.kind() == PatternKind::Exact);
    let below = || {
        let wildcards = names().filter(|name| name.kind() == PatternKind::Wildcard);
        let mut below = wildcards.map(|name| format!("{UNDER_WILDCARD}.{}", name.name()));
        below.find(|name| name.len() <= MAX_NAME)
    };
    exact.map(|name| name.name().to_owned()).or_else(below)
}
