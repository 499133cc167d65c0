//! Work that would hold the daemon's loop up, done on another thread.

use tokio::sync::mpsc::Sender;

use crate::dataplane::flows::sweep::{SweepError, Sweeper, Swept};
use crate::instance::fatal;

/// Sweeps on another thread and sends sweeper and findings back.
pub fn sweep_aside(mut sweeper: Sweeper, to: Sender<(Sweeper, Result<Swept, SweepError>)>) {
    tokio::task::spawn_blocking(move || {
        fatal::point("sweep");
        let swept = sweeper.sweep();
        // The daemon stopped meanwhile: nobody wants it any more.
        let _ = to.blocking_send((sweeper, swept));
    });
}
