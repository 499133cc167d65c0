//! The daemon: what it holds, and its loop.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use super::command::{self, Command, Commands, Confirmed};
use super::edits::EditsFile;
use super::error::DaemonError;
use super::file_watch::FileWatch;
use super::probation::{self, Guard, Left, Probation};
use super::refusals::Refusals;
use super::stacked;
use super::timers::sweep_aside;
use super::trial::Trial;
use crate::config::diagnostic::Diagnostic;
use crate::config::lasting::Kept;
use crate::config::surroundings::{self, Surroundings};
use crate::config::{Config, Sources, claim};
use crate::dataplane::bpf::attach::Attachment;
use crate::dataplane::bpf::hooks;
use crate::dataplane::bpf::maps::{CounterMaps, FlowMaps};
use crate::dataplane::bpf::pins::Pins;
use crate::dataplane::flows::events::{self, Events, Kind, Record};
use crate::dataplane::flows::sweep::{Sweeper, Swept};
use crate::dataplane::{Dataplane, Origin, plan};
use crate::health::{self as nodes, Health};
use crate::instance::lock::Lock;
use crate::instance::paths::Paths;
use crate::link::Network;
use crate::link::survey::Surveyor;
use crate::link::watch::Watch;
use crate::telemetry::counters::Tally;
use crate::telemetry::events::FanOut;
use crate::telemetry::flow_event::{BACKLOG, FlowEvent};
use crate::telemetry::metrics::server::Server;
use crate::telemetry::readiness::Readiness;
use crate::xdp::filter::XdpFilter;
use crate::xdp::report::Report as XdpReport;

/// How often silent flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How often it is looked whether a cookie key is due.
const KEYS: Duration = Duration::from_secs(60);
/// How often the network is looked at although nothing was heard: a message may have been lost.
const RESURVEY: Duration = Duration::from_secs(60);
/// How often it is looked whether programs are still attached. Nobody tells when a TCX link is detached.
const HOOKS: Duration = Duration::from_secs(2);
/// A ring full of events is read in fewer turns.
const RING_TURNS: usize = 64;

/// How often tunnels are asked about their peers. Handshakes are two minutes apart.
const TUNNELS: Duration = Duration::from_secs(5);

/// A daemon that has started.
pub struct Daemon {
    /// In use, edits included.
    pub(super) config: Arc<Config>,
    /// What the files say, without edits.
    pub(super) filed: Arc<Config>,
    /// The files it was read from, as they were then.
    pub(super) sources: Sources,
    /// What the files said when they were last refused, if they were since.
    pub(super) refused: Option<Sources>,
    pub(super) files: FileWatch,
    /// Edits in force. The next reload undoes those of routes.
    pub(super) edits: Vec<Kept>,
    pub(super) edits_file: EditsFile,
    pub(super) paths: Paths,
    pub(super) commands: mpsc::Receiver<Command>,
    /// When everything is removed unless somebody confirms before.
    pub(super) deadline: Option<Instant>,
    pub(super) guard: Option<Guard>,
    /// A reload that is to be confirmed.
    pub(super) trial: Option<Trial>,
    pub(super) dataplane: Dataplane,
    pub(super) network: Network,
    pub(super) surveyor: Surveyor,
    pub(super) watch: Watch,
    pub(super) events: Events,
    pub(super) fan_out: FanOut,
    pub(super) health: Health,
    pub(super) refusals: Refusals,
    pub(super) xdp: XdpFilter,
    pub(super) counters: CounterMaps,
    /// Absent while a sweep is under way.
    pub(super) sweeper: Option<Sweeper>,
    pub(super) missing: Vec<String>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) tally: Arc<Tally>,
    pub(super) metrics: Server,
    handle: Handle,
    signals: Signals,
    /// Held for as long as the daemon runs.
    _lock: Lock,
}

/// The signals that mean something to the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self, DaemonError> {
        let catch = |kind| signal(kind).map_err(DaemonError::Signals);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }
}

