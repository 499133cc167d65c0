//! New connections as they are: TCP handshake, TLS 1.3 handshake, a request, a small answer.

use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;

use super::connections::METRICS;
use crate::bench::load::client::{self, fetch_tls};
use crate::bench::load::server::TLS;
use crate::bench::load::tls::{self, Session};
use crate::bench::load::{self, Place};
use crate::bench::scene::NAME;
use crate::bench::workload::{Outcome, Stage, Workload};
use crate::error::Result;

/// Connections at once.
const WIDTH: usize = 16;

/// A full handshake each time.
pub const FULL: Workload = Workload {
    name: "tls-full",
    title: "new TLS connections, full handshake (ECDSA P-256, X25519)",
    metrics: METRICS,
    rounds: 3,
    run: |stage| run(stage, Session::Full),
    ..super::connections::SMALL
};

/// With tickets of former connections.
pub const RESUMED: Workload = Workload {
    name: "tls-resumed",
    title: "new TLS connections, resumed",
    quick: false,
    run: |stage| run(stage, Session::Resumed),
    ..FULL
};

fn run(stage: &mut Stage<'_>, session: Session) -> Result<Outcome> {
    let (scene, duration) = (stage.scene, stage.scale.duration());
    let target = stage.up()?.service(TLS);
    let name: ServerName<'static> = ServerName::try_from(NAME)
        .unwrap_or_else(|_| unreachable!("the name is a constant and a valid one"));
    // A configuration for each task: its tickets are used by itself alone.
    let configs = (0..WIDTH)
        .map(|_| tls::client(&scene.lab.pki, session))
        .collect::<Result<Vec<_>>>()?;
    let count = load::block_on(scene.client(), Place::Client, async {
        let task = |number: usize, tally: Arc<client::Tally>| {
            let (config, name) = (Arc::clone(&configs[number]), name.clone());
            async move {
                while tally.goes_on() {
                    let began = Instant::now();
                    let result = fetch_tls(target, Arc::clone(&config), name.clone()).await;
                    tally.exchange(began, result);
                }
            }
        };
        Ok(client::load(WIDTH, duration, task).await)
    })?;
    super::exchanges(&count)
}
