//! Another configuration while flows are open: read, compared, applied whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::command::{Command, Edited, Reloaded, Snapshot};
use super::daemon::Daemon;
use super::edits;
use super::error::DaemonError;
use super::refused::Refused;
use crate::config::difference::{Difference, Fixed, keep_fixed};
use crate::config::edit::{Edit, patterns, selects};
use crate::config::lasting::{self, Kept, Lasts, supersedes};
use crate::config::model::{NodeState, Pattern};
use crate::config::{self, Config, Sources, persist};
use crate::dataplane::flows::open as flows;
use crate::dataplane::flows::open::OpenFlow;
use crate::dataplane::plan;
use crate::dataplane::write::Changes;
use crate::health as nodes;

/// Differences that get a line each in the log.
const LOGGED_MAX: usize = 1_000;

impl Daemon {
    /// Carries a command out. Whoever gave it may have gone meanwhile.
    pub(super) async fn handle(&mut self, command: Command) {
        match command {
            Command::Show(reply) => drop(reply.send(Ok(self.snapshot()))),
            Command::Reload {
                reset,
                confirm,
                reply,
            } => drop(reply.send(self.reload(reset, confirm).await)),
            Command::Edit {
                edit,
                persist,
                reset,
                reply,
            } => drop(reply.send(self.edit(edit, persist, reset).await)),
            Command::Confirm(reply) => drop(reply.send(Ok(self.confirm()))),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            config: self.config.clone(),
            registry: self.dataplane.registry().clone(),
            network: self.network.clone(),
            paths: self.paths.clone(),
            edits: self.edits.iter().map(|own| own.edit.clone()).collect(),
        }
    }

    /// After SIGHUP: what `reload` would answer goes to the log.
    pub(super) async fn reload_by_signal(&mut self) {
        let answer = self.reload(false, None).await;
        self.log_refusal(answer);
    }

    /// Says in the log why a reload that nobody waits for was refused.
    pub(super) fn log_refusal(&self, answer: Result<Reloaded, Refused>) {
        if let Err(refused) = answer {
            error!(
                fix = refused.fix(),
                "the configuration was not reloaded: {}",
                refused.message()
            );
        }
    }

    /// Reads the files and puts them to use, unless they have errors.
    pub(super) async fn reload(
        &mut self,
        reset: bool,
        confirm: Option<Duration>,
    ) -> Result<Reloaded, Refused> {
        let before = self.before();
        let sources = self.read_files();
        if sources.is_err() {
            self.tally.reloaded(false);
        }
        let mut reloaded = self.reload_from(sources?).await?;
        match confirm {
            Some(time) => self.try_out(before, time),
            // Whoever reloads means what the files say.
            None => drop(self.end_trial()),
        }
        if reset {
            reloaded.reset = self.end_flows(|flow| !flow.configured)?;
        }
        Ok(reloaded)
    }

    fn read_files(&self) -> Result<Sources, Refused> {
        Sources::read(&self.sources.main().path).map_err(Refused::Unreadable)
    }

    /// Puts what was read to use, unless it has errors.
    pub(super) async fn reload_from(&mut self, sources: Sources) -> Result<Reloaded, Refused> {
        let reloaded = self.use_sources(sources).await;
        self.tally.reloaded(reloaded.is_ok());
        reloaded
    }