/// What others need to speak to a daemon and to hear of it.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Its loop.
    pub commands: Commands,
    /// What happens to flows.
    pub events: broadcast::Sender<FlowEvent>,
    /// Where is counted what somebody missed.
    pub tally: Arc<Tally>,
}

impl Daemon {
    /// Loads, fills and attaches. After this, clients are served. `lock` is the instance's; `config` is what `sources`
    /// say; a reload reads the same files again. With `confirm` set everything is removed after that time, unless
    /// somebody confirms before.
    pub async fn start(
        lock: Lock,
        object: &[u8],
        mut config: Config,
        sources: Sources,
        paths: &Paths,
        confirm: Option<Duration>,
    ) -> Result<Self, DaemonError> {
        // A signal that comes while it starts counts as soon as it has.
        let signals = Signals::catch()?;
        let surveyor = Surveyor::open()?;
        let (deadline, guard) = on_probation(paths, &surveyor, confirm).await?;
        // Before the first survey, so that no change falls between.
        let watch = Watch::open().map_err(DaemonError::Watch)?;
        let network = surveyor.survey(std::iter::empty()).await?;
        stacked::check(paths, &config, &network)?;
        let pins = Pins::new(paths.bpffs());
        let (dataplane, origin) = Dataplane::open(object, &config, pins, &paths.registry())?;
        Self::warn_of_fixed(&dataplane.keep_pinned(&mut config));
        let events = Events::open(dataplane.pins())?;
        let state = FlowMaps::open(dataplane.pins())?;
        let sweeper = Sweeper::new(state, config.entrance.idle_timeout);
        let readiness = Arc::new(Readiness::default());
        let tally = Arc::new(Tally::default());
        tally.configured(config.digest);
        tally.swept();
        let (followers, _) = broadcast::channel(BACKLOG);
        let (sender, commands) = command::channel();
        let handle = Handle {
            commands: sender,
            events: followers.clone(),
            tally: tally.clone(),
        };
        let fan_out = FanOut::new(&config, followers, tally.clone());
        let counters = CounterMaps::open(dataplane.pins())?;
        let health = Health::new(&config, paths.health());
        let attached = !dataplane.pins().pinned_xdp()?.is_empty();
        let xdp = XdpFilter::new(XdpReport::load(&paths.xdp()), attached);
        let mut daemon = Self {
            filed: Arc::new(config.clone()),
            config: Arc::new(config),
            sources,
            refused: None,
            files: FileWatch::default(),
            edits: Vec::new(),
            edits_file: EditsFile::new(paths.edits()),
            paths: paths.clone(),
            commands,
            deadline,
            guard,
            trial: None,
            dataplane,
            network: Network::default(),
            surveyor,
            watch,
            events,
            fan_out,
            health,
            refusals: Refusals::default(),
            xdp,
            counters,
            sweeper: Some(sweeper),
            missing: Vec::new(),
            metrics: Server::new(paths.clone(), readiness.clone(), tally.clone()),
            readiness,
            tally,
            handle,
            signals,
            _lock: lock,
        };
        daemon.restore_edits();
        daemon.resume_trial();
        daemon.health.follow(&daemon.config);
        daemon.dataplane.rotate_keys()?;
        // Nodes that a former daemon left out stay out until their first check.
        let weights = daemon.health.weights(&daemon.config);
        daemon.dataplane.set_weights(weights);
        daemon.follow_network(true).await?;
        daemon.dataplane.publish()?;
        daemon.follow_xdp();
        daemon.health.save(&daemon.config);
        daemon.warn_of_tight();
        daemon.readiness.in_step(&daemon.missing, &daemon.down());
        daemon.metrics.listen(daemon.config.metrics);
        daemon.follow_files();
        let listeners = 0..daemon.config.listeners.len();
        let claimed = listeners.map(|at| claim::claimed(&daemon.config, &daemon.network, at).len());
        let claims = claimed.sum::<usize>() > 0;
        if !claims {
            warn!(
                "nothing is claimed, so nothing is forwarded: no listener has an address (`forwarder check` says why)"
            );
        }
        info!(
            bpffs = %paths.bpffs().display(),
            listeners = daemon.config.listeners.len(),
            routes = daemon.config.routes.len(),
            pools = daemon.config.pools.len(),
            "{}",
            match origin {
                _ if !claims => "loaded, and waiting for an address to claim",
                Origin::Fresh => "forwarding",
                Origin::Adopted => "forwarding; the open flows of the former daemon go on",
                Origin::Upgraded => "forwarding; the open flows of the former version go on",
            }
        );
        Ok(daemon)
    }

