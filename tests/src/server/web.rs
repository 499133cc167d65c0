//! An HTTPS server on rustls that tells what it saw, and misbehaves on request.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /` | JSON: [`Report`] |
//! | `GET /bytes/N` | *N* bytes of the stream [`crate::pattern`] with seed 1 |
//! | `PUT` or `POST` anywhere | JSON: [`Upload`] |
//! | `PUT /stall/MS` | the same, but nothing is read for *MS* milliseconds (zero window) |
//! | `PUT /until-close` | the same, but the body ends with the client's close (half-close) |
//! | `GET /sleep/MS` | after *MS* milliseconds: [`Report`] |
//! | `GET /reset` | a TCP reset |
//!
//! Connections are kept open between requests. With `proxy`, each must begin with PROXY v2.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use super::proxy_header::ProxyHeader;
use super::{Listening, listen_everywhere, plain};
use crate::error::Result;
use crate::netns::Namespace;
use crate::pattern::{self, Hash};
use crate::pki::Pki;
use crate::socket;

/// The seed of the bytes that `/bytes/N` gives.
pub const DOWNLOAD_SEED: u64 = 1;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server saw of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The name that was given to the server.
    pub server: String,
    /// The other end of the TCP connection.
    pub peer: SocketAddr,
    /// The address that was connected to.
    pub local: SocketAddr,
    /// The PROXY v2 header, if one was expected.
    pub proxy: Option<ProxyHeader>,
    /// The name in the ClientHello.
    pub sni: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
    /// The TLS version.
    pub version: String,
    /// How many requests came on this connection, this one included.
    pub requests: u32,
}

impl Report {
    /// The client: from the PROXY header if there is one, else the other end of the connection.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.proxy
            .as_ref()
            .and_then(|proxy| proxy.source)
            .unwrap_or(self.peer)
    }
}

/// What the server got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
    /// What the server saw of the connection.
    pub report: Report,
}

/// How a web server is to be.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// What it calls itself in its reports.
    pub name: String,
    /// The port.
    pub port: u16,
    /// Whether each connection begins with a PROXY v2 header.
    pub proxy: bool,
    /// Keep-alive probes after this long, if at all.
    pub keep_alive: Option<Duration>,
}

impl WebOptions {
    /// A server without PROXY protocol or keep-alive probes.
    #[must_use]
    pub fn new(name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            port,
            proxy: false,
            keep_alive: None,
        }
    }

    /// Expects PROXY v2.
    #[must_use]
    pub fn proxy(mut self) -> Self {
        self.proxy = true;
        self
    }

    /// Sends keep-alive probes.
    #[must_use]
    pub fn keep_alive(mut self, after: Duration) -> Self {
        self.keep_alive = Some(after);
        self
    }
}

/// A web server on threads of this process; it stops accepting when dropped.
#[derive(Debug)]
pub struct WebServer {
    service: Arc<Service>,
    _listening: Listening,
}

/// What the connections share.
#[derive(Debug)]
struct Service {
    options: WebOptions,
    tls: Arc<ServerConfig>,
    failures: Mutex<Vec<String>>,
}

impl WebServer {
    /// Listens on all addresses of a namespace.
    pub fn start(namespace: &Namespace, pki: &Pki, options: WebOptions) -> Result<Self> {
        let port = options.port;
        let service = Arc::new(Service::new(pki, options)?);
        let worker = Arc::clone(&service);
        let listening = Listening::start(namespace, port, move |socket| worker.accept(socket))?;
        Ok(Self {
            service,
            _listening: listening,
        })
    }