    async fn use_sources(&mut self, sources: Sources) -> Result<Reloaded, Refused> {
        let outcome = config::validate(sources);
        let report = outcome.report;
        let Some(mut new) = outcome.config else {
            report.log();
            self.refused = Some(report.sources.clone());
            return Err(Refused::Invalid(Box::new(report)));
        };
        let fixed = keep_fixed(&self.config, &mut new);
        let filed = Arc::new(new.clone());
        let (kept, ended) = self.lasting(&mut new);
        let new = Arc::new(new);
        // Meanwhile, as there may be a million names in both.
        let (was, now) = (Arc::clone(&self.config), Arc::clone(&new));
        let difference = spawn_blocking(move || Difference::between(&was, &now));
        self.turn_to(new).await?;
        let difference = difference.await?;
        self.tally.configured(self.config.digest);
        self.filed = filed;
        self.sources = report.sources.clone();
        self.refused = None;
        self.follow_files();
        report.log();
        Self::warn_of_fixed(&fixed);
        let tight = self.warn_of_tight();
        for line in difference.lines().take(LOGGED_MAX) {
            info!("{line}");
        }
        if difference.count() > LOGGED_MAX {
            info!("… and {} more", difference.count() - LOGGED_MAX);
        }
        info!(differences = difference.count(), "configuration reloaded");
        self.edits = kept;
        self.save_edits();
        Ok(Reloaded {
            difference,
            fixed,
            tight,
            edits: ended,
            kept: self.edits.iter().map(|own| own.edit.clone()).collect(),
            report: report.to_json(),
            reset: 0,
        })
    }

    /// Says what the maps have little room left for.
    pub(super) fn warn_of_tight(&self) -> Vec<String> {
        let tight = self.dataplane.tight().iter();
        let tight: Vec<String> = tight.map(ToString::to_string).collect();
        for own in &tight {
            warn!("little room is left for {own}");
        }
        tight
    }

    /// Makes the edits that go on part of what the files say; returns them, and those that end.
    fn lasting(&self, config: &mut Config) -> (Vec<Kept>, Vec<Edit>) {
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for own in &self.edits {
            match own.edit.apply(config) {
                Ok(with) if own.outlives(config) => {
                    *config = with;
                    kept.push(own.clone());
                }
                _ => ended.push(own.edit.clone()),
            }
        }
        (kept, ended)
    }

