//! nginx with TLS on a node, and nginx `ssl_preread` as an entrance to compare with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::wait_listening;
use crate::command;
use crate::error::{Context, Result};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::Daemon;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    daemon: Daemon,
    folder: PathBuf,
}

impl Nginx {
    /// Serves TLS on a port of a namespace. With `proxy`, connections must begin with PROXY v2.
    ///
    /// - `GET /whoami` answers `name|address port|PROXY's address port|SNI`, the first address being
    ///   that of the other end of the TCP connection;
    /// - `GET /files/NAME` answers with a file of [`Nginx::files`]; `PUT` stores one there.
    pub fn serve_tls(
        lab: &Lab,
        namespace: &Namespace,
        name: &str,
        port: u16,
        proxy: bool,
    ) -> Result<Self> {
        let folder = lab.folder().join(format!("nginx-{name}-{port}"));
        let proxy = if proxy { " proxy_protocol" } else { "" };
        let text = format!(
            r#"http {{
    access_log off;
    sendfile on;
    default_type text/plain;
    client_max_body_size 0;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    server {{
        listen {port} ssl{proxy};
        listen [::]:{port} ssl{proxy};
        location = /whoami {{
            return 200 "{name}|$remote_addr $remote_port|$proxy_protocol_addr $proxy_protocol_port|$ssl_server_name";
        }}
        location /files/ {{
            alias {folder}/files/;
            dav_methods PUT;
        }}
    }}
}}"#,
            folder = folder.display(),
            certificate = lab.pki.certificate.display(),
            key = lab.pki.key.display(),
        );
        Self::start(folder, namespace, port, &text)
    }

    /// Serves one name over TLS, and answers every other `Host` with 421: an ingress port that knows
    /// public names only.
    pub fn serve_only(lab: &Lab, namespace: &Namespace, name: &str, port: u16) -> Result<Self> {
        let folder = lab.folder().join(format!("nginx-only-{port}"));
        let text = format!(
            r#"http {{
    access_log off;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen {port} ssl default_server;
        return 421;
    }}
    server {{
        listen {port} ssl;
        server_name {name};
        return 200 "{name}";
    }}
}}"#,
            folder = folder.display(),
            certificate = lab.pki.certificate.display(),
            key = lab.pki.key.display(),
        );
        Self::start(folder, namespace, port, &text)
    }

    /// Serves one name, which may be a wildcard, over TLS, and refuses handshakes for every other one and for none. Its
    /// log holds everything that somebody who runs it might be shown.
    pub fn serve_strict(lab: &Lab, namespace: &Namespace, name: &str, port: u16) -> Result<Self> {
        let folder = lab.folder().join(format!("nginx-strict-{port}"));
        let text = format!(
            r#"http {{
    access_log off;
    error_log stderr info;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    server {{
        listen {port} ssl default_server;
        ssl_reject_handshake on;
    }}
    server {{
        listen {port} ssl;
        server_name {name};
        return 200 "{name}";
    }}
}}"#,
            folder = folder.display(),
            certificate = lab.pki.certificate.display(),
            key = lab.pki.key.display(),
        );
        Self::start(folder, namespace, port, &text)
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Stands where the forwarder would: passes TLS connections on by the name in the ClientHello.
    /// `routes` are pairs of a name (or `default`) and a node's address and port.
    pub fn preread(lab: &Lab, port: u16, routes: &[(&str, SocketAddr)]) -> Result<Self> {
        let map: String = routes
            .iter()
            .map(|(name, to)| format!("        {name} {to};\n"))
            .collect();
        let text = format!(
            r"{module}stream {{
    map $ssl_preread_server_name $target {{
        hostnames;
{map}    }}
    server {{
        listen {port} reuseport;
        listen [::]:{port} reuseport;
        ssl_preread on;
        proxy_pass $target;
    }}
}}",
            module = stream_module(),
        );
        Self::start(
            lab.folder().join(format!("nginx-preread-{port}")),
            &lab.entrance,
            port,
            &text,
        )
    }

    /// The folder whose files it serves, and into which uploads go.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// The process.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn start(folder: PathBuf, namespace: &Namespace, port: u16, text: &str) -> Result<Self> {
        for part in ["tmp", "files"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).context(|| format!("making {}", path.display()))?;
        }
        // nginx gives up root for `nobody`, which could not write into the lab's folder.
        let general = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {}/pid;\nerror_log stderr notice;\n",
            folder.display()
        );
        let (modules, blocks) =
            text.split_at(text.find("http {").or(text.find("stream {")).unwrap_or(0));
        let text =
            format!("{modules}{general}events {{\n    worker_connections 8192;\n}}\n{blocks}\n");
        let config = folder.join("nginx.conf");
        std::fs::write(&config, text).context(|| format!("writing {}", config.display()))?;
        let mut command = namespace.command("nginx")?;
        command
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"]);
        let daemon = Daemon::start("nginx", command, &folder.join("log"))?;
        wait_listening(&daemon, namespace, port)?;
        Ok(Self { daemon, folder })
    }
}

/// The line that loads the module for TCP proxying: the set-up's, Debian's, or none where it is built in.
pub(crate) fn stream_module() -> String {
    [
        command::cache().join("../lib/nginx"),
        Path::new("/usr/lib/nginx/modules").to_path_buf(),
    ]
    .into_iter()
    .map(|folder| folder.join("ngx_stream_module.so"))
    .find(|path| path.is_file())
    .map(|path| format!("load_module {};\n", path.display()))
    .unwrap_or_default()
}
