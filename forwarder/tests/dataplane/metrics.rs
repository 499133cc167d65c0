//! The metrics page: what stands in the maps stands on the page, once, under a name of the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::PerCpuValues;
use forwarder::config::model::Metrics;
use forwarder::dataplane::Dataplane;
use forwarder::dataplane::bpf::maps::{CounterMaps, FlowMaps};
use forwarder::dataplane::flows::expired::Expired;
use forwarder::dataplane::flows::sweep::Expiry;
use forwarder::instance::paths::Paths;
use forwarder::telemetry::counters::Tally;
use forwarder::telemetry::country::Country;
use forwarder::telemetry::metrics::server::Server;
use forwarder::telemetry::metrics::snapshot::Snapshot;
use forwarder::telemetry::metrics::{catalog, collect};
use forwarder::telemetry::readiness::Readiness;
use forwarder::xdp::report as xdp;
use forwarder_common::abi::{self, Flow, FlowKey, address_v4, state};
use forwarder_common::verdict::DropReason;

use crate::sandbox::{interfaces, sandboxed};
use crate::{TEXT, config, pins};

/// A data plane whose registry lies where `place` looks for it.
fn start(directory: &Path) -> (Dataplane, Paths) {
    start_with(directory, TEXT)
}

fn start_with(directory: &Path, text: &str) -> (Dataplane, Paths) {
    interfaces();
    let place = Paths::new(pins(directory).root(), directory.parent().unwrap());
    let config = config(text);
    let (mut dataplane, _) = Dataplane::open(
        forwarder::dataplane::bpf::object::OBJECT,
        &config,
        pins(directory),
        &place.registry(),
    )
    .unwrap();
    let destinations = forwarder::dataplane::plan::destinations(&config, dataplane.registry());
    let network = crate::sandbox::survey(&destinations);
    dataplane.apply(&config, &network).unwrap();
    dataplane.attach(&config, &network).unwrap();
    (dataplane, place)
}

/// A value for each processor, with `value` on the first two.
fn on_two<T: aya::Pod>(zero: T, value: T) -> PerCpuValues<T> {
    let mut all = vec![zero; aya::util::nr_cpus().unwrap()];
    for own in all.iter_mut().take(2) {
        *own = value;
    }
    PerCpuValues::try_from(all).unwrap()
}

fn processors() -> u64 {
    aya::util::nr_cpus().unwrap().min(2) as u64
}

/// What a daemon has counted for a while.
fn tally() -> Arc<Tally> {
    let tally = Tally::default();
    tally.opened.count(Country::from_code("DE"));
    tally.opened.count(Country::from_code("DE"));
    tally.refused.count(None);
    tally.databases_loaded(BTreeMap::from([("country", 1_760_000_000)]));
    tally.configured(0xffff_ffff_ffff);
    tally.reloaded(false);
    tally.flow_log.beyond_rate.add(9);
    Arc::new(tally)
}

fn page(place: &Paths) -> BTreeMap<String, f64> {
    let text = collect::page(Snapshot::read(place).unwrap(), true, tally(), u32::MAX).unwrap();
    assert!(text.ends_with("# EOF\n"));
    series(&text)
}

/// Series and values; panics where one stands twice.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let twice = all.insert(name.to_owned(), value.parse().unwrap());
        assert_eq!(twice, None, "{name} stands twice");
    }
    all
}

const FIRST: &str = r#"{listener="https",route="www.example.org",pool="k3s",node="10.0.0.2:443""#;

