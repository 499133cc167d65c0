//! `forwarder guard`: the second process of `forwarder run --confirm`.

use std::process::ExitCode;

use forwarder::reconcile::probation;

use super::globals::Globals;

/// Remove everything when the daemon that started this has gone and nobody has confirmed in time.
#[derive(Debug, clap::Args)]
pub struct Guard {}

impl Guard {
    pub fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        globals.init_logging()?;
        probation::guard(&globals.place(None))?;
        Ok(ExitCode::SUCCESS)
    }
}
