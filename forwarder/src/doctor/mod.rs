//! `forwarder doctor`: looks at everything that a connection of a client depends on, piece by piece, and says what
//! mends what is broken.
//!
//! ```text
//! kernel, trial ─▶ configuration ─▶ interfaces, mtu ─▶ routes, ports ─▶ nodes ─▶ daemon
//! ```
//!
//! A failure is named where it is, and what only follows from it is skipped: with the tunnel down, nothing is said
//! of the nodes behind it. Nothing of this machine is changed.

pub mod catalog;
mod certificate;
mod configuration;
mod daemon;
pub mod finding;
mod interfaces;
mod kernel;
mod nodes;
mod patient;
mod ports;
mod probe;
mod routes;
mod second_hello;
mod serving;
mod trial;
mod verdict;
pub mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::catalog::Code;
use self::finding::{Finding, Report, Verdict};
use self::patient::Patient;
use crate::config::own_sockets::OwnSockets;
use crate::config::surroundings::{self, Surroundings};
use crate::config::{self, Config};
use crate::instance::paths::Paths;
use crate::link::driver::Driver;
use crate::link::survey::{SurveyError, Surveyor};

/// What is to be examined, and how far.
#[derive(Clone, Debug)]
pub struct Examination<'a> {
    /// The configuration file.
    pub file: &'a Path,
    /// Leave the nodes alone.
    pub offline: bool,
    /// Do not load the programs.
    pub no_trial: bool,
    /// Hosts that no listed name may lead to.
    pub private: &'a [String],
    /// The kernel programs.
    pub object: &'static [u8],
}

/// Examines, and tells everything that was seen. Needs a tokio runtime. `place` tells where the instance keeps
/// its things, by its configuration if that can be read.
pub async fn examine(
    examination: &Examination<'_>,
    place: impl FnOnce(Option<&Config>) -> Paths,
) -> Result<Report, SurveyError> {
    let mut report = Report::default();
    let kernel = kernel::Kernel::here();
    report.extend(kernel::judge(&kernel));
    let outcome = config::load(examination.file);
    let config = outcome.as_ref().ok().and_then(|own| own.config.as_ref());
    let place = place(config);
    report.extend([kernel::bpffs(place.bpffs())]);
    if examination.no_trial {
        let why = "--no-trial leaves it out";
        report.extend([Finding::skipped(Code::ProgramsLoad, "", why)]);
    } else if kernel.is_privileged() {
        report.extend(trial::run(examination.object));
    } else {
        let why = "not tried without the rights for it";
        report.extend([Finding::skipped(Code::ProgramsLoad, "", why)]);
    }
    let outcome = match &outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            report.extend([configuration::unreadable(examination.file, error)]);
            report.extend(daemon::judge(&place, None));
            return Ok(report);
        }
    };
    report.extend(configuration::judge(config, &outcome.report));
    let Some(config) = config else {
        report.extend(daemon::judge(&place, None));
        return Ok(report);
    };
    let network = Surveyor::open()?
        .survey(surroundings::destinations(config))
        .await?;
    let surroundings = Surroundings {
        network,
        local_ports: Surroundings::local_ports(),
    };
    let diagnostics = surroundings::check(config, &surroundings);
    let patient = Patient {
        config,
        report: &outcome.report,
        network: surroundings.network,
    };
    examine_machine(
        &mut report,
        examination,
        &patient,
        diagnostics,
        surroundings.local_ports,
    )
    .await;
    report.extend(daemon::judge(&place, Some(&patient)));
    Ok(report)
}

async fn examine_machine(
    report: &mut Report,
    examination: &Examination<'_>,
    patient: &Patient<'_>,
    diagnostics: Vec<config::diagnostic::Diagnostic>,
    local_ports: Option<std::ops::RangeInclusive<u16>>,
) {
    let drivers = patient.interfaces().map(|(_, name)| name);
    let drivers: BTreeMap<_, _> = drivers
        .map(|name| (name.to_owned(), Driver::of(name)))
        .collect();
    report.extend(interfaces::judge(patient, &drivers));
    // Found by the same code as in `check`, but for what is told with more detail here.
    let elsewhere = [
        Code::MissingInterface,
        Code::TransparentTailscale,
        Code::SourcePorts,
        Code::TakesSocket,
        Code::TakesSsh,
    ];
    let found = diagnostics
        .iter()
        .filter_map(|own| interfaces::of_diagnostic(patient.config, own))
        .filter(|own| !elsewhere.contains(&own.code));
    let mut found: Vec<_> = found.collect();
    let absent = absent_tunnel(patient);
    let mut lost = BTreeSet::new();
    for own in &mut found {
        if matches!(
            own.code,
            Code::NoTunnel | Code::NoSourceAddress | Code::LocalNode
        ) {
            lost.insert(own.subject.clone());
            if let Some(absent) = absent.filter(|_| own.code != Code::LocalNode) {
                let why = format!("{}, while `{absent}` is not up", own.seen);
                *own = Finding::skipped(own.code, own.subject.as_str(), why);
            }
        }
    }
    report.extend(found);
    report.extend(interfaces::sizes(patient, &drivers));
    let (wireguards, unanswered) = routes::wireguards(patient, &drivers);
    report.extend(unanswered);
    let (ways, blocked) = routes::judge(patient, &wireguards, &lost);
    report.extend(ways);
    let own = OwnSockets::here();
    report.extend(ports::judge(patient, &own, local_ports.as_ref()));
    if examination.offline {
        let why = "--offline leaves nodes alone";
        report.extend([Finding::skipped(Code::NodeUnreachable, "", why)]);
    } else {
        let found = nodes::examine(patient, &wireguards, &blocked, examination.private).await;
        report.extend(found);
    }
}

/// A tunnel that is missing or down: nodes behind it have no route, which is no failure of its own.
fn absent_tunnel<'a>(patient: &Patient<'a>) -> Option<&'a str> {
    let is_up = |name: &str| patient.network.link(name).is_some_and(|link| link.up);
    patient.tunnels().find(|name| !is_up(name))
}

impl Report {
    /// Whether connections fail, or something private is open.
    pub fn has_failed(&self) -> bool {
        self.count(Verdict::Failure) > 0
    }
}