    /// For those who speak to it and follow it.
    pub fn handle_for_others(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until SIGTERM or SIGINT.
    pub async fn run(mut self) -> Result<(), DaemonError> {
        let mut sweep = every(SWEEP);
        let mut keys = every(KEYS);
        let mut resurvey = every(RESURVEY);
        let mut hooks = every(HOOKS);
        let beat = sd_notify::watchdog_enabled();
        let mut poll = every(nodes::POLL);
        let mut heartbeat = every(beat.map_or(RESURVEY, |timeout| timeout / 2));
        let (swept_to, mut swept) = tokio::sync::mpsc::channel(1);
        let mut tunnels = every(TUNNELS);
        let (asked_to, mut asked) = tokio::sync::mpsc::channel(1);
        self.ask_tunnels(&asked_to);
        self.tell_systemd(&[NotifyState::Ready]);
        loop {
            let trial = self.trial_deadline();
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.hang_up.recv() => {
                    self.tell_reloading();
                    self.reload_by_signal().await;
                    self.tell_systemd(&[NotifyState::Ready]);
                }
                Some(command) = self.commands.recv() => self.handle(command).await,
                () = self.files.changed() => self.files_changed().await,
                () = until(self.deadline) => return self.unconfirmed(DaemonError::Unconfirmed),
                () = until(trial) => self.roll_back("not confirmed in time").await,
                alive = self.watch.changed() => {
                    if !alive {
                        warn!("the subscription to changes of the network broke; subscribing again");
                        self.watch = Watch::open().map_err(DaemonError::Watch)?;
                    }
                    self.keep_up().await;
                    self.look_at_hooks().await;
                }
                events = self.events.next() => {
                    for event in events? {
                        self.event(&event);
                    }
                }
                _ = sweep.tick() => {
                    self.readiness.beat();
                    if let Some(mut sweeper) = self.sweeper.take() {
                        let own = &self.config.entrance;
                        sweeper.set_times(own.idle_timeout, own.hello_timeout);
                        sweep_aside(sweeper, swept_to.clone());
                    }
                    self.fan_out.refresh();
                }
                Some((sweeper, result)) = swept.recv() => {
                    self.sweeper = Some(sweeper);
                    match result {
                        Ok(swept) => self.swept(&swept),
                        Err(error) => error!(
                            error = &error as &dyn std::error::Error,
                            "the flow table was not looked through; the next sweep tries again"
                        ),
                    }
                }
                _ = keys.tick() => match self.dataplane.rotate_keys() {
                    Ok(true) => debug!("cookie key renewed"),
                    Ok(false) => {}
                    Err(error) => error!(
                        error = &error as &dyn std::error::Error,
                        "the key of SYN cookies was not renewed; tried again in a minute"
                    ),
                },
                finding = self.health.next() => self.health_checked(finding),
                _ = poll.tick() => {
                    self.health_polled();
                    self.fan_out.tell_dropped();
                    self.watch_for_floods();
                    self.follow_upgrade();
                }
                _ = tunnels.tick() => self.ask_tunnels(&asked_to),
                Some(readings) = asked.recv() => self.tunnels_answered(&readings),
                _ = resurvey.tick() => self.keep_up().await,
                _ = hooks.tick() => self.look_at_hooks().await,
                _ = heartbeat.tick() => if beat.is_some() {
                    self.tell_systemd(&[NotifyState::Watchdog]);
                },
            }
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        if self.deadline.is_some() {
            return self.unconfirmed(DaemonError::Stopped);
        }
        self.roll_back("stopped before it was confirmed").await;
        self.drain_events();
        self.fan_out.finish();
        info!(
            "stopping; programs stay attached and flows go on. `forwarder unload` removes everything"
        );
        Ok(())
    }

    /// Nobody confirmed: this machine may be out of reach because of us.
    fn unconfirmed(self, why: DaemonError) -> Result<(), DaemonError> {
        probation::remove(&self.paths, &self.network)?;
        Err(why)
    }

    /// Somebody confirmed. Says whether that was waited for.
    pub(super) fn confirm(&mut self) -> Confirmed {
        let mut waited = self.deadline.take().is_some();
        if waited {
            Probation::of(&self.paths).end();
            self.guard = None;
            info!("confirmed; programs stay attached");
        }
        if self.end_trial() {
            waited = true;
            info!("confirmed; the configuration stays in use");
        }
        Confirmed { waited }
    }

    /// Looks at the network and brings the kernel side in step. What fails is tried again at the next
    /// change or within a minute.
    async fn keep_up(&mut self) {
        match self.follow_network(false).await {
            Ok(()) => self.readiness.in_step(&self.missing, &self.down()),
            Err(error) => {
                self.readiness.out_of_step(&error);
                error!(
                    error = &error as &dyn std::error::Error,
                    "the data plane is not in step with the network"
                );
            }
        }
    }

    pub(super) async fn follow_network(&mut self, first: bool) -> Result<(), DaemonError> {
        let destinations = plan::destinations(&self.config, self.dataplane.registry());
        let network = self.surveyor.survey(destinations.into_iter()).await?;
        if !first && network == self.network && self.dataplane.is_in_step() {
            return Ok(());
        }
        self.health.set_ways(self.ways(&network));
        let changes = self.dataplane.apply(&self.config, &network)?;
        let missing = self.dataplane.attach(&self.config, &network)?;
        let missing: Vec<String> = missing.into_iter().map(str::to_owned).collect();
        if first || !changes.is_empty() {
            info!(
                nodes = changes.nodes,
                pools = changes.pools,
                paths = changes.paths,
                names = changes.names,
                addresses = changes.vips,
                "maps written"
            );
        }
        if first || missing != self.missing || !changes.is_empty() {
            self.warn_about(&network);
        }
        self.missing = missing;
        self.network = network;
        if !first {
            self.follow_xdp();
        }
        Ok(())
    }

    /// Attaches again what somebody else has detached.
    async fn look_at_hooks(&mut self) {
        let mut lost = Vec::new();
        for (place, id) in self.dataplane.places(&self.network) {
            let standing = hooks::look(&self.surveyor, &place.interface, place.ifindex).await;
            if standing.is_some_and(|standing| !standing.has(id)) {
                lost.push(place);
            }
        }
        if lost.is_empty() {
            return;
        }
        for place in &lost {
            // One that went with its interface is no news here.
            if self.is_there(place).await {
                warn!(
                    interface = place.interface,
                    side = place.side.word(),
                    "somebody has detached the program; attaching it again"
                );
                self.tally.hooks_lost.add(1);
            }
            if let Err(error) = self.dataplane.lost(place) {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the registry was not written: after a restart it is made from the maps"
                );
            }
        }
        self.dataplane.mark_dirty();
        self.keep_up().await;
    }