    /// Why connections failed, if any did.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.service
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Runs a web server in this process's own namespace, for ever.
pub fn serve(pki: &Pki, options: WebOptions) -> Result<()> {
    let listener = listen_everywhere(options.port)?;
    let service = Arc::new(Service::new(pki, options)?);
    for socket in listener.incoming().map_while(std::result::Result::ok) {
        service.accept(socket);
    }
    Ok(())
}

impl Service {
    fn new(pki: &Pki, options: WebOptions) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(pki.chain.clone(), pki.private_key())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec(), b"acme-tls/1".to_vec()];
        Ok(Self {
            options,
            tls: Arc::new(tls),
            failures: Mutex::default(),
        })
    }

    fn accept(self: &Arc<Self>, socket: TcpStream) {
        let worker = Arc::clone(self);
        std::thread::spawn(move || {
            let peer = socket.peer_addr();
            if let Err(error) = worker.converse(socket) {
                let mut failures = worker
                    .failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                failures.push(format!("{peer:?}: {error}"));
            }
        });
    }

    fn converse(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        if let Some(after) = self.options.keep_alive {
            socket::keep_alive(&socket, after)?;
        }
        let (peer, local) = (plain(socket.peer_addr()?), plain(socket.local_addr()?));
        let proxy = self
            .options
            .proxy
            .then(|| ProxyHeader::read(&mut socket))
            .transpose()?;
        let mut tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let mut report = Report {
            server: self.options.name.clone(),
            peer,
            local,
            proxy,
            sni: tls.server_name().map(str::to_owned),
            alpn: tls
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            version: tls
                .protocol_version()
                .map(|version| format!("{version:?}"))
                .unwrap_or_default(),
            requests: 0,
        };
        let mut stream = BufReader::with_capacity(64 << 10, StreamOwned::new(tls, socket));
        while let Some(request) = Request::read(&mut stream)? {
            report.requests += 1;
            let keep = answer(&mut stream, &request, &report)?;
            if !keep {
                return Ok(());
            }
        }
        stream.get_mut().conn.send_close_notify();
        stream.get_mut().flush()?;
        stream.get_ref().sock.shutdown(Shutdown::Write)
    }
}

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

struct Request {
    method: String,
    path: String,
    length: u64,
    expects_continue: bool,
    close: bool,
}

impl Request {
    fn read(stream: &mut Stream) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let mut request = Self {
            method,
            path,
            length: 0,
            expects_continue: false,
            close: false,
        };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok(Some(request));
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => request.length = value.parse().map_err(io::Error::other)?,
                "expect" => request.expects_continue = true,
                "connection" => request.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}

/// Answers a request; says whether the connection goes on.
fn answer(stream: &mut Stream, request: &Request, report: &Report) -> io::Result<bool> {
    let number = |prefix| {
        request
            .path
            .strip_prefix(prefix)
            .and_then(|rest: &str| rest.parse::<u64>().ok())
    };
    if matches!(request.method.as_str(), "PUT" | "POST") {
        if let Some(pause) = number("/stall/") {
            std::thread::sleep(Duration::from_millis(pause));
        }
        if request.expects_continue {
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.get_mut().flush()?;
        }
        let until_close = request.path == "/until-close";
        let limit = if until_close {
            u64::MAX
        } else {
            request.length
        };
        let (bytes, sha256) = digest(&mut stream.take(limit))?;
        send_json(
            stream,
            &Upload {
                bytes,
                sha256,
                report: report.clone(),
            },
        )?;
        if until_close {
            stream.get_mut().conn.send_close_notify();
            stream.get_mut().flush()?;
            stream.get_ref().sock.shutdown(Shutdown::Write)?;
            return Ok(false);
        }
    } else if let Some(length) = number("/bytes/") {
        send_pattern(stream, length)?;
    } else if request.path == "/reset" {
        socket::close_with_reset(&stream.get_ref().sock)?;
        return Ok(false);
    } else {
        if let Some(pause) = number("/sleep/") {
            std::thread::sleep(Duration::from_millis(pause));
        }
        send_json(stream, report)?;
    }
    if request.close {
        stream.get_mut().conn.send_close_notify();
        stream.get_mut().flush()?;
        stream.get_ref().sock.shutdown(Shutdown::Write)?;
    }
    Ok(!request.close)
}

fn digest(body: &mut impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut count, mut buffer) = (Hash::default(), 0, vec![0; 64 << 10]);
    loop {
        match body.read(&mut buffer)? {
            0 => return Ok((count, hash.finish())),
            length => {
                hash.add(&buffer[..length]);
                count += length as u64;
            }
        }
    }
}

fn send_json(stream: &mut Stream, value: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_string(value)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .get_mut()
        .write_all(format!("{head}{body}").as_bytes())?;
    stream.get_mut().flush()
}

fn send_pattern(stream: &mut Stream, length: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes())?;
    pattern::write(DOWNLOAD_SEED, length, stream.get_mut())
}
