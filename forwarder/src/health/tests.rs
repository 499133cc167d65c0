//! From findings to weights, refusals and what is reported.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config;
use crate::health::report::State;

const POOL: &str = r#"
[entrance]
public = ["eth0"]
tunnels = ["wg0"]
[[listener]]
name = "https"
protocol = "tls"
port = 443
[[route]]
names = ["*.example.org", "www.example.org"]
pool = "web"
[[pool]]
client_address = "transparent"
name = "web"
nodes = ["127.0.0.1:1", { address = "127.0.0.1:2", weight = 3 }, "127.0.0.1:3", "[::1]:1"]
"#;
const CHECKED: &str =
    "health = { interval = \"1d\" }\nwhen_empty = \"refuse\"\non_down = \"reset\"\n";

fn parse(more: &str) -> Config {
    let outcome = config::parse(Path::new("test.toml"), format!("{POOL}{more}"));
    outcome
        .config
        .unwrap_or_else(|| panic!("{}", outcome.report.render(false)))
}

fn watch(config: &Config) -> (Health, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let health = Health::new(config, folder.path().join("health.json"));
    (health, folder)
}

fn finding(node: usize, success: bool) -> Finding {
    let result = if success {
        Ok(())
    } else {
        Err(check::CheckError::Status(503))
    };
    let outcome = Outcome {
        result,
        took: Duration::from_millis(7),
        expires: None,
    };
    // Checkers are numbered from one, in the order of the nodes.
    let checker = node as u64 + 1;
    Finding { checker, outcome }
}

fn weights(health: &Health, config: &Config) -> Vec<u32> {
    let weights = health.weights(config);
    let pool = &config.pools[0];
    let of = |node| weights.of(pool, node);
    pool.nodes.iter().map(of).collect()
}

#[tokio::test]
async fn a_node_that_is_down_gets_nothing_and_the_others_keep_their_proportion() {
    let config = parse(CHECKED);
    let (mut health, _folder) = watch(&config);
    assert_eq!(weights(&health, &config), [1, 3, 1, 1]);
    let dead = health.checked(finding(0, false)).unwrap();
    assert_eq!((dead.pool.as_str(), dead.node.port()), ("web", 1));
    assert_eq!(weights(&health, &config), [0, 999, 333, 1]);
    assert_eq!(health.checked(finding(0, true)), None);
    assert_eq!(weights(&health, &config)[0], 0, "one success is too few");
    health.checked(finding(0, true));
    assert_eq!(weights(&health, &config), [1, 3, 1, 1]);
}

#[tokio::test]
async fn with_all_nodes_of_a_family_down_all_are_tried() {
    let config = parse(CHECKED);
    let (mut health, _folder) = watch(&config);
    for node in 0..3 {
        health.checked(finding(node, false));
    }
    assert_eq!(weights(&health, &config), [1, 3, 1, 1]);
    assert!(health.refused(&config).is_empty(), "one node is left");
    health.checked(finding(3, false));
    assert_eq!(health.refused(&config), BTreeSet::from(["web"]));
    health.checked(finding(1, true));
    health.checked(finding(1, true));
    assert!(health.refused(&config).is_empty());
    assert_eq!(weights(&health, &config), [0, 3 * 333, 0, 1]);
}

#[tokio::test]
async fn a_pool_that_tries_all_is_never_refused() {
    let config = parse("health = { interval = \"1d\" }");
    let (mut health, _folder) = watch(&config);
    for node in 0..4 {
        assert_eq!(health.checked(finding(node, false)), None, "flows are kept");
    }
    assert!(health.refused(&config).is_empty());
}