    async fn is_there(&self, place: &Attachment) -> bool {
        let network = self.surveyor.survey(std::iter::empty()).await;
        network.is_ok_and(|network| {
            let link = network.link_by_index(place.ifindex);
            link.is_some_and(|link| link.name == place.interface)
        })
    }

    /// Ends a change from another version when it is done.
    fn follow_upgrade(&mut self) {
        if let Err(error) = self.dataplane.follow_upgrade(&self.network) {
            error!(
                error = &error as &dyn std::error::Error,
                "the former version is not gone"
            );
        }
    }

    /// Configured interfaces that exist and are down.
    pub(super) fn down(&self) -> Vec<String> {
        let entrance = &self.config.entrance;
        let names = entrance.tunnels.iter().chain(&entrance.public);
        let down =
            names.filter(|name| self.network.link(name.get_ref()).is_some_and(|own| !own.up));
        down.map(|name| name.get_ref().clone()).collect()
    }

    /// The warnings that `check` would show, as log lines.
    pub(super) fn warn_about(&self, network: &Network) {
        let surroundings = Surroundings {
            network: network.clone(),
            local_ports: Surroundings::local_ports(),
        };
        for Diagnostic {
            code,
            message,
            label,
            ..
        } in surroundings::check(&self.config, &surroundings)
        {
            warn!(code, "{message}: {label}");
        }
    }

