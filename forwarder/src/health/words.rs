//! Health in the words of tables: `status`, `node ls`, `pool ls`, `explain` and `top` say the same.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::report::{NodeReport, PoolReport, State};
use super::state::Cause;
use crate::config::model::NodeState as Operator;
use crate::units::age;

/// What is wrong with a node of a `transparent` pool that answers its checks and not its clients.
pub const ANSWERS_LOST: &str = "answers to clients do not come back although checks succeed: its AllowedIPs, or its return route (docs/node-transparent.md)";

/// `up 3m 2s, 1.2 ms, certificate 29 d`, or why not.
pub fn health(node: &NodeReport, now: SystemTime) -> String {
    let since = age(node.age(now));
    let mut words = match node.state {
        State::Up => format!("up {since}"),
        State::Down => format!("DOWN {since}: {}", why_down(node)),
        State::Unchecked => String::from("not checked yet"),
        State::Unwatched => String::from("no checks"),
    };
    let last = node.last.as_ref();
    if let (State::Up, Some(last)) = (node.state, last) {
        let _ = match &last.error {
            None => write!(words, ", {:.1} ms", last.took.as_secs_f64() * 1e3),
            Some(error) => write!(words, ", last check failed: {error}"),
        };
    }
    if node.answers_lost {
        words.push_str(", ANSWERS DO NOT COME BACK: AllowedIPs, return route");
    }
    if node.share < 100 && !node.is_down() {
        let _ = write!(words, ", {} % of its share", node.share);
    }
    if let Some(expires) = node.certificate_expires {
        let left = expires.duration_since(now);
        let _ = match left.map(|left| left.as_secs() / 86_400) {
            Ok(days) => write!(words, ", certificate {days} d"),
            Err(_) => write!(words, ", certificate EXPIRED"),
        };
    }
    words
}

/// What speaks against a node that is down.
fn why_down(node: &NodeReport) -> &str {
    let error = node.last.as_ref().and_then(|last| last.error.as_deref());
    match (node.cause, error) {
        (Some(Cause::Clients), _) => "connections of clients failed",
        (_, Some(error)) => error,
        (_, None) => "as the former daemon left it",
    }
}

/// Why a node gets fewer new connections than its weight says, or none; `None` if it gets all of them.
pub fn hindrance(node: &NodeReport, now: SystemTime) -> Option<String> {
    match node.operator {
        Operator::Ready => {}
        Operator::Drain => return Some(String::from("drained by its operator")),
        Operator::Maint => return Some(String::from("in maintenance")),
    }
    if node.is_down() {
        let (since, why) = (age(node.age(now)), why_down(node));
        return Some(format!("down for {since}: {why}"));
    }
    if node.answers_lost {
        return Some(String::from(ANSWERS_LOST));
    }
    (node.share < 100).then(|| {
        let share = node.share;
        format!("coming back: {share} % of its share so far")
    })
}

/// `2/3`, and what follows if there is none.
pub fn pool(pool: &PoolReport) -> String {
    let (available, nodes) = (pool.available, pool.nodes);
    let rest = match (available, pool.refusing) {
        (_, true) => " REFUSING",
        (0, false) => " NONE LEFT",
        _ => "",
    };
    format!("{available}/{nodes}{rest}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::report::{Counts, LastCheck};
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn node() -> NodeReport {
        NodeReport {
            pool: String::from("k3s"),
            name: String::from("a"),
            address: "10.0.0.2:443".parse().unwrap(),
            operator: Operator::Ready,
            state: State::Up,
            cause: None,
            share: 100,
            since: at(1_000),
            last: Some(LastCheck {
                at: at(1_090),
                took: Duration::from_micros(1_240),
                error: None,
            }),
            certificate_expires: Some(at(1_100 + 3 * 86_400 + 5)),
            answers_lost: false,
            counts: Counts::default(),
        }
    }

    #[test]
    fn a_node_whose_answers_are_lost_is_not_just_up() {
        let node = NodeReport {
            answers_lost: true,
            ..node()
        };
        let words = health(&node, at(1_100));
        assert!(words.contains("ANSWERS DO NOT COME BACK"), "{words}");
        assert!(hindrance(&node, at(1_100)).is_some_and(|why| why.contains("return route")));
    }

    #[test]
    fn a_node_in_words() {
        let now = at(1_100);
        let mut own = node();
        assert_eq!(health(&own, now), "up 1m 40s, 1.2 ms, certificate 3 d");
        assert_eq!(hindrance(&own, now), None);
        own.share = 30;
        assert!(health(&own, now).contains("30 % of its share"));
        assert!(hindrance(&own, now).unwrap().contains("coming back: 30 %"));
        own.state = State::Down;
        own.cause = Some(Cause::Check);
        own.share = 0;
        own.last.as_mut().unwrap().error = Some(String::from("connection refused"));
        assert_eq!(
            health(&own, now),
            "DOWN 1m 40s: connection refused, certificate 3 d"
        );
        assert_eq!(
            hindrance(&own, now).unwrap(),
            "down for 1m 40s: connection refused"
        );
        own.cause = Some(Cause::Clients);
        assert!(health(&own, now).contains("connections of clients failed"));
        own.operator = Operator::Drain;
        assert!(hindrance(&own, now).unwrap().contains("drained"));
        own.certificate_expires = Some(at(1_000));
        assert!(health(&own, now).ends_with("certificate EXPIRED"));
    }

    #[test]
    fn pools_in_words() {
        let mut own = PoolReport {
            name: String::from("k3s"),
            nodes: 3,
            available: 2,
            refusing: false,
        };
        assert_eq!(pool(&own), "2/3");
        own.available = 0;
        assert_eq!(pool(&own), "0/3 NONE LEFT");
        own.refusing = true;
        assert_eq!(pool(&own), "0/3 REFUSING");
    }
}