    async fn edit(&mut self, edit: Edit, persist: bool, reset: bool) -> Result<Edited, Refused> {
        let names = edit.names().map(patterns).transpose()?;
        let listed = &self.dataplane.registry().names;
        let is_listed = |name: &Pattern| {
            let number = listed.of(&name.to_string());
            number.is_some_and(|number| listed.is_live(number as usize))
        };
        let new = edit.apply_knowing(&self.config, is_listed)?;
        let adds = matches!(edit, Edit::AddRoute { .. });
        let elsewhere = adds && names.iter().flatten().any(is_listed);
        let pending = match persist {
            true => {
                let on_disk = self.read_files()?;
                let in_use = on_disk == self.sources;
                Some((in_use, persist::prepare(&on_disk, &edit)?))
            }
            false => None,
        };
        let difference = match &names {
            Some(names) => Difference::of_names(&self.config, &new, names, elsewhere),
            None => Difference::between(&self.config, &new),
        };
        match &names {
            Some(_) => self.turn_names_to(new).await?,
            None => self.turn_to(Arc::new(new)).await?,
        }
        let mut files = Vec::new();
        match pending.map(|(in_use, pending)| (in_use, pending.write())) {
            Some((in_use, Ok((sources, written)))) => {
                // Files that said something else before are still to be reloaded.
                if in_use {
                    self.sources = sources;
                    if let Ok(filed) = edit.apply(&self.filed) {
                        self.filed = Arc::new(filed);
                    }
                    Arc::make_mut(&mut self.config).digest = self.sources.digest();
                }
                self.edits.retain(|own| !supersedes(&edit, &own.edit));
                self.save_edits();
                files = written;
            }
            Some((_, Err(error))) => {
                self.add_edit(edit);
                return Err(Refused::NotWritten(error));
            }
            None => self.add_edit(edit.clone()),
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
        Ok(Edited {
            difference,
            persisted,
            until: Lasts::of(&edit, persisted),
            files,
            reset: ended,
        })
    }

    /// Puts a configuration to use; if that fails, the former one again.
    pub(super) async fn turn_to(&mut self, new: Arc<Config>) -> Result<(), Refused> {
        match self.adopt(&new).await {
            Ok(changes) => {
                self.config = new;
                self.health_adopts();
                self.xdp_adopts();
                self.readiness.in_step(&self.missing, &self.down());
                self.metrics.listen(self.config.metrics);
                self.fan_out.adopt(&self.config);
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
            Err(error) => Err(self.roll_back_to_running(error).await),
        }
    }

    /// The same for one that differs in names only: neither the network nor the nodes are looked at anew.
    async fn turn_names_to(&mut self, new: Config) -> Result<(), Refused> {
        let network = std::mem::take(&mut self.network);
        let applied = self.dataplane.apply(&new, &network);
        self.network = network;
        match applied {
            Ok(changes) => {
                let checks_differ =
                    nodes::checked_names(&self.config) != nodes::checked_names(&new);
                self.config = Arc::new(new);
                if checks_differ {
                    self.health_adopts();
                }
                info!(paths = changes.paths, names = changes.names, "maps written");
                Ok(())
            }
            Err(error) => Err(self.roll_back_to_running(error.into()).await),
        }
    }

    /// Puts the running configuration to use again after another one failed.
    async fn roll_back_to_running(&mut self, why: DaemonError) -> Refused {
        let running = self.config.clone();
        let restored = match self.adopt(&running).await {
            Ok(_) => {
                self.readiness.in_step(&self.missing, &self.down());
                true
            }
            Err(again) => {
                // Whatever the maps hold, an unchanged network is no reason to leave it so.
                self.dataplane.mark_dirty();
                self.readiness.out_of_step(&again);
                error!(
                    error = &again as &dyn std::error::Error,
                    "the data plane is not in step with the running configuration"
                );
                false
            }
        };
        Refused::NotApplied {
            source: why,
            restored,
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

    fn end_flows(&self, meant: impl Fn(&OpenFlow) -> bool) -> Result<usize, Refused> {
        let ended = flows::end(self.dataplane.pins(), self.dataplane.registry(), meant)?;
        info!(count = ended, "flows ended by order");
        Ok(ended)
    }

    /// Which configuration files edits are about.
    pub(super) fn about(&self) -> String {
        self.sources.fingerprint(self.config.digest)
    }

    /// Keeps edits where the next daemon finds them, should this one be killed.
    pub(super) fn save_edits(&mut self) {
        let saved = self.edits_file.save(&self.about(), &self.edits);
        self.edits_saved(saved);
    }

    fn add_edit(&mut self, edit: Edit) {
        let saved = match lasting::add(&mut self.edits, edit, &self.filed) {
            true => self.edits_file.append(&self.about(), &self.edits),
            false => self.edits_file.save(&self.about(), &self.edits),
        };
        self.edits_saved(saved);
    }

    fn edits_saved(&self, saved: std::io::Result<()>) {
        self.tally.edited(self.config.digest, self.edits.len());
        if let Err(error) = saved {
            warn!(path = %self.paths.edits().display(), %error, "edits will not outlive this daemon");
        }
    }

    /// Applies the edits of a former daemon; if the files have changed since, those of nodes.
    pub(super) fn restore_edits(&mut self) {
        let (edits, mut same) = edits::load(&self.paths.edits(), &self.about(), &self.config);
        for own in edits {
            match own.edit.apply(&self.config) {
                Ok(config) => {
                    info!(edit = %own.edit, "edit of the former daemon goes on");
                    self.config = Arc::new(config);
                    self.edits.push(own);
                }
                Err(error) => {
                    same = false;
                    warn!(edit = %own.edit, %error, "edit of the former daemon is dropped");
                }
            }
        }
        if same {
            self.tally.edited(self.config.digest, self.edits.len());
        } else {
            self.save_edits();
        }
    }

    /// Says which keys have another value in the files than in the maps.
    pub(super) fn warn_of_fixed(fixed: &[Fixed]) {
        for own in fixed {
            warn!(
                key = own.key,
                running = own.running,
                file = own.file,
                "cannot change while maps are pinned; `forwarder unload` and a new start apply it"
            );
        }
    }
}
