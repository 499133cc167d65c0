//! Refused connections without a line of their own, summed up.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often they are summed up.
const PERIOD: Duration = Duration::from_secs(60);
/// Reasons that are named.
const REASONS: usize = 3;

/// Those since they were last summed up.
#[derive(Debug, Default)]
pub struct Refusals {
    /// When the first one came.
    since: Option<Duration>,
    reasons: BTreeMap<&'static str, u64>,
}

/// What is said about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// How many there were.
    pub refused: u64,
    /// In how much time.
    pub period: Duration,
    /// The most frequent reasons, the first one first.
    pub reasons: Vec<(&'static str, u64)>,
}

impl Refusals {
    /// Counts one at the monotonic time `now`.
    pub fn count(&mut self, reason: &'static str, now: Duration) {
        self.since.get_or_insert(now);
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// Sums up what has been counted, if it is time to; `at_once` does so in any case.
    pub fn due(&mut self, now: Duration, at_once: bool) -> Option<Sum> {
        let period = now.saturating_sub(self.since?);
        if period < PERIOD && !at_once {
            return None;
        }
        self.since = None;
        let mut reasons: Vec<_> = std::mem::take(&mut self.reasons).into_iter().collect();
        let refused = reasons.iter().map(|(_, count)| count).sum();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons.truncate(REASONS);
        Some(Sum {
            refused,
            period,
            reasons,
        })
    }
}

impl Sum {
    /// `980 further refusals in the last minute: 900 unlisted_name, 80 not_tls`
    pub fn words(&self) -> String {
        let noun = if self.refused == 1 {
            "refusal"
        } else {
            "refusals"
        };
        let period = match self.period.as_secs() {
            seconds @ 0..60 => format!("{seconds} s"),
            60..90 => String::from("minute"),
            seconds => format!("{} minutes", (seconds + 30) / 60),
        };
        let reasons = self.reasons.iter();
        let reasons: Vec<_> = reasons
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        format!(
            "{} further {noun} in the last {period}: {}",
            self.refused,
            reasons.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_summed_up_once() {
        let at = Duration::from_secs;
        let mut refusals = Refusals::default();
        assert_eq!(refusals.due(at(1_000), true), None);
        for (reason, count) in [("a", 3), ("b", 900), ("c", 1), ("d", 80)] {
            (0..count).for_each(|_| refusals.count(reason, at(1_000)));
        }
        assert_eq!(refusals.due(at(1_059), false), None);
        let sum = refusals.due(at(1_060), false).unwrap();
        assert_eq!(
            sum.words(),
            "984 further refusals in the last minute: 900 b, 80 d, 3 a"
        );
        assert_eq!(refusals.due(at(2_000), true), None, "said once");
        refusals.count("a", at(2_000));
        let sum = refusals.due(at(2_007), true).unwrap();
        assert_eq!(sum.words(), "1 further refusal in the last 7 s: 1 a");
    }
}
