//! Whether there is a flood, with hysteresis: a burst of one second is none, and a pause does not end one.

use std::time::{Duration, Instant};

use forwarder_common::abi::ListenerStats;

/// How many observations in a row must be above the threshold.
const ONSET: u32 = 2;
/// Calm is less than the threshold divided by this.
const CALM_BELOW: f64 = 4.0;

/// When it is a flood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Segments a second.
    pub above: u32,
    /// How long it must have been calm for the flood to be over.
    pub calm: Duration,
}

/// What was observed so far.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    last: Option<(Instant, u64)>,
    rate: f64,
    above: u32,
    /// Since when it has been calm.
    calm_since: Option<Instant>,
    lasts: bool,
}

/// Segments of connections that proved nothing: SYNs less the hellos that followed them, and segments that
/// fit no cookie. Only differences mean anything: a hello may follow its SYN late.
pub fn unproven(listeners: impl Iterator<Item = ListenerStats>) -> u64 {
    listeners.fold(0, |total, own| {
        let strays = own.cookies_invalid;
        let silent = own.syns.saturating_sub(own.cookies_valid);
        total.wrapping_add(silent).wrapping_add(strays)
    })
}

impl Flood {
    /// As a former daemon left it: still lasting.
    pub fn lasting() -> Self {
        Self {
            lasts: true,
            ..Self::default()
        }
    }

    /// Takes note of a reading of [`unproven`]. Says whether there is a flood now.
    pub fn observe(&mut self, unproven: u64, now: Instant, threshold: Threshold) -> bool {
        let Some((then, before)) = self.last.replace((now, unproven)) else {
            return self.lasts;
        };
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        self.rate = unproven.saturating_sub(before) as f64 / seconds;
        let above = f64::from(threshold.above);
        self.above = match self.rate >= above {
            true => self.above.saturating_add(1),
            false => 0,
        };
        if self.rate >= above / CALM_BELOW {
            self.calm_since = None;
        } else {
            self.calm_since.get_or_insert(now);
        }
        let calm = self
            .calm_since
            .is_some_and(|since| now - since >= threshold.calm);
        self.lasts = match self.lasts {
            true => !calm,
            false => self.above >= ONSET,
        };
        self.lasts
    }

    /// Whether there is a flood, as last observed.
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// Segments a second, as last observed.
    pub fn rate(&self) -> f64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: Threshold = Threshold {
        above: 1_000,
        calm: Duration::from_secs(5),
    };

    /// Observes a rate each second; returns the seconds at which the verdict changed.
    fn changes(mut flood: Flood, rates: &[u64]) -> Vec<(usize, bool)> {
        let start = Instant::now();
        let mut total = 0;
        let mut verdict = flood.observe(total, start, THRESHOLD);
        let mut changes = Vec::new();
        for (i, rate) in rates.iter().enumerate() {
            total += rate;
            let now = start + Duration::from_secs(i as u64 + 1);
            let new = flood.observe(total, now, THRESHOLD);
            if new != verdict {
                changes.push((i + 1, new));
                verdict = new;
            }
        }
        changes
    }

    #[test]
    fn it_takes_two_seconds_to_begin_and_calm_to_end() {
        let rates = [0, 5_000, 5_000, 5_000, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(changes(Flood::default(), &rates), [(3, true), (10, false)]);
    }

    #[test]
    fn a_burst_is_no_flood() {
        assert_eq!(changes(Flood::default(), &[0, 50_000, 10, 50_000, 10]), []);
    }

    #[test]
    fn a_pause_does_not_end_it() {
        let mut rates = vec![2_000, 2_000];
        for _ in 0..10 {
            rates.extend([0, 0, 0, 0, 300]);
        }
        assert_eq!(changes(Flood::default(), &rates), [(2, true)]);
    }

    #[test]
    fn a_former_daemons_flood_lasts_until_it_is_calm() {
        assert_eq!(changes(Flood::lasting(), &[0; 8]), [(6, false)]);
        assert_eq!(changes(Flood::lasting(), &[900; 8]), []);
    }

    #[test]
    fn healthy_clients_prove_themselves() {
        let healthy = ListenerStats {
            syns: 10_000,
            cookies: 10_000,
            cookies_valid: 10_000,
            cookies_invalid: 0,
            hellos: 10_000,
            hello_bytes: 0,
            hello_segments: 0,
            hello_ms: 0,
            opened: 10_000,
            refused: 0,
            packets: 0,
            bytes: 0,
        };
        let flooded = ListenerStats {
            syns: 60_000,
            cookies_invalid: 7,
            ..healthy
        };
        assert_eq!(unproven([healthy, healthy].into_iter()), 0);
        assert_eq!(unproven([healthy, flooded].into_iter()), 50_007);
    }
}
