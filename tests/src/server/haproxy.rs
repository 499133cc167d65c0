//! HAProxy on a node, as a second consumer of PROXY v2 that has nothing to do with our own code.

use std::path::PathBuf;

use super::wait_listening;
use crate::error::{Context, Result};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::Daemon;

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    daemon: Daemon,
}

impl Haproxy {
    /// Serves TLS on a port of a namespace and answers every request with
    /// `source-address source-port|sni|authority|unique-id`. With `proxy`, connections must begin
    /// with PROXY v2, and the last two come from its TLVs.
    pub fn serve_tls(
        lab: &Lab,
        namespace: &Namespace,
        name: &str,
        port: u16,
        proxy: bool,
    ) -> Result<Self> {
        let proxy = if proxy { "accept-proxy " } else { "" };
        let text = format!(
            "frontend web\n  mode http\n  bind *:{port} {proxy}ssl crt {pem}\n  bind :::{port} v6only {proxy}ssl crt {pem}\n  \
             http-request return status 200 content-type text/plain lf-string \
             \"%[src] %[src_port]|%[ssl_fc_sni]|%[fc_pp_authority]|%[fc_pp_unique_id]\"\n",
            pem = lab.pki.combined.display()
        );
        Self::start(lab, namespace, name, port, &text)
    }

    /// Stands where the forwarder would: passes TLS connections for some names on to a node, with
    /// PROXY v2 if told.
    pub fn pass_through(
        lab: &Lab,
        port: u16,
        names: &[&str],
        node: std::net::SocketAddr,
        send_proxy: bool,
    ) -> Result<Self> {
        let send = if send_proxy { " send-proxy-v2" } else { "" };
        let text = format!(
            "frontend entrance\n  mode tcp\n  bind *:{port}\n  bind :::{port} v6only\n  tcp-request inspect-delay 3s\n  \
             tcp-request content reject unless {{ req.ssl_sni -i {} }}\n  default_backend node\n\
             backend node\n  mode tcp\n  server node {node}{send}\n",
            names.join(" ")
        );
        Self::start(lab, &lab.entrance, "entrance", port, &text)
    }

    /// What HAProxy has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    fn start(lab: &Lab, namespace: &Namespace, name: &str, port: u16, body: &str) -> Result<Self> {
        let text = format!(
            "global\n  log stderr local0 info\n  maxconn 4000\n  nbthread 1\n  tune.ssl.default-dh-param 2048\n\
             defaults\n  log global\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{body}"
        );
        let file = |ending: &str| -> PathBuf {
            lab.folder().join(format!("haproxy-{name}-{port}.{ending}"))
        };
        let config = file("cfg");
        std::fs::write(&config, text).context(|| format!("writing {}", config.display()))?;
        let mut command = namespace.command("haproxy")?;
        command.arg("-db").arg("-f").arg(&config);
        let daemon = Daemon::start("haproxy", command, &file("log"))?;
        wait_listening(&daemon, namespace, port)?;
        Ok(Self { daemon })
    }
}
