//! Whether there is a flood, with hysteresis: a burst of one second is none, and a pause does not end one.
//!
//! A flood that comes back soon after the last one is taken for the same: it must then be calm for twice as long until
//! it is over, and so on. Otherwise three seconds of flood a minute would attach and detach the XDP program each
//! minute, for which some drivers reset the link.

use std::time::{Duration, Instant};

use forwarder_common::abi::ListenerStats;

/// How many observations in a row must be above the threshold.
const ONSET: u32 = 2;
/// Calm is less than the threshold divided by this.
const CALM_BELOW: f64 = 4.0;

/// How often the time of calm doubles at most: 64 times as long.
const RELAPSES_MAX: u32 = 6;
/// The longest time of calm that is asked for because of relapses.
const CALM_MAX: Duration = Duration::from_secs(3_600);

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
    /// When the last one was over, and for how long it had to be calm.
    ended: Option<(Instant, Duration)>,
    /// How many floods began soon after the one before.
    relapses: u32,
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
        let needed = self.calm_needed(threshold.calm);
        let calm = self.calm_since.is_some_and(|since| now - since >= needed);
        match self.lasts {
            true if calm => {
                self.lasts = false;
                self.ended = Some((now, needed));
            }
            false if self.above >= ONSET => {
                self.lasts = true;
                // As long again as it had to be calm, and the time the new one took to show.
                let soon = |(end, calm): (Instant, Duration)| now - end < 2 * calm + threshold.calm;
                self.relapses = match self.ended.is_some_and(soon) {
                    true => (self.relapses + 1).min(RELAPSES_MAX),
                    false => 0,
                };
            }
            _ => {}
        }
        self.lasts
    }

    /// How long it must be calm now until the flood is over.
    fn calm_needed(&self, calm: Duration) -> Duration {
        let longer = calm * 2_u32.pow(self.relapses);
        longer.min(CALM_MAX.max(calm))
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

    /// Three seconds of flood in each minute: the changes become rare, and a long calm makes all as it was.
    #[test]
    fn floods_that_come_back_are_taken_for_one() {
        let minute: Vec<u64> = [5_000; 3].into_iter().chain([0; 57]).collect();
        let hour: Vec<u64> = minute.iter().copied().cycle().take(3_600).collect();
        let long = Threshold {
            above: 1_000,
            calm: Duration::from_secs(20),
        };
        let observed = |rates: &[u64]| {
            let start = Instant::now();
            let mut flood = Flood::default();
            let mut total = 0;
            let mut verdict = flood.observe(total, start, long);
            let mut changes = 0;
            for (i, rate) in (1..).zip(rates) {
                total += rate;
                let new = flood.observe(total, start + Duration::from_secs(i), long);
                changes += u32::from(new != verdict);
                verdict = new;
            }
            (changes, flood)
        };
        let (changes, flood) = observed(&hour);
        // On, off, on, off at 20 and 40 seconds of calm; 80 never come.
        assert!(changes <= 6, "{changes} changes an hour");
        assert!(flood.lasts());
        // Calm comes: the next flood is a first one again.
        let calm = hour.iter().copied().chain([0; 3_600]);
        let then: Vec<u64> = calm.chain([5_000; 3]).chain([0; 30]).collect();
        let (_, flood) = observed(&then);
        assert!(!flood.lasts(), "20 seconds of calm are enough");
    }

    #[test]
    fn calm_is_never_asked_for_longer_than_an_hour_or_as_told() {
        let flood = Flood {
            relapses: RELAPSES_MAX,
            ..Flood::default()
        };
        let needed = |seconds| flood.calm_needed(Duration::from_secs(seconds)).as_secs();
        assert_eq!([needed(1), needed(60), needed(7_200)], [64, 3_600, 7_200]);
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
