//! Every metric: its name, unit, type, labels and what it means. `docs/metrics.md` is made of this list.
//!
//! Names follow Prometheus' rules: base units, the unit in the name, `_total` on counters (both are added
//! where a metric is written). Labels are words of the configuration or of enumerations, never anything a
//! client sent.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What is counted or measured.
#[derive(Debug)]
pub struct Metric {
    /// Its name without unit and suffix.
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
    /// Heading in the documentation.
    section: &'static str,
}

impl Metric {
    /// Its name without unit and suffix, as the encoder wants it.
    pub fn base(&self) -> &'static str {
        self.name
    }

    /// Its unit.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Its type.
    pub fn kind(&self) -> MetricType {
        self.kind
    }

    /// Its labels, in the order in which values are given.
    pub fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    /// What it means.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Heading in the documentation.
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// Its name as it is scraped; a histogram's has `_bucket`, `_sum` and `_count` added.
    pub fn name(&self) -> String {
        let mut name = self.name.to_owned();
        if let Some(unit) = &self.unit {
            name.push('_');
            name.push_str(unit.as_str());
        }
        match self.kind {
            MetricType::Counter => name.push_str("_total"),
            MetricType::Info => name.push_str("_info"),
            _ => {}
        }
        name
    }
}

/// Labels of what is counted by path.
const PATH: &[&str] = &["listener", "route", "pool", "node"];

/// Labels of a node of a pool.
const NODE: &[&str] = &["pool", "node"];

macro_rules! metrics {
    ($($section:literal { $($constant:ident: $kind:ident $name:literal $([$unit:ident])? ($labels:expr) $help:literal;)+ })+) => {
        $($(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name,
                unit: metrics!(@unit $($unit)?),
                kind: MetricType::$kind,
                labels: $labels,
                help: $help,
                section: $section,
            };
        )+)+

        /// All of them, in the order in which they are written.
        pub static ALL: &[&Metric] = &[$($(&$constant,)+)+];
    };
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
}