#[test]
fn what_the_maps_hold_is_on_the_page() {
    sandboxed(|directory| {
        let (_dataplane, place) = start(directory);
        let mut counters = CounterMaps::open(&pins(directory)).unwrap();
        let zero = counters.paths.get(&0, 0).unwrap()[0];
        let path = abi::PathStats {
            opened: 5,
            closed: 2,
            reset: 1,
            failed: 3,
            up_bytes: 1_000,
            down_packets: 7,
            ..zero
        };
        counters.paths.set(0, on_two(zero, path), 0).unwrap();
        let zero = counters.nodes.get(&0, 0).unwrap()[0];
        let mut node = zero;
        node.connect_us = 1_500;
        node.connect_buckets[0] = 1;
        node.connect_buckets[2] = 1;
        node.connect_buckets[15] = 1;
        counters.nodes.set(0, on_two(zero, node), 0).unwrap();
        let zero = counters.listeners.get(&0, 0).unwrap()[0];
        let listener = abi::ListenerStats {
            cookies: 40,
            cookies_invalid: 9,
            hello_ms: 2_500,
            ..zero
        };
        counters
            .listeners
            .set(0, on_two(zero, listener), 0)
            .unwrap();
        for (reason, count) in [(DropReason::UnlistedName, 6), (DropReason::Fragment, 8)] {
            let values = on_two(0, count);
            counters.drops.set(reason as u32, values, 0).unwrap();
        }
        let mut expired = Expired::open(&pins(directory)).unwrap();
        expired.count(0, Expiry::Unanswered).unwrap();
        let mut state = FlowMaps::open(&pins(directory)).unwrap();
        for port in 0..3 {
            let key = FlowKey {
                client: address_v4([198, 51, 100, 4]),
                port_be: port,
                vip: 0,
            };
            // SAFETY: integers only: zeros are a flow.
            let mut flow: Flow = unsafe { std::mem::zeroed() };
            flow.state = state::SPLICED;
            flow.client_address = abi::client_address::PROXY_V2;
            state.flows.insert(key, flow, 0).unwrap();
        }

        let page = page(&place);
        let n = processors() as f64;
        let is = |name: &str, value: f64| assert_eq!(page.get(name), Some(&value), "{name}");
        is(
            &format!("forwarder_connections_opened_total{FIRST}}}"),
            5.0 * n,
        );
        is(
            &format!("forwarder_connections_ended_total{FIRST},result=\"finished\"}}"),
            2.0 * n,
        );
        is(
            &format!("forwarder_connections_ended_total{FIRST},result=\"failed\"}}"),
            3.0 * n + 1.0,
        );
        is(
            &format!("forwarder_traffic_bytes_total{FIRST},direction=\"up\"}}"),
            1_000.0 * n,
        );
        is(
            &format!("forwarder_traffic_packets_total{FIRST},direction=\"down\"}}"),
            7.0 * n,
        );
        is(&format!("forwarder_flows{FIRST},state=\"spliced\"}}"), 3.0);
        is(
            &format!("forwarder_flows{FIRST},state=\"connecting\"}}"),
            0.0,
        );
        is(
            r#"forwarder_cookies_sent_total{listener="https"}"#,
            40.0 * n,
        );
        is(
            r#"forwarder_cookies_checked_total{listener="https",result="failed"}"#,
            9.0 * n,
        );
        is(
            r#"forwarder_hello_duration_seconds_total{listener="https"}"#,
            2.5 * n,
        );
        is(
            r#"forwarder_refusals_total{reason="unlisted_name"}"#,
            6.0 * n,
        );
        is(
            r#"forwarder_packets_dropped_total{reason="fragment"}"#,
            8.0 * n,
        );
        is(r#"forwarder_map_entries{map="FLOWS"}"#, 3.0);
        is(r#"forwarder_map_entries{map="SOURCE_PORTS"}"#, 3.0);
        is(r#"forwarder_map_capacity{map="FLOWS"}"#, 256.0);
        is(r#"forwarder_map_entries{map="NODE_INDEX"}"#, 2.0);
        is(r#"forwarder_node_reachable{node="10.0.0.3:443"}"#, 1.0);
        is(r#"forwarder_node_mtu_bytes{node="10.0.0.3:443"}"#, 1_420.0);
        is(r#"forwarder_attached{interface="pub0",side="public"}"#, 1.0);
        let bucket = |le: &str| {
            format!(
                r#"forwarder_node_connect_duration_seconds_bucket{{le="{le}",node="10.0.0.2:443"}}"#
            )
        };
        is(&bucket("0.00025"), n);
        is(&bucket("0.0005"), n);
        is(&bucket("0.001"), 2.0 * n);
        is(&bucket("+Inf"), 3.0 * n);
        is(
            r#"forwarder_node_connect_duration_seconds_sum{node="10.0.0.2:443"}"#,
            0.0015 * n,
        );
        is(
            r#"forwarder_node_connect_duration_seconds_count{node="10.0.0.2:443"}"#,
            3.0 * n,
        );
        assert!(page[r#"forwarder_map_memory_bytes{map="FLOWS"}"#] >= 256.0 * 56.0);
        assert!(page["process_resident_memory_bytes"] > 1e5);
        is(
            r#"forwarder_connections_opened_by_country_total{country="DE"}"#,
            2.0,
        );
        is(
            r#"forwarder_connections_refused_by_country_total{country="unknown"}"#,
            1.0,
        );
        is(r#"forwarder_flow_log_dropped_total{cause="rate"}"#, 9.0);
        is(r#"forwarder_config_reloads_total{result="refused"}"#, 1.0);
        is("forwarder_config_last_reload_successful", 0.0);
        is("forwarder_config_hash", 281_474_976_710_655.0);
        assert!(page["forwarder_config_last_reload_success_timestamp_seconds"] > 1.7e9);
    });
}

/// What a daemon leaves beside the registry when it has checked a node behind WireGuard.
const HEALTH: &str = r#"{
  "nodes": [{
    "pool": "web", "name": "10.0.0.2:443", "address": "10.0.0.2:443", "operator": "ready", "state": "up",
    "cause": null, "share": 100, "since": 1700000000, "last": { "at": 1700000000, "ms": 3, "error": null },
    "certificate_expires": 1800000000, "counts": { "passed": 1, "failed": 2, "ups": 3, "downs": 4 }
  }],
  "pools": [{ "name": "web", "nodes": 1, "available": 1, "refusing": false }],
  "tunnels": [{
    "interface": "wg0", "source": "kernel", "unknown": null,
    "nodes": [{
      "node": "10.0.0.2:443", "address": "10.0.0.2",
      "peer": { "last_handshake": 1700000000, "endpoint": null, "rx_bytes": 1, "tx_bytes": 1, "silent": false }
    }]
  }]
}"#;

#[test]
fn every_metric_of_the_catalog_is_written_and_no_other() {
    sandboxed(|directory| {
        let (_dataplane, place) = start(directory);
        std::fs::write(place.health(), HEALTH).unwrap();
        let mut xdp = xdp::Report::default();
        xdp.entry("eth0").attached_now = true;
        xdp.save(&place.xdp()).unwrap();
        let suffixes = ["", "_bucket", "_sum", "_count"];
        let mut written = BTreeSet::new();
        for name in page(&place).keys() {
            let name = name.split('{').next().unwrap();
            let known = catalog::ALL.iter().map(|metric| metric.name());
            let known = known
                .filter(|known| suffixes.iter().any(|end| format!("{known}{end}") == *name))
                .max_by_key(String::len);
            written.insert(known.unwrap_or_else(|| panic!("{name} is not in the catalog")));
        }
        let all: BTreeSet<_> = catalog::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(written, all);
    });
}

/// Tables are read by buckets, not entry by entry, and on a thread of their own. The bound leaves room for a test
/// build on a busy machine; `--nocapture` shows the figure.
#[test]
fn a_hundred_thousand_flows_do_not_make_a_scrape_slow() {
    const FLOWS: u32 = 100_000;
    sandboxed(|directory| {
        let text = TEXT.replace("max_flows = 256", "max_flows = 131072");
        let (_dataplane, place) = start_with(directory, &text);
        let empty = Snapshot::read(&place).unwrap().took;
        let mut state = FlowMaps::open(&pins(directory)).unwrap();
        for number in 0..FLOWS {
            let client = address_v4((0x0a00_0000 + number).to_be_bytes());
            let key = FlowKey {
                client,
                port_be: 7,
                vip: 0,
            };
            // SAFETY: integers only: zeros are a flow.
            let mut flow: Flow = unsafe { std::mem::zeroed() };
            flow.state = state::SPLICED;
            state.flows.insert(key, flow, 0).unwrap();
        }
        let begin = Instant::now();
        let snapshot = Snapshot::read(&place).unwrap();
        let read = begin.elapsed();
        let text = collect::page(snapshot, true, tally(), u32::MAX).unwrap();
        let whole = begin.elapsed();
        eprintln!("no flow: {empty:?}; {FLOWS} flows: {read:?}, with its page {whole:?}");
        let page = series(&text);
        assert_eq!(
            page[r#"forwarder_map_entries{map="FLOWS"}"#],
            f64::from(FLOWS)
        );
        assert!(read < Duration::from_secs(2), "{read:?}");
    });
}

/// Sends a request and returns status line, headers and body.
fn ask(at: SocketAddr, request: &str) -> std::io::Result<String> {
    ask_for(at, request, "accept: */*")
}

fn ask_for(at: SocketAddr, request: &str, header: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: x\r\n{header}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn the_server_tells_metrics_health_and_readiness() {
    sandboxed(|directory| {
        let (_dataplane, place) = start(directory);
        let pulse = Arc::new(Readiness::default());
        let at: SocketAddr = "127.0.0.1:9469".parse().unwrap();
        // On this thread, because the network namespace is this thread's.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let shared = pulse.clone();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let mut server = Server::new(place, shared.clone(), tally());
            server.listen(wanted(Some(at)));
            let ask = |request: &'static str| in_this_namespace(move || ask(at, request));
            let metrics = loop {
                if let Ok(answer) = ask("GET /metrics").await {
                    break answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(status(&metrics), "200");
            assert!(metrics.contains("content-type: text/plain; version=0.0.4"));
            assert!(metrics.contains("\n# TYPE forwarder_refusals_total counter\n"));
            assert!(!metrics.contains("# EOF"), "{metrics}");
            let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1";
            let open = in_this_namespace(move || ask_for(at, "GET /metrics", accept));
            let open = open.await.unwrap();
            assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"));
            assert!(open.contains("\n# TYPE forwarder_refusals counter\n"));
            assert!(open.ends_with("# EOF\n"), "{open}");
            assert!(metrics.contains("\nforwarder_ready 0\n"), "{metrics}");
            assert_eq!(status(&ask("GET /healthz").await.unwrap()), "200");
            let answer = ask("GET /readyz").await.unwrap();
            assert_eq!(status(&answer), "503");
            assert!(answer.ends_with("not started yet\n"), "{answer}");
            shared.in_step(&[], &[]);
            assert_eq!(status(&ask("GET /readyz").await.unwrap()), "200");
            assert!(
                ask("GET /metrics")
                    .await
                    .unwrap()
                    .contains("\nforwarder_ready 1\n")
            );
            assert_eq!(status(&ask("GET /").await.unwrap()), "404");
            assert_eq!(status(&ask("POST /metrics").await.unwrap()), "405");

            server.listen(wanted(None));
            let deadline = Instant::now() + Duration::from_secs(5);
            while ask("GET /healthz").await.is_ok() {
                assert!(Instant::now() < deadline, "it still answers");
            }
        });
    });
}

/// Blocks a thread that has the namespace of the one it is called on.
async fn in_this_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // A new thread inherits the namespaces of the one that makes it.
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    result.await.unwrap()
}

fn wanted(listen: Option<SocketAddr>) -> Metrics {
    Metrics {
        listen,
        max_targets: u32::MAX,
    }
}
