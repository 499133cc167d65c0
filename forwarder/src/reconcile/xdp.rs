//! Attaches the XDP filter while a flood lasts and detaches it afterwards; both are logged and counted.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use super::daemon::Daemon;
use crate::config::difference::word;
use crate::config::model::Xdp;
use crate::dataplane::DataplaneError;
use crate::dataplane::bpf::maps::MapsError;
use crate::instance::error::chain;
use crate::link::driver::Driver;
use crate::link::{Link, LinkKind};
use crate::xdp::flood::{self, Threshold};

impl Daemon {
    /// A second has passed: is there a flood?
    pub(super) fn watch_for_floods(&mut self) {
        let unproven = match self.unproven() {
            Ok(unproven) => unproven,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "unproven segments cannot be counted: a flood would not be noticed"
                );
                return;
            }
        };
        let threshold = Threshold {
            above: self.config.entrance.xdp_above,
            calm: self.config.entrance.xdp_calm,
        };
        self.xdp.flood.observe(unproven, Instant::now(), threshold);
        self.follow_xdp();
    }

    fn unproven(&self) -> Result<u64, MapsError> {
        let numbers = self.dataplane.registry().listeners.iter();
        let stats: Result<Vec<_>, _> = numbers
            .map(|(number, _)| self.counters.listener(u16::try_from(number).unwrap_or(0)))
            .collect();
        Ok(flood::unproven(stats?.into_iter()))
    }

    /// Another configuration is in use: drivers that refused are asked again.
    pub(super) fn xdp_adopts(&mut self) {
        self.xdp.asked = None;
        self.follow_xdp();
    }

    /// Brings the interfaces in step with configuration and flood.
    pub(super) fn follow_xdp(&mut self) {
        let wanted = match self.config.entrance.xdp {
            Xdp::On => true,
            Xdp::Off => false,
            Xdp::Auto => self.xdp.flood.lasts(),
        };
        let public = self.config.entrance.public.iter();
        let links = public.filter_map(|name| self.network.link(name.get_ref()));
        let links: Vec<Link> = links.cloned().collect();
        let asked = Some((wanted, links.iter().map(|link| link.ifindex).collect()));
        if self.xdp.asked == asked {
            return;
        }
        self.xdp.asked = asked;
        for link in &links {
            self.filter_one(link, wanted);
        }
        let attached: Vec<u32> = links.iter().map(|link| link.ifindex).collect();
        if let Err(error) = self.dataplane.forget_xdp(&attached) {
            error!(
                error = &error as &dyn std::error::Error,
                "the XDP filter of other interfaces cannot be detached"
            );
        }
        self.xdp
            .report
            .interfaces
            .retain(|own| links.iter().any(|link| link.name == own.interface));
        self.xdp.report.mode = word(self.config.entrance.xdp).to_owned();
        if let Err(error) = self.xdp.report.save(&self.paths.xdp()) {
            debug!(%error, "the XDP filter's report is not saved");
        }
    }

    fn filter_one(&mut self, link: &Link, wanted: bool) {
        let rate = self.xdp.flood.rate();
        let attached = match self.dataplane.has_xdp_filter(link) {
            Ok(attached) => attached,
            Err(error) => {
                error!(
                    interface = link.name,
                    error = &error as &dyn std::error::Error,
                    "whether the XDP filter is attached cannot be seen"
                );
                return;
            }
        };
        let done = match wanted {
            // Also where it is attached already: the program of a former daemon is replaced.
            true => self.put_on(link),
            false => self.dataplane.detach_xdp(link),
        };
        let entry = self.xdp.report.entry(&link.name);
        let interface = link.name.as_str();
        match done {
            Ok(()) => {
                if attached != wanted || entry.since.is_none() {
                    entry.since = unix_now();
                }
                match (attached, wanted) {
                    (false, true) => {
                        entry.attached += 1;
                        warn!(
                            interface,
                            rate = rate.round(),
                            "XDP filter attached: it answers in front"
                        );
                    }
                    (true, false) => {
                        entry.detached += 1;
                        info!(interface, rate = rate.round(), "XDP filter detached");
                    }
                    _ => {}
                }
                entry.attached_now = wanted;
                if wanted {
                    entry.refusal = None;
                }
            }
            Err(error) => {
                let why = chain(&error);
                entry.attached_now = attached;
                entry.refused += 1;
                entry.refusal = Some(why.clone());
                warn!(
                    interface,
                    why,
                    "no XDP filter here; everything works without it, at a higher cost in a flood"
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
        self.dataplane.attach_xdp(link)
    }
}

fn unix_now() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.ok().map(|time| time.as_secs())
}
