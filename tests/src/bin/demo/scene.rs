//! The scene: two clients, an entrance, three nodes behind WireGuard, and the servers on them.

use std::path::Path;
use std::time::{Duration, Instant};

use forwarder_tests::command::find_own;
use forwarder_tests::error::Context;
use forwarder_tests::forwarder::{Forwarder, program};
use forwarder_tests::lab::{Family, Lab, Node, TunnelKind, kernel_has_wireguard};
use forwarder_tests::process::Daemon;
use forwarder_tests::server::haproxy::Haproxy;
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::site::{pool, route};
use forwarder_tests::{Result, pattern, process};
use serde_json::json;

use crate::report::Report;

const LISTENER: &str =
    "[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\non_refuse = \"alert\"\n";

/// All that runs.
#[derive(Debug)]
pub struct Scene {
    pub forwarder: Forwarder<'static>,
    /// nginx on node 0, for `www.example.org`.
    pub nginx: Nginx,
    _proxied: (Nginx, Haproxy),
    _own: [Daemon; 2],
    pub lab: &'static Lab,
}

impl Scene {
    /// Builds the lab, starts the servers, then the forwarder.
    pub fn set(report: &mut Report, keep: bool) -> Result<Self> {
        report.step(
            "The scene: network namespaces on this machine, joined by a real WireGuard tunnel",
        );
        let begin = Instant::now();
        let kernel = kernel_has_wireguard()?;
        let kind = if kernel {
            TunnelKind::KernelWireGuard
        } else {
            TunnelKind::WireGuard
        };
        let mut builder = Lab::builder().clients(2).tunnel(kind, 3);
        if keep {
            builder = builder.name(&format!("fwkeep{}", std::process::id()));
        }
        // The lab lives as long as the process: everything on the scene refers to it.
        let lab: &'static Lab = Box::leak(Box::new(builder.build()?));
        let [first, second, third] = [&lab.nodes[0], &lab.nodes[1], &lab.nodes[2]];
        let nginx = Nginx::serve_tls(lab, &first.namespace, "nginx", 443, false)?;
        let proxied = (
            Nginx::serve_tls(lab, &first.namespace, "nginx-behind-proxy", 8443, true)?,
            Haproxy::serve_tls(lab, &first.namespace, "haproxy", 9443, true)?,
        );
        let own = [serve(lab, second, "node1")?, serve(lab, third, "node2")?];
        let program_kind = if kernel {
            "the kernel's"
        } else {
            "wireguard-go"
        };
        let link = lab
            .entrance
            .ip_output(&["-o", "link", "show", "dev", "wg0"])?;
        report.check(
            "ip link show dev wg0",
            &format!(
                "clients, internet, entrance and 3 nodes; wg0 ({program_kind}) with MTU 1420; nginx, HAProxy and \
                 rustls on the nodes, ready after {:.1} s",
                begin.elapsed().as_secs_f64()
            ),
            link.contains("mtu 1420"),
        );

        let begin = Instant::now();
        let forwarder = Forwarder::start(lab, &configuration(lab))?;
        report.check_with(
            &format!(
                "{} run --config {}",
                program()?.display(),
                forwarder.config().display()
            ),
            &format!(
                "loaded, attached and ready after {:.1} s",
                begin.elapsed().as_secs_f64()
            ),
            true,
            [("seconds", json!(begin.elapsed().as_secs_f64()))],
        );
        Ok(Self {
            forwarder,
            nginx,
            _proxied: proxied,
            _own: own,
            lab,
        })
    }
}

fn configuration(lab: &Lab) -> String {
    let [first, second, third] = [&lab.nodes[0], &lab.nodes[1], &lab.nodes[2]];
    [
        LISTENER.to_owned(),
        pool("web", "transparent", &[(first, 443)]),
        pool("nginx-proxied", "proxy-v2", &[(first, 8443)]),
        pool("haproxy-proxied", "proxy-v2", &[(first, 9443)]),
        format!(
            "{}balance = \"random\"\n",
            pool("pair", "transparent", &[(second, 443), (third, 443)])
        ),
        route(&["www.example.org"], "web"),
        route(&["nginx.example.net"], "nginx-proxied"),
        route(&["haproxy.example.net"], "haproxy-proxied"),
        route(&["*.apps.example.org"], "pair"),
    ]
    .join("\n")
}

/// The lab's own server as a process, so that it outlives this one if it is to.
fn serve(lab: &Lab, node: &Node, name: &str) -> Result<Daemon> {
    let mut command = node.namespace.command(find_own("lab-server")?)?;
    command
        .args(["--name", name, "--certificates"])
        .arg(lab.folder());
    let daemon = Daemon::start(
        "lab-server",
        command,
        &lab.folder().join(format!("{name}.log")),
    )?;
    let port = node.socket(Family::V4, 443);
    process::wait_until(
        &format!("{name} listening"),
        Duration::from_secs(10),
        || {
            let tried =
                || std::net::TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_ok();
            node.namespace.enter(tried).unwrap_or(false)
        },
    )?;
    Ok(daemon)
}

/// A file of so many bytes that do not compress, and its SHA-256.
pub fn random_file(path: &Path, length: u64) -> Result<String> {
    let seed = u64::from(std::process::id());
    std::fs::File::create(path)
        .and_then(|file| pattern::write(seed, length, &mut std::io::BufWriter::new(file)))
        .context(|| format!("writing {}", path.display()))?;
    Ok(pattern::digest(seed, length))
}
