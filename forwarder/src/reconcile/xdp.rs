//! The armour, followed: put on while a flood lasts, taken off afterwards, each told and counted.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use super::Daemon;
use crate::config::difference::word;
use crate::config::model::Xdp;
use crate::control::problem::chain;
use crate::dataplane::DataplaneError;
use crate::dataplane::bpf::maps::MapsError;
use crate::link::driver::Driver;
use crate::link::{Link, LinkKind};
use crate::xdp::flood::{self, Flood, Threshold};
use crate::xdp::report::Report;

/// What the daemon knows of floods and armour.
#[derive(Debug, Default)]
pub struct Armour {
    flood: Flood,
    report: Report,
    /// What was last asked of the interfaces. Asked again only when the answer may be another: a driver that
    /// refuses is not asked each second.
    asked: Option<(bool, Vec<u32>)>,
}

impl Armour {
    /// As a former daemon left it.
    pub fn new(report: Option<Report>, worn: bool) -> Self {
        Self {
            flood: if worn {
                Flood::lasting()
            } else {
                Flood::default()
            },
            report: report.unwrap_or_default(),
            asked: None,
        }
    }
}

impl Daemon {
    /// A second has passed: is there a flood?
    pub(super) fn watch_for_floods(&mut self) {
        let unproven = match self.unproven() {
            Ok(unproven) => unproven,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "floods");
                return;
            }
        };
        let threshold = Threshold {
            above: self.config.entrance.xdp_above,
            calm: self.config.entrance.xdp_calm,
        };
        self.armour
            .flood
            .observe(unproven, Instant::now(), threshold);
        self.follow_armour();
    }

    fn unproven(&self) -> Result<u64, MapsError> {
        let numbers = self.dataplane.registry().listeners.iter();
        let stats: Result<Vec<_>, _> = numbers
            .map(|(number, _)| self.counters.listener(u16::try_from(number).unwrap_or(0)))
            .collect();
        Ok(flood::unproven(stats?.into_iter()))
    }

    /// Another configuration is in use: drivers that refused are asked again.
    pub(super) fn armour_adopts(&mut self) {
        self.armour.asked = None;
        self.follow_armour();
    }

    /// Brings the interfaces in step with configuration and flood.
    pub(super) fn follow_armour(&mut self) {
        let wanted = match self.config.entrance.xdp {
            Xdp::On => true,
            Xdp::Off => false,
            Xdp::Auto => self.armour.flood.lasts(),
        };
        let public = self.config.entrance.public.iter();
        let links = public.filter_map(|name| self.network.link(name.get_ref()));
        let links: Vec<Link> = links.cloned().collect();
        let asked = Some((wanted, links.iter().map(|link| link.ifindex).collect()));
        if self.armour.asked == asked {
            return;
        }
        self.armour.asked = asked;
        for link in &links {
            self.armour_one(link, wanted);
        }
        let worn: Vec<u32> = links.iter().map(|link| link.ifindex).collect();
        if let Err(error) = self.dataplane.forget_armour(&worn) {
            error!(error = &error as &dyn std::error::Error, "armour");
        }
        self.armour
            .report
            .interfaces
            .retain(|own| links.iter().any(|link| link.name == own.interface));
        self.armour.report.mode = word(self.config.entrance.xdp).to_owned();
        if let Err(error) = self.armour.report.save(&self.place.armour()) {
            debug!(%error, "the armour's report is not saved");
        }
    }

    fn armour_one(&mut self, link: &Link, wanted: bool) {
        let rate = self.armour.flood.rate();
        let worn = match self.dataplane.wears_armour(link) {
            Ok(worn) => worn,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "armour");
                return;
            }
        };
        let done = match wanted {
            // Also where it is worn already: the program of a former daemon is replaced.
            true => self.put_on(link),
            false => self.dataplane.doff(link),
        };
        let entry = self.armour.report.entry(&link.name);
        let interface = link.name.as_str();
        match done {
            Ok(()) => {
                if worn != wanted || entry.since.is_none() {
                    entry.since = unix_now();
                }
                match (worn, wanted) {
                    (false, true) => {
                        entry.attached += 1;
                        warn!(
                            interface,
                            rate = rate.round(),
                            "armour on: XDP answers in front"
                        );
                    }
                    (true, false) => {
                        entry.detached += 1;
                        info!(interface, rate = rate.round(), "armour off");
                    }
                    _ => {}
                }
                entry.worn = wanted;
                if wanted {
                    entry.refusal = None;
                }
            }
            Err(error) => {
                let why = chain(&error);
                entry.worn = worn;
                entry.refused += 1;
                entry.refusal = Some(why.clone());
                warn!(
                    interface,
                    why, "no armour here; everything works without it, at a higher cost in a flood"
                );
            }
        }
    }

    fn put_on(&mut self, link: &Link) -> Result<(), DataplaneError> {
        if link.kind != LinkKind::L2 {
            return Err(DataplaneError::NoEthernet {
                interface: link.name.clone(),
            });
        }
        // A machine in a container has one: silence in a flood would be worse than its cost.
        let veth = || Driver::of(&link.name).name.as_deref() == Some("veth");
        if !self.config.entrance.xdp_veth && veth() {
            return Err(DataplaneError::Deaf {
                interface: link.name.clone(),
            });
        }
        self.dataplane.wear(link)
    }
}

fn unix_now() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.ok().map(|time| time.as_secs())
}
