//! Another configuration while flows are open: read, compared, applied whole or not at all.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::{Daemon, DaemonError};
use crate::config::difference::{Difference, Fixed, keep_fixed};
use crate::config::edit::{Edit, selects};
use crate::config::model::NodeState;
use crate::config::{self, Config, Sources, persist};
use crate::control::order::{Look, Order};
use crate::control::problem::{Problem, chain};
use crate::dataplane::flows::{self, OpenFlow};
use crate::dataplane::plan;
use crate::dataplane::write::Changes;

/// What `forwarder reload` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is different now.
    pub difference: Difference,
    /// What the files say in vain.
    pub fixed: Vec<Fixed>,
    /// Edits that ended.
    pub edits: Vec<Edit>,
    /// Warnings about the files, as `forwarder check --json` writes them.
    pub report: Value,
    /// Flows that were ended because their route is gone.
    pub reset: usize,
}

impl Daemon {
    /// Carries an order out.
    pub(super) async fn obey(&mut self, order: Order) {
        // Whoever asked may have gone meanwhile.
        match order {
            Order::Look(reply) => {
                let _ = reply.send(self.look());
            }
            Order::Reload { reset, reply } => {
                let answer = self.reload(reset).await.and_then(|own| to_value(&own));
                let _ = reply.send(answer);
            }
            Order::Edit {
                edit,
                persist,
                reset,
                reply,
            } => {
                let _ = reply.send(self.edit(edit, persist, reset).await);
            }
            Order::Confirm(reply) => {
                let _ = reply.send(Ok(self.confirm()));
            }
        }
    }

    fn look(&self) -> Look {
        Look {
            config: self.config.clone(),
            registry: self.dataplane.registry().clone(),
            network: self.network.clone(),
            place: self.place.clone(),
            edits: self.edits.clone(),
        }
    }

    /// After SIGHUP: what `reload` would answer goes to the log.
    pub(super) async fn reload_by_signal(&mut self) {
        let answer = self.reload(false).await;
        self.log_refusal(answer);
    }

    /// Says in the log why a reload that nobody waits for was refused.
    pub(super) fn log_refusal(&self, answer: Result<Reloaded, Problem>) {
        if let Err(problem) = answer {
            error!(
                fix = problem.fix,
                "the configuration was not reloaded, the former one stays in use: {}",
                problem.message
            );
        }
    }

    /// Reads the files and puts them to use, unless they have errors.
    pub(super) async fn reload(&mut self, reset: bool) -> Result<Reloaded, Problem> {
        let sources = self.read_files();
        if sources.is_err() {
            self.tally.reloaded(false);
        }
        let mut reloaded = self.reload_from(sources?).await?;
        if reset {
            reloaded.reset = self.end_flows(|flow| !flow.configured)?;
        }
        Ok(reloaded)
    }