#[tokio::test]
async fn clients_connections_take_nodes_out_but_refuse_no_pool() {
    let config = parse("when_empty = \"refuse\"\non_down = \"reset\"\n");
    let (mut health, _folder) = watch(&config);
    let mut stats = HashMap::new();
    for node in &config.pools[0].nodes {
        let zero = bytes_zero();
        stats.insert(*node.address.get_ref(), zero);
    }
    health.poll(&stats);
    let first = *config.pools[0].nodes[0].address.get_ref();
    let failed = stats.get_mut(&first).unwrap();
    (failed.syn_timeouts, failed.syn_resets) = (1, 2);
    health.poll(&stats);
    assert_eq!(weights(&health, &config), [0, 999, 333, 1]);
    let report = health.report(&config);
    assert_eq!(report.nodes[0].state, State::Down);
    assert_eq!(report.nodes[0].cause, Some(Cause::Clients));
    assert_eq!(report.nodes[1].state, State::Unwatched);
    for stats in stats.values_mut() {
        stats.syn_timeouts += 3;
    }
    health.poll(&stats);
    assert!(
        health
            .report(&config)
            .nodes
            .iter()
            .all(|node| node.is_down())
    );
    assert_eq!(weights(&health, &config), [1, 3, 1, 1], "all are tried");
    assert!(health.refused(&config).is_empty(), "nothing checked them");
}

fn bytes_zero() -> NodeStats {
    NodeStats {
        syns: 0,
        syn_timeouts: 0,
        syn_resets: 0,
        accepted: 0,
        connect_us: 0,
        connect_buckets: [0; 16],
        strays: 0,
    }
}

#[tokio::test]
async fn what_a_daemon_knew_is_known_to_the_next_one() {
    let config = parse(CHECKED);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("health.json");
    let mut former = Health::new(&config, file.clone());
    former.checked(finding(2, false));
    former.save(&config);
    drop(former);
    let mut next = Health::new(&config, file);
    assert_eq!(weights(&next, &config), [333, 999, 0, 1]);
    next.checked(finding(2, true));
    assert_eq!(weights(&next, &config)[2], 0, "one success is too few");
    next.checked(finding(2, true));
    assert_eq!(weights(&next, &config), [1, 3, 1, 1]);
}

#[tokio::test]
async fn a_restart_does_not_let_one_failure_take_a_node_out() {
    let config = parse(CHECKED);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("health.json");
    let mut former = Health::new(&config, file.clone());
    former.checked(finding(1, true));
    former.save(&config);
    drop(former);
    let mut next = Health::new(&config, file);
    assert_eq!(next.report(&config).nodes[1].state, State::Up);
    for _ in 0..2 {
        assert_eq!(next.checked(finding(1, false)), None);
        assert_eq!(weights(&next, &config), [1, 3, 1, 1]);
    }
    assert!(next.checked(finding(1, false)).is_some(), "three in a row");
    assert_eq!(weights(&next, &config)[1], 0);
}

#[tokio::test]
async fn another_configuration_keeps_what_is_known() {
    let config = parse(CHECKED);
    let (mut health, _folder) = watch(&config);
    health.checked(finding(0, false));
    let fewer = parse(CHECKED);
    health.follow(&fewer);
    assert!(health.report(&config).nodes[0].is_down());
    assert_eq!(health.report(&config).nodes.len(), 4);
}

/// A node that accepts connections and says nothing, and a configuration that checks it by TLS.
async fn silent(more: &str) -> (tokio::net::TcpListener, Config) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let text = POOL.replace(
        "[\"127.0.0.1:1\", { address = \"127.0.0.1:2\", weight = 3 }, \"127.0.0.1:3\", \"[::1]:1\"]",
        &format!("[\"{open}\"]"),
    );
    let config = config::parse(Path::new("test.toml"), format!("{text}{more}"));
    (listener, config.config.unwrap())
}

#[tokio::test]
async fn a_check_under_way_outlives_changes_of_other_things() {
    let health = "health = { check = \"tls\", interval = \"100ms\", timeout = \"700ms\" }\n";
    let (_listener, config) = silent(health).await;
    let (mut health, _folder) = watch(&config);
    health.set_ways(Egresses::from([(
        "127.0.0.1".parse().unwrap(),
        String::from("lo"),
    )]));
    let mut edits = tokio::time::interval(Duration::from_millis(100));
    let begin = Instant::now();
    while !health.report(&config).nodes[0].is_down() {
        assert!(begin.elapsed() < Duration::from_secs(10), "up for ever");
        tokio::select! {
            finding = health.next() => drop(health.checked(finding)),
            _ = edits.tick() => health.follow(&config),
        }
    }
}

