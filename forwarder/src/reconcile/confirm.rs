//! `reload --confirm`: the former configuration comes back unless somebody confirms in time, like a commit that is to be
//! confirmed on a router.
//!
//! The former files and the deadline stand in a file of the run directory: a daemon that starts meanwhile goes on waiting,
//! and one that starts afterwards does not put the unconfirmed files to use. They count again when they say something else,
//! or are reloaded.

use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio::time::Instant;
use tracing::{error, warn};

use super::daemon::Daemon;
use super::probation::Deadline;
use super::trial::{Before, Former, Record, Trial};
use crate::config::lasting::Kept;
use crate::config::{self, Config};
use crate::instance::files::replace;

impl Daemon {
    /// What is in use now; while a trial lasts, what was before it.
    pub(super) fn before(&self) -> Before {
        Before(match &self.trial {
            Some(trial) => trial.former.clone(),
            None => Former {
                config: self.config.clone(),
                filed: self.filed.clone(),
                sources: self.sources.clone(),
                edits: self.edits.clone(),
            },
        })
    }

    /// What is in use now must be confirmed within this time.
    pub(super) fn try_out(&mut self, before: Before, time: Duration) {
        let Before(former) = before;
        self.record(&former, time);
        let deadline = Instant::now() + time;
        self.trial = Some(Trial { deadline, former });
        warn!(
            seconds = time.as_secs(),
            "the former configuration comes back, unless `forwarder confirm` arrives before"
        );
    }

    /// Writes down that what is in use is not confirmed.
    fn record(&self, former: &Former, left: Duration) {
        let record = Record {
            deadline: Deadline::after(left),
            unconfirmed: self.about(),
            former: former.sources.clone(),
            edits: former.edits.clone(),
        };
        let text = serde_json::to_vec(&record).map_err(io::Error::from);
        if let Err(error) = text.and_then(|text| replace(&self.paths.trial(), &text)) {
            warn!(path = %self.paths.trial().display(), %error, "that this configuration is not confirmed will not outlive this daemon");
        }
    }

    /// Ends the trial: the configuration in use stays. Returns whether one was under way.
    pub(super) fn end_trial(&mut self) -> bool {
        // Without a trial there may be the file of one that was lost.
        match fs::remove_file(self.paths.trial()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(
                    path = %self.paths.trial().display(),
                    %error,
                    "the record of a reload that was to be confirmed stays: remove it, or the next start goes back"
                );
            }
            _ => {}
        }
        self.trial.take().is_some()
    }

    /// When the former configuration comes back.
    pub(super) fn trial_deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|own| own.deadline)
    }

    /// Nobody confirmed.
    pub(super) async fn roll_back(&mut self, why: &str) {
        let Some(Trial { former, .. }) = self.trial.take() else {
            return;
        };
        // Whoever starts next is not to wait for the rest of the time.
        self.record(&former, Duration::ZERO);
        let unconfirmed = self.sources.clone();
        if let Err(refused) = self.turn_to(former.config).await {
            error!(
                "the former configuration cannot be put to use: {}",
                refused.message()
            );
            return;
        }
        self.filed = former.filed;
        self.sources = former.sources;
        self.edits = former.edits;
        self.refused = Some(unconfirmed);
        self.tally.configured(self.config.digest);
        self.tally.reloaded(false);
        self.save_edits();
        self.follow_files();
        warn!(
            "{why}: the former configuration is in use again. The files still say the other one, which is left alone until they change or `forwarder reload`"
        );
    }

    /// At the start: a reload that a former daemon waited to see confirmed, or saw fail.
    pub(super) fn resume_trial(&mut self) {
        let Some(record) = fs::read(self.paths.trial())
            .ok()
            .and_then(|text| serde_json::from_slice::<Record>(&text).ok())
            .filter(|record| record.unconfirmed == self.about())
        else {
            self.end_trial();
            return;
        };
        let Some(former) = config::validate(record.former.clone()).config else {
            warn!(
                path = %self.paths.trial().display(),
                "the configuration before an unconfirmed reload is not valid any more: what is in use stays"
            );
            self.end_trial();
            return;
        };
        let Some(left) = record.deadline.left() else {
            self.end_trial();
            return;
        };
        let filed = Arc::new(former);
        let apply = |config: Config, own: &Kept| own.edit.apply(&config).unwrap_or(config);
        let former = Former {
            config: Arc::new(record.edits.iter().fold((*filed).clone(), apply)),
            filed,
            sources: record.former,
            edits: record.edits,
        };
        if left.is_zero() {
            warn!(
                "the files were reloaded and never confirmed: the configuration before is in use"
            );
            self.refused = Some(std::mem::replace(&mut self.sources, former.sources));
            (self.config, self.filed, self.edits) = (former.config, former.filed, former.edits);
            return;
        }
        warn!(
            seconds = left.as_secs(),
            "the configuration waits to be confirmed"
        );
        let deadline = Instant::now() + left;
        self.trial = Some(Trial { deadline, former });
    }
}