    fn read_files(&self) -> Result<Sources, Problem> {
        Sources::read(&self.sources.main().path).map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, chain(&error))
                .fix("the running configuration stays in use")
        })
    }

    /// Puts what was read to use, unless it has errors.
    pub(super) async fn reload_from(&mut self, sources: Sources) -> Result<Reloaded, Problem> {
        let reloaded = self.use_sources(sources).await;
        self.tally.reloaded(reloaded.is_ok());
        reloaded
    }

    async fn use_sources(&mut self, sources: Sources) -> Result<Reloaded, Problem> {
        let outcome = config::validate(sources);
        let report = outcome.report;
        let Some(mut new) = outcome.config else {
            report.log();
            self.refused = Some(report.sources.clone());
            let message = format!("not reloaded: {}", report.summary());
            return Err(Problem::invalid(message, &report)
                .fix("the running configuration stays in use; mend the file and reload again"));
        };
        let fixed = keep_fixed(&self.config, &mut new);
        let difference = Difference::between(&self.config, &new);
        self.turn_to(new).await?;
        self.tally.configured(self.config.digest);
        self.sources = report.sources.clone();
        self.refused = None;
        self.follow_files();
        report.log();
        for own in &fixed {
            warn!(
                key = own.key,
                running = own.running,
                file = own.file,
                "cannot change while maps are pinned; `forwarder unload` and a new start apply it"
            );
        }
        for line in difference.render().lines() {
            info!("{line}");
        }
        info!(differences = difference.count(), "configuration reloaded");
        let edits = std::mem::take(&mut self.edits);
        self.save_edits();
        Ok(Reloaded {
            difference,
            fixed,
            edits,
            report: report.to_json(),
            reset: 0,
        })
    }

    async fn edit(&mut self, edit: Edit, persist: bool, reset: bool) -> Result<Value, Problem> {
        let new = edit.apply(&self.config)?;
        let pending = match persist {
            true => {
                let on_disk = self.read_files()?;
                let in_use = on_disk == self.sources;
                Some((in_use, persist::prepare(&on_disk, &edit)?))
            }
            false => None,
        };
        let difference = Difference::between(&self.config, &new);
        self.turn_to(new).await?;
        let mut files = Vec::new();
        match pending.map(|(in_use, pending)| (in_use, pending.write())) {
            Some((in_use, Ok((sources, written)))) => {
                // Files that said something else before are still to be reloaded.
                if in_use {
                    self.sources = sources;
                    Arc::make_mut(&mut self.config).digest = self.sources.digest();
                }
                self.save_edits();
                files = written;
            }
            Some((_, Err(error))) => {
                self.edits.push(edit);
                self.save_edits();
                let message = format!("in use until the next reload, but {}", chain(&error));
                return Err(
                    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message).fix(
                        "is the file system writable, also for the service \
                     (`ReadWritePaths=` of its unit)?",
                    ),
                );
            }
            None => {
                self.edits.push(edit.clone());
                self.save_edits();
            }
        }
        let persisted = !files.is_empty();
        for line in difference.render().lines() {
            info!(persisted, "{line}");
        }
        let ended = match (&edit, reset) {
            (_, false) => 0,
            (Edit::State { node, state }, true) if *state != NodeState::Ready => {
                self.end_flows(|flow| {
                    let name = flow.node.as_deref().unwrap_or_default();
                    flow.node_address
                        .is_some_and(|address| selects(node, name, address))
                })?
            }
            (_, true) => self.end_flows(|flow| !flow.configured)?,
        };
        Ok(json!({
            "difference": difference,
            "persisted": persisted,
            "files": files,
            "reset": ended,
        }))
    }

    /// Puts a configuration to use; if that fails, the former one again.
    async fn turn_to(&mut self, new: Config) -> Result<(), Problem> {
        let refused = |error: &DaemonError| {
            Problem::new(StatusCode::CONFLICT, chain(error))
                .fix("the running configuration stays in use")
        };
        match self.adopt(&new).await {
            Ok(changes) => {
                self.config = Arc::new(new);
                self.health_adopts();
                self.armour_adopts();
                self.pulse.in_step(&self.missing);
                self.metrics.listen(self.config.metrics);
                self.telling.adopt(&self.config);
                info!(
                    nodes = changes.nodes,
                    pools = changes.pools,
                    paths = changes.paths,
                    names = changes.names,
                    addresses = changes.vips,
                    "maps written"
                );
                let network = self.network.clone();
                self.warn_about(&network);
                Ok(())
            }
            Err(error) => {
                let running = self.config.clone();
                if let Err(again) = self.adopt(&running).await {
                    error!(
                        error = &again as &dyn std::error::Error,
                        "the data plane is not in step with the running configuration"
                    );
                }
                Err(refused(&error))
            }
        }
    }

    async fn adopt(&mut self, config: &Config) -> Result<Changes, DaemonError> {
        let destinations = plan::destinations(config, self.dataplane.registry());
        let network = self.surveyor.survey(destinations.into_iter()).await?;
        let changes = self.dataplane.apply(config, &network)?;
        let missing = self.dataplane.attach(config, &network)?;
        self.missing = missing.into_iter().map(str::to_owned).collect();
        self.network = network;
        Ok(changes)
    }

    fn end_flows(&self, meant: impl Fn(&OpenFlow) -> bool) -> Result<usize, Problem> {
        let ended = flows::end(self.dataplane.pins(), self.dataplane.registry(), meant);
        let ended = ended.map_err(|error| Problem::internal(&error))?;
        info!(count = ended, "flows ended by order");
        Ok(ended)
    }

    /// Keeps edits where the next daemon finds them, should this one be killed.
    fn save_edits(&self) {
        self.tally.edited(self.config.digest, self.edits.len());
        if let Err(error) = save_edits(&self.place.edits(), &self.sources, &self.edits) {
            warn!(%error, "edits will not outlive this daemon");
        }
    }

    /// Applies the edits of a former daemon, unless the files have changed since.
    pub(super) fn restore_edits(&mut self) {
        for edit in load_edits(&self.place.edits(), &self.sources) {
            match edit.apply(&self.config) {
                Ok(config) => {
                    info!(?edit, "edit of the former daemon goes on");
                    self.config = Arc::new(config);
                    self.edits.push(edit);
                    self.tally.edited(self.config.digest, self.edits.len());
                }
                Err(error) => warn!(?edit, %error, "edit of the former daemon is dropped"),
            }
        }
    }
}

fn to_value<T: Serialize>(own: &T) -> Result<Value, Problem> {
    serde_json::to_value(own).map_err(|error| Problem::internal(&error))
}

/// Edits, and the files that they are about.
#[derive(Serialize, Deserialize)]
struct Saved {
    sources: Sources,
    edits: Vec<Edit>,
}

fn save_edits(at: &Path, sources: &Sources, edits: &[Edit]) -> std::io::Result<()> {
    if edits.is_empty() {
        return match std::fs::remove_file(at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let saved = Saved {
        sources: sources.clone(),
        edits: edits.to_vec(),
    };
    let new = at.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&saved)?)?;
    std::fs::rename(&new, at)
}

/// The edits that a daemon left or still has, for whoever only looks.
pub fn edits_in_use(at: &Path) -> Vec<Edit> {
    let read = || -> Option<Saved> { serde_json::from_slice(&std::fs::read(at).ok()?).ok() };
    read().map_or_else(Vec::new, |saved| saved.edits)
}

fn load_edits(at: &Path, sources: &Sources) -> Vec<Edit> {
    let read = || -> Option<Saved> { serde_json::from_slice(&std::fs::read(at).ok()?).ok() };
    let Some(saved) = read() else {
        return Vec::new();
    };
    if saved.sources == *sources {
        return saved.edits;
    }
    warn!("edits of the former daemon end: the configuration has changed since");
    let _ = std::fs::remove_file(at);
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_outlive_the_daemon_and_not_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("e.json");
        let [one, two] = ["one", "two"].map(|text| Sources::new(Path::new("f.toml"), text));
        let edits = vec![Edit::RemoveNames {
            names: vec![String::from("a.example.org")],
        }];
        assert_eq!(load_edits(&at, &one), []);
        save_edits(&at, &one, &edits).unwrap();
        assert_eq!(load_edits(&at, &one), edits);
        assert_eq!(load_edits(&at, &two), []);
        assert!(!at.exists());
        save_edits(&at, &one, &edits).unwrap();
        save_edits(&at, &one, &[]).unwrap();
        assert!(!at.exists());
    }
}