#[tokio::test]
async fn what_another_check_found_is_not_this_ones() {
    let tls = parse("health = { check = \"tls\", interval = \"1d\" }\n");
    let (mut health, _folder) = watch(&tls);
    let mut found = finding(0, true);
    found.outcome.expires = Some(SystemTime::UNIX_EPOCH);
    health.checked(found);
    let expiry = |health: &Health| health.report(&tls).nodes[0].certificate_expires;
    assert!(expiry(&health).is_some());
    health.follow(&tls);
    assert!(expiry(&health).is_some(), "nothing has changed");
    for other in [
        "health = { check = \"tls\", interval = \"1d\", server_name = \"other.example.org\" }\n",
        "health = { check = \"tcp\", interval = \"1d\" }\n",
        "",
    ] {
        let (mut health, _folder) = watch(&tls);
        let mut found = finding(0, true);
        found.outcome.expires = Some(SystemTime::UNIX_EPOCH);
        health.checked(found);
        health.follow(&parse(other));
        assert_eq!(expiry(&health), None, "{other}");
        // And what the former checker still sends is nobody's.
        let mut late = finding(0, true);
        late.outcome.expires = Some(SystemTime::UNIX_EPOCH);
        health.checked(late);
        assert_eq!(expiry(&health), None, "{other}");
    }
}

#[tokio::test]
async fn a_name_below_a_wildcard_stands_in_where_there_is_no_other() {
    let names = |routes: &str| {
        let text = POOL.replace("[\"*.example.org\", \"www.example.org\"]", routes);
        let config = config::parse(Path::new("test.toml"), format!("{text}health = {{}}"));
        checked_names(&config.config.unwrap())
    };
    let asked = |name: &str| [Some(name.to_owned())];
    assert_eq!(
        names("[\"*.example.org\", \"www.example.org\"]"),
        asked("www.example.org")
    );
    assert_eq!(
        names("[\"*\", \"*.apps.example.org\", \"*.example.org\"]"),
        asked("health-check.apps.example.org")
    );
    assert_eq!(names("[\"*\"]"), [None]);
    let label = "a".repeat(60);
    let long = format!("{label}.{label}.{label}.{label}.example");
    assert_eq!(names(&format!("[\"*.{long}\"]")), [None], "no room");
}

#[tokio::test]
async fn nodes_are_checked_and_found() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let text = POOL.replace("127.0.0.1:2", &format!("127.0.0.1:{open}"));
    let text = format!("{text}health = {{ interval = \"100ms\" }}\n");
    let config = config::parse(Path::new("test.toml"), text).config.unwrap();
    let (mut health, _folder) = watch(&config);
    let lo = |ip: &str| (ip.parse().unwrap(), String::from("lo"));
    health.set_ways(Egresses::from([lo("127.0.0.1"), lo("::1")]));
    for _ in 0..8 {
        let finding = tokio::time::timeout(Duration::from_secs(10), health.next()).await;
        health.checked(finding.unwrap());
    }
    let states: Vec<State> = health
        .report(&config)
        .nodes
        .iter()
        .map(|own| own.state)
        .collect();
    assert_eq!(states, [State::Down, State::Up, State::Down, State::Down]);
    let last = health.report(&config).nodes[0].last.clone().unwrap();
    let error = last.error.unwrap_or_default();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn shares_are_parts_of_the_weight() {
    let node = |last: u8| SocketAddr::from(([10, 0, 0, last], 443));
    let relative = |rows: &[(u32, u32)]| -> Vec<u16> {
        let rows = (1..)
            .zip(rows)
            .map(|(at, (weight, share))| (node(at), *weight, *share));
        let rows: Vec<_> = rows.collect();
        super::relative(&rows)
            .into_iter()
            .map(|(_, weight)| weight)
            .collect()
    };
    assert_eq!(relative(&[(1, 100), (1, 10)]), [1_000, 100]);
    assert_eq!(
        relative(&[(1_000, 100), (1, 10)]),
        [1_000, 1],
        "never 0 while it is up"
    );
    assert_eq!(relative(&[(2, 0), (4, 50)]), [0, 500]);
    assert!(relative(&[(2, 100), (4, 100)]).is_empty(), "as configured");
    assert!(
        relative(&[(2, 0), (4, 0)]).is_empty(),
        "none works: all are tried"
    );
    assert!(relative(&[]).is_empty());
}
