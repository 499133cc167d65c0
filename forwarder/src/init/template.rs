//! The file: a commented configuration with the answers in it.

use super::answers::Answers;
use crate::config::difference::word;
use crate::config::model::ClientAddress;

/// The whole text. Interfaces and names are plain ASCII by now, so that Rust's quotes are TOML's.
pub(super) fn render(answers: &Answers) -> String {
    let nodes: Vec<_> = answers.nodes.iter().map(ToString::to_string).collect();
    let list = |items: &[String]| {
        let lines = items.iter().map(|item| format!("    {item:?},\n"));
        format!("[\n{}]", lines.collect::<String>())
    };
    let note = match answers.client_address {
        ClientAddress::ProxyV2 => {
            "# Nodes get a PROXY protocol v2 header before each connection; their server must expect it:\n\
             #   Traefik  --entryPoints.websecure.proxyProtocol.trustedIPs=<the entrance's tunnel address>\n\
             #   nginx    listen 443 ssl proxy_protocol;\n\
             #   HAProxy  bind :443 accept-proxy"
        }
        ClientAddress::Transparent => {
            "# Nodes see each client's own address; they must route answers back through the tunnel:\n\
             # docs/node-transparent.md."
        }
        ClientAddress::Masquerade => "# Nodes see the entrance's tunnel address, and no client's.",
    };
    format!(
        r#"# Written by `forwarder init`.
#
# `forwarder check` validates this file, `forwarder doctor` everything around it. `forwarder reload` puts a changed
# file to use while connections go on. docs/config.md describes every key.

# --- This machine -----------------------------------------------------------------------------------

[entrance]
# Interfaces that face the internet.
public = {public:?}
# Interfaces that lead to nodes.
tunnels = {tunnels:?}
# Ports towards nodes; keep them apart from `sysctl net.ipv4.ip_local_port_range`.
# source_ports = "1024-32767"

[metrics]
# Prometheus metrics, /healthz and /readyz, for this machine only.
listen = "127.0.0.1:9469"

# --- Where clients connect --------------------------------------------------------------------------

[[listener]]
name = "https"
protocol = "tls"
# Every address of the public interfaces. SSH and all other ports are left alone.
port = {port}
# What a client gets whose name is not listed: alert, reset, or drop.
# on_refuse = "alert"

# --- What serves them -------------------------------------------------------------------------------

[[pool]]
name = {pool:?}
{note}
# The other ways are proxy-v2, transparent and masquerade.
client_address = {client_address:?}
nodes = {nodes}
# A handshake with each node every five seconds; those that fail get no connections until they answer again.
health = {{ check = "tls" }}

# --- Which name goes where --------------------------------------------------------------------------

[[route]]
# An exact name, `*.` and a name for everything below it, or `*` for every name. What is not listed stays private.
names = {names}
pool = {pool:?}
"#,
        public = answers.public,
        tunnels = answers.tunnels,
        port = answers.port,
        pool = answers.pool,
        client_address = word(answers.client_address),
        nodes = list(&nodes),
        names = list(&answers.names),
    )
}