    fn event(&mut self, event: &forwarder_common::abi::Event) {
        let mut record = Record::new(event, self.dataplane.registry());
        // A connection that was refused took no path.
        record.listener = record
            .listener
            .or_else(|| self.config.listener_at(record.local?));
        self.fan_out.event(&record, event);
    }

    /// Tells what lies in the ring already: a flow's opening before its end, and the last before this daemon ends.
    fn drain_events(&mut self) {
        // More than the ring has room for came meanwhile and is for later.
        for _ in 0..RING_TURNS {
            let events = self.events.take();
            if events.is_empty() {
                break;
            }
            for event in events {
                self.event(&event);
            }
        }
    }

    fn swept(&mut self, swept: &Swept) {
        self.drain_events();
        for (key, flow, why) in &swept.expired {
            let event = events::expired(key, flow);
            let mut record = Record::new(&event, self.dataplane.registry());
            record.kind = Kind::Closed { reason: why.word() };
            self.fan_out.event(&record, &event);
        }
        debug!(
            flows = swept.flows,
            expired = swept.expired.len(),
            hellos = swept.hellos,
            orphans = swept.orphans,
            miscounted = swept.miscounted,
            "swept"
        );
        self.tally.swept();
        if let Err(error) = self.dataplane.swept(swept) {
            error!(
                error = &error as &dyn std::error::Error,
                "the sweep is not accounted for"
            );
        }
        self.tell_systemd(&[NotifyState::Status(&format!("{} flows", swept.flows))]);
    }

    /// As `Type=notify-reload` wants it (`sd_notify(3)`).
    fn tell_reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell_systemd(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "systemd not told"),
        }
    }

    fn tell_systemd(&self, state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            debug!(%error, "systemd not told");
        }
    }
}

/// Begins a probation, or goes on with that of a former daemon; one whose time is over is obeyed here and now.
async fn on_probation(
    paths: &Paths,
    surveyor: &Surveyor,
    confirm: Option<Duration>,
) -> Result<(Option<Instant>, Option<Guard>), DaemonError> {
    let probation = Probation::of(paths);
    let left = match (confirm, probation.left()) {
        (Some(time), _) => {
            probation.begin(time).map_err(DaemonError::Probation)?;
            time
        }
        (None, Left::Confirmed) => return Ok((None, None)),
        (None, Left::Time(left)) => {
            warn!(
                seconds = left.as_secs(),
                "a former daemon was not confirmed: everything is removed, unless `forwarder confirm` arrives before"
            );
            left
        }
        (None, Left::Nothing) => {
            let network = surveyor.survey(std::iter::empty()).await?;
            probation::remove(paths, &network)?;
            return Err(DaemonError::Unconfirmed);
        }
    };
    let guard = Guard::start(paths).map_err(DaemonError::Probation)?;
    Ok((Some(Instant::now() + left), Some(guard)))
}

/// Waits for a time; for ever, if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A timer that neither fires at once nor makes up for what it missed.
fn every(period: Duration) -> tokio::time::Interval {
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer.reset();
    timer
}
