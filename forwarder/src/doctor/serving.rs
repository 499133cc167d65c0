//! What the daemon knows of nodes and pools: whom it holds down, and whose clients it turns away.

use std::time::SystemTime;

use serde::Deserialize;

use super::catalog::Code;
use super::finding::{Finding, Fix};
use crate::config::model::NodeState;
use crate::control::client::Client;
use crate::health::report::NodeReport;
use crate::health::words;
use crate::instance::paths::Paths;

/// The answer of `GET /v1/pools`, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Answer {
    pools: Vec<Pool>,
}

#[derive(Debug, Deserialize)]
struct Pool {
    name: String,
    /// Nodes that take new connections; `null` before the daemon has said so.
    available: Option<usize>,
    refusing: Option<bool>,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    state: NodeState,
    health: Option<NodeReport>,
}

/// Findings about nodes and pools of the daemon at `place`, which runs.
pub fn judge(place: &Paths) -> Vec<Finding> {
    let asked = Client::new(&place.control()).ask::<Answer>("GET", "/v1/pools", None);
    match asked {
        Ok(answer) => findings(&answer, SystemTime::now()),
        Err(error) => vec![Finding::skipped(Code::NodeDown, "", error.to_string())],
    }
}

fn findings(answer: &Answer, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &answer.pools {
        let nodes = pool.nodes.iter();
        findings.extend(nodes.filter_map(|node| held(pool, node, now)));
        findings.push(serves(pool));
    }
    findings
}

/// What speaks against a node.
fn held(pool: &Pool, node: &Node, now: SystemTime) -> Option<Finding> {
    let health = node.health.as_ref()?;
    let subject = format!("{}/{}", pool.name, node.name);
    if health.answers_lost {
        let finding = Finding::failure(Code::TransparentReturn, subject, words::ANSWERS_LOST);
        return Some(
            finding
                .fix(Fix::node(
                    "`AllowedIPs = 0.0.0.0/0, ::/0` with `Table = off` for the entrance's peer, and the return route of docs/node-transparent.md",
                ))
                .fix(Fix::advice(
                    "or `client_address = \"proxy-v2\"` in the pool, if the node's server reads PROXY protocol",
                )),
        );
    }
    if node.state == NodeState::Maint || !health.is_down() {
        return None;
    }
    let seen = format!(
        "the daemon sends it no new connections: {}",
        words::health(health, now)
    );
    Some(
        Finding::failure(Code::NodeDown, subject, seen).fix(Fix::node(
            "its server and its tunnel, see what is said of it above",
        )),
    )
}

fn serves(pool: &Pool) -> Finding {
    let (name, nodes) = (pool.name.as_str(), pool.nodes.len());
    let Some(available) = pool.available else {
        let why = "the daemon has not said yet";
        return Finding::skipped(Code::PoolEmpty, name, why);
    };
    if available > 0 {
        let seen = format!("{available} of {nodes} take new connections");
        return Finding::ok(Code::PoolEmpty, name, seen);
    }
    let follows = if pool.refusing == Some(true) {
        "new connections are refused at once"
    } else {
        "every node is tried all the same"
    };
    let seen = format!("none of its nodes takes new connections; {follows}");
    let mut finding = Finding::failure(Code::PoolEmpty, name, seen);
    let out = |own: &&Node| own.state != NodeState::Ready;
    if let Some(node) = pool.nodes.iter().find(out) {
        finding = finding.fix(Fix::here(format!("forwarder node ready {}", node.name)));
    }
    finding.fix(Fix::advice("bring a node back: see what is said of each"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Verdict;
    use super::*;

    fn node(name: &str, state: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut health = json!({
            "pool": "web", "name": name, "address": "10.0.0.2:443", "operator": state, "state": "up",
            "cause": null, "share": 100, "since": 1_700_000_000, "certificate_expires": null,
            "last": {"at": 1_700_000_009, "ms": 1.5, "error": null},
        });
        change(&mut health);
        json!({"name": name, "state": state, "health": health})
    }

    fn judged(available: usize, refusing: bool, nodes: &[Value]) -> Vec<(Verdict, Code, String)> {
        let answer = json!({"pools": [
            {"name": "web", "available": available, "refusing": refusing, "nodes": nodes}
        ]});
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let found = findings(&answer, SystemTime::now());
        let found = found.into_iter();
        found.map(|own| (own.verdict, own.code, own.seen)).collect()
    }

    #[test]
    fn what_the_daemon_holds_against_nodes_is_a_failure() {
        let down = |health: &mut Value| {
            health["state"] = json!("down");
            health["cause"] = json!("check");
            health["last"]["error"] = json!("HTTP status 503");
        };
        let sound = node("a", "ready", |_| {});
        let found = judged(1, false, std::slice::from_ref(&sound));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, Verdict::Ok);
        let found = judged(1, false, &[sound.clone(), node("b", "ready", down)]);
        assert_eq!((found[0].0, found[0].1), (Verdict::Failure, Code::NodeDown));
        assert!(found[0].2.contains("HTTP status 503"), "{found:?}");
        assert_eq!(found[1].0, Verdict::Ok);
        let found = judged(1, false, &[sound, node("b", "maint", down)]);
        assert_eq!(found.len(), 1, "switched off on purpose: {found:?}");
        let found = judged(0, true, &[node("b", "ready", down)]);
        assert_eq!(
            (found[1].0, found[1].1),
            (Verdict::Failure, Code::PoolEmpty)
        );
        assert!(found[1].2.contains("refused"), "{found:?}");
    }

    #[test]
    fn answers_that_do_not_come_back_are_a_failure() {
        let lost = node("a", "ready", |health| health["answers_lost"] = json!(true));
        let found = judged(1, false, &[lost]);
        let (verdict, code, seen) = &found[0];
        assert_eq!(
            (*verdict, *code),
            (Verdict::Failure, Code::TransparentReturn)
        );
        assert!(seen.contains("AllowedIPs"), "{seen}");
    }
}