metrics! {
    "Connections" {
        CONNECTIONS_OPENED: Counter "forwarder_connections_opened" (PATH)
            "Connections that a node accepted.";
        CONNECTIONS_ENDED: Counter "forwarder_connections_ended" (&["listener", "route", "pool", "node", "result"])
            "Connections that ended. Result: `finished` (FIN both ways), `reset`, `idle` (silent for longer than `idle_timeout`), `failed` (no node accepted it; it was never opened).";
        FLOWS: Gauge "forwarder_flows" (&["listener", "route", "pool", "node", "state"])
            "Entries of the flow table. State: `connecting` (the node has not answered), `replaying` (it has not acknowledged the hello), `spliced`.";
        TRAFFIC_BYTES: Counter "forwarder_traffic" [Bytes] (&["listener", "route", "pool", "node", "direction"])
            "Bytes forwarded, of whole packets from the IP header on. Direction: `up` (client to node), `down`.";
        TRAFFIC_PACKETS: Counter "forwarder_traffic_packets" (&["listener", "route", "pool", "node", "direction"])
            "Packets forwarded, as the data path sees them: one may be a train of segments that the kernel merged. Direction: `up` (client to node), `down`.";
        REPLAYS: Counter "forwarder_hello_replays" (PATH)
            "Times a hello, or the rest of one, was sent to the node: once for each connection it accepted, and again where something was lost.";
        TARGETS: Gauge "forwarder_targets" (&[])
            "Targets: combinations of listener, route, pool and node that the configuration or a flow uses.";
        TARGET_LABELS: Gauge "forwarder_target_labels" (&[])
            "Labels that tell targets apart on this page: 4, or fewer where there are more targets than `[metrics] max_targets`. Then `route` is left empty first, then `node`, then `pool`, and the metrics above are sums.";
    }
    "Before the connection" {
        LISTENER_SYNS: Counter "forwarder_listener_syns" (&["listener"])
            "SYNs from clients.";
        COOKIES_SENT: Counter "forwarder_cookies_sent" (&["listener"])
            "SYN cookies sent.";
        COOKIES_CHECKED: Counter "forwarder_cookies_checked" (&["listener", "result"])
            "First data of connections not known yet. Result: `accepted` (it carried a valid cookie), `failed`.";
        HELLOS: Counter "forwarder_hellos" (&["listener"])
            "ClientHellos read to the end.";
        HELLO_BYTES: Counter "forwarder_hello" [Bytes] (&["listener"])
            "Bytes of the ClientHellos read to the end.";
        HELLO_SEGMENTS: Counter "forwarder_hello_segments" (&["listener"])
            "TCP segments in which the ClientHellos read to the end came.";
        HELLO_SECONDS: Counter "forwarder_hello_duration" [Seconds] (&["listener"])
            "Time from first to last segment of the ClientHellos read to the end, summed.";
        LISTENER_ROUTED: Counter "forwarder_listener_routed" (&["listener"])
            "Connections whose name is listed and for which a node was chosen.";
        LISTENER_REFUSED: Counter "forwarder_listener_refused" (&["listener"])
            "Connections refused.";
        LISTENER_PACKETS: Counter "forwarder_listener_packets" (&["listener"])
            "Packets from clients to the listener's addresses and port, forwarded or not.";
        LISTENER_BYTES: Counter "forwarder_listener" [Bytes] (&["listener"])
            "Bytes of the packets from clients to the listener's addresses and port, forwarded or not.";
    }
    "Refusals and drops" {
        REFUSALS: Counter "forwarder_refusals" (&["reason"])
            "Connections that were not forwarded, by reason.";
        PACKETS_DROPPED: Counter "forwarder_packets_dropped" (&["reason"])
            "Packets that were not forwarded, by reason. Some belong to any healthy handshake, like `absorbed`.";
    }
    "Countries" {
        OPENED_BY_COUNTRY: Counter "forwarder_connections_opened_by_country" (&["country"])
            "Connections that a node accepted, by the client's country: two letters (ISO 3166-1), or `unknown`. Counted by the daemon, anew with each start, and only with `[geoip] country`.";
        REFUSED_BY_COUNTRY: Counter "forwarder_connections_refused_by_country" (&["country"])
            "Connections refused, by the client's country: two letters (ISO 3166-1), or `unknown`. Counted by the daemon, anew with each start, and only with `[geoip] country`.";
        GEOIP_BUILT: Gauge "forwarder_geoip_build_timestamp" [Seconds] (&["database"])
            "When the database in use was built, seconds since 1970. Database: `country`, `asn`.";
    }
    "Nodes" {
        NODE_REACHABLE: Gauge "forwarder_node_reachable" (&["node"])
            "Whether the way to the node leads through a tunnel that is up: 1 or 0. It says nothing about the node itself.";
        NODE_MTU: Gauge "forwarder_node_mtu" [Bytes] (&["node"])
            "MTU of the way to the node; 0 while there is none.";
        NODE_SYNS: Counter "forwarder_node_syns" (&["node"])
            "SYNs sent to the node.";
        NODE_SYN_TIMEOUTS: Counter "forwarder_node_syn_timeouts" (&["node"])
            "SYNs that the node left unanswered so that another was tried.";
        NODE_SYN_RESETS: Counter "forwarder_node_syn_resets" (&["node"])
            "SYNs that the node answered with a reset.";
        NODE_CONNECT: Histogram "forwarder_node_connect_duration" [Seconds] (&["node"])
            "Time from the SYN to the node's answer, of the connections it accepted.";
        NODE_STRAYS: Counter "forwarder_node_strays" (&["node"])
            "Segments from the node that belonged to no connection of its own.";
    }
    "Health" {
        NODE_UP: Gauge "forwarder_node_up" (NODE)
            "Whether the node is taken to work: 1 or 0. One that nothing checks is, until connections of clients fail.";
        NODE_HEALTH: Gauge "forwarder_node_health" (&["pool", "node", "state"])
            "1 for the state the node is in, 0 for the others. State: `up`, `down`, `unchecked` (its first check has not ended), `unwatched` (it has no checks, and nothing speaks against it).";
        NODE_HEALTH_SINCE: Gauge "forwarder_node_health_since_timestamp" [Seconds] (NODE)
            "When the node's health changed last, seconds since 1970.";
        NODE_HEALTH_CHANGES: Counter "forwarder_node_health_changes" (&["pool", "node", "state"])
            "Times the node was taken out (`down`) and came back (`up`).";
        NODE_OPERATOR: Gauge "forwarder_node_operator_state" (&["pool", "node", "state"])
            "1 for what the operator decided, 0 for the others. State: `ready`, `drain`, `maint`.";
        NODE_ANSWERS_LOST: Gauge "forwarder_node_answers_lost" (NODE)
            "Whether the node of a `transparent` pool answers its checks, but its answers to clients do not come back: 1 or 0. Its AllowedIPs or its return route are wrong.";
        NODE_SHARE: Gauge "forwarder_node_share_ratio" (NODE)
            "Share of new connections by health, of what the node's weight says: 0 while it is down, below 1 while it comes back (`slow_start`).";
        NODE_CHECKS: Counter "forwarder_node_checks" (&["pool", "node", "result"])
            "Checks that ended. Result: `success`, `failure`.";
        NODE_CHECK_SECONDS: Gauge "forwarder_node_check_duration" [Seconds] (NODE)
            "Time that the last check took, failed or not.";
        NODE_CHECK_TIME: Gauge "forwarder_node_check_timestamp" [Seconds] (NODE)
            "When the last check ended, seconds since 1970.";
        NODE_CERTIFICATE: Gauge "forwarder_node_certificate_expiry_timestamp" [Seconds] (NODE)
            "When the certificate that the node showed to its check expires, seconds since 1970. Only where checks speak TLS.";
        POOL_NODES: Gauge "forwarder_pool_nodes" (&["pool"])
            "Nodes of the pool.";
        POOL_AVAILABLE: Gauge "forwarder_pool_nodes_available" (&["pool"])
            "Nodes of the pool that work and that their operator lets take new connections.";
        POOL_REFUSING: Gauge "forwarder_pool_refusing" (&["pool"])
            "Whether new connections are refused because no node works (`when_empty = \"refuse\"`): 1 or 0.";
    }
    "Tunnels" {
        TUNNEL_KNOWN: Gauge "forwarder_tunnel_peers_known" (&["interface"])
            "Whether the tunnel tells about its peers: 1 (WireGuard of the kernel, or of a program that answers at its socket) or 0 (others, like Tailscale).";
        TUNNEL_HANDSHAKE: Gauge "forwarder_tunnel_last_handshake_timestamp" [Seconds] (&["interface", "node"])
            "Last handshake of the WireGuard peer that leads to the node, seconds since 1970; 0: never. Missing where it is not known. WireGuard shakes hands only while there is something to send, so age alone is no fault.";
        TUNNEL_SILENT: Gauge "forwarder_tunnel_peer_silent" (&["interface", "node"])
            "Whether the peer that leads to the node is sent to although its last handshake is more than 180 seconds ago: 1 or 0.";
    }
    "Kernel side" {
        ATTACHED: Gauge "forwarder_attached" (&["interface", "side"])
            "1 for each interface that programs are attached to. Side: `public`, `tunnel`.";
        REATTACHED: Counter "forwarder_reattached" (&[])
            "Times a program was found detached by somebody else, and was attached again.";
        XDP_MODE: Gauge "forwarder_xdp_mode" (&["mode"])
            "1 for what `[entrance] xdp` says, 0 for the others. Mode: `auto`, `on`, `off`.";
        XDP_ATTACHED: Gauge "forwarder_xdp_attached" (&["interface"])
            "Whether a public interface has the XDP filter attached, the program against floods: 1 or 0.";
        XDP_CHANGES: Counter "forwarder_xdp_changes" (&["interface", "to"])
            "Times the XDP filter was attached or detached. To: `attached`, `detached`, `refused` (by the driver).";
        XDP_PACKETS: Counter "forwarder_xdp_packets" (&["verdict"])
            "Frames the XDP filter saw, over all interfaces. Verdict: `foreign` (not of a claimed address), `flow` (of an open flow), `handed_on` (a hello, or worth a closer look), `answered` (a SYN, with a cookie), `dropped`.";
        MAP_ENTRIES: Gauge "forwarder_map_entries" (&["map"])
            "Entries in use, of maps that can become full while connections come in. `SOURCE_PORTS`: ports that connections use. Names are not among them: what does not fit is refused before it is written.";
        MAP_CAPACITY: Gauge "forwarder_map_capacity" (&["map"])
            "Entries that fit into the map.";
        MAP_MEMORY: Gauge "forwarder_map_memory" [Bytes] (&["map"])
            "Memory the kernel accounts to the map.";
    }
    "Events and flow log" {
        EVENTS: Counter "forwarder_events" (&["kind"])
            "Events that the daemon got from the kernel programs or found by sweeping, since it started. Kind: `opened`, `closed`, `refused`.";
        EVENTS_LOST: Counter "forwarder_events_lost" (&["where"])
            "Events that somebody did not get. Where: `ring` (they did not fit into the ring of the kernel programs, because the daemon was away or too slow), `follower` (one who follows events on the control socket was too slow; since the daemon started).";
        FLOW_LOG_LINES: Counter "forwarder_flow_log_lines" (&[])
            "Lines of the flow log that were written, since the daemon started.";
        FLOW_LOG_DROPPED: Counter "forwarder_flow_log_dropped" (&["cause"])
            "Lines of the flow log that were not written, since the daemon started. Cause: `rate` (more than `[flow_log] rate` allows), `backlog` (they came faster than the destination takes them), `error` (the destination cannot be written to).";
    }
    "Configuration" {
        RELOADS: Counter "forwarder_config_reloads" (&["result"])
            "Reloads of the configuration, since the daemon started. Result: `applied`, `refused` (the former one stayed in use).";
        RELOAD_SUCCESSFUL: Gauge "forwarder_config_last_reload_successful" (&[])
            "Whether the last reload succeeded: 1 or 0. 1 before the first.";
        RELOAD_TIME: Gauge "forwarder_config_last_reload_success_timestamp" [Seconds] (&[])
            "When the configuration in use was read, seconds since 1970.";
        CONFIG_HASH: Gauge "forwarder_config_hash" (&[])
            "The first 48 bits of the SHA-256 of the configuration file in use, as a number.";
        CONFIG_EDITS: Gauge "forwarder_config_edits" (&[])
            "Edits at run time that the configuration file does not hold. The next reload undoes those of routes; states and weights of nodes go on.";
    }
    "Daemon" {
        LAST_SWEEP: Gauge "forwarder_last_sweep_timestamp" [Seconds] (&[])
            "When the flow table was last looked through for flows to end, seconds since 1970: every 10 seconds. Before the first time, when the daemon started.";
        CHECKS_OVERDUE: Gauge "forwarder_health_checks_overdue" (&[])
            "Nodes of pools whose check is overdue: none has ended for three times `interval` and `timeout`, and ten seconds more.";
        BUILD: Info "forwarder_build" (&["version", "abi"])
            "Version of the daemon, and of the layout of the maps.";
        READY: Gauge "forwarder_ready" (&[])
            "Whether `/readyz` answers 200: 1 or 0.";
        SCRAPE_SECONDS: Gauge "forwarder_scrape_duration" [Seconds] (&[])
            "Time it took to read the maps for this page.";
        PROCESS_START: Gauge "process_start_time" [Seconds] (&[])
            "Start of the daemon, seconds since 1970. The counters above are older: they live in the kernel and outlive the daemon.";
        PROCESS_CPU: Counter "process_cpu" [Seconds] (&[])
            "Processor time of the daemon. The data path's is not in it.";
        PROCESS_RSS: Gauge "process_resident_memory" [Bytes] (&[])
            "Resident memory of the daemon.";
        PROCESS_FDS: Gauge "process_open_fds" (&[])
            "Open file descriptors of the daemon.";
        PROCESS_MAX_FDS: Gauge "process_max_fds" (&[])
            "File descriptors the daemon may open.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name();
            assert!(names.insert(name.clone()), "{name} stands twice");
            let mut letters = name.bytes();
            assert!(
                letters.all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            let prefixed = name.starts_with("forwarder_") || name.starts_with("process_");
            assert!(prefixed, "{name}");
            // The suffix is added, and no other unit than a base unit is written into a name.
            for word in [
                "_total", "_info", "_bytes", "_seconds", "_ms", "_us", "_count", "_sum",
            ] {
                assert!(!metric.base().ends_with(word), "{name}");
            }
            assert!(metric.help().ends_with('.'), "{name}");
            assert!(!metric.help().contains('\n'), "{name}");
        }
    }

    #[test]
    fn labels_are_words_of_configuration_and_code() {
        let known = [
            "listener",
            "route",
            "pool",
            "node",
            "result",
            "state",
            "direction",
            "reason",
            "interface",
            "side",
            "map",
            "country",
            "database",
            "kind",
            "where",
            "cause",
            "version",
            "abi",
            "to",
            "verdict",
            "mode",
        ];
        for metric in ALL {
            for label in metric.labels() {
                assert!(known.contains(label), "{} of {}", label, metric.name());
            }
        }
    }
}
