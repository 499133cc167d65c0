//! One health check: connect to a node through its tunnel, and speak as the configuration says.
//!
//! The socket is bound to the tunnel's interface: were the route to the node to change in between, nothing of
//! the check would leave by another interface.
//!
//! A node's server writes into its log what it takes for trouble, and a check comes every few seconds. So each one ends as
//! its protocol wants it: `tcp` with a reset before the server's kernel has told the server anything, TLS with a
//! `close_notify` and after the server's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{self, Trust, Witness};
use super::{expiry, proxy_header};
use crate::config::model::{Check, Checks, ProxyCommand};

/// How long the server's farewell is waited for.
const FAREWELL: Duration = Duration::from_millis(500);
/// Most bytes read for the status line.
const STATUS_LINE: usize = 4_096;

/// Why a check failed.
#[derive(Debug, Error)]
pub enum CheckError {
    /// No tunnel leads to the node.
    #[error("no tunnel leads to it")]
    NoTunnel,
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The PROXY header was not taken.
    #[error("cannot send the PROXY header: {0}")]
    Proxy(#[source] io::Error),
    /// No TLS.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// The certificate is not valid for the name.
    #[error("certificate: {0}")]
    Certificate(#[source] rustls::Error),
    /// No answer to the request.
    #[error("HTTP: {0}")]
    Http(#[source] io::Error),
    /// Something else than HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// Another status than expected.
    #[error("HTTP status {0}")]
    Status(u16),
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it succeeded.
    pub result: Result<(), CheckError>,
    /// How long it took.
    pub took: Duration,
    /// When the node's certificate expires, also if it was not valid.
    pub expires: Option<SystemTime>,
}

/// How the nodes of one pool are checked.
#[derive(Clone, Debug)]
pub struct Method {
    /// As configured.
    pub checks: Checks,
    /// Name sent to the node; `None` where no name is known.
    pub server_name: Option<String>,
    /// For checks with TLS.
    pub trust: Option<Arc<Trust>>,
}

impl Method {
    /// Whether both check alike.
    pub fn is_same(&self, other: &Self) -> bool {
        self.checks == other.checks && self.server_name == other.server_name
    }

    /// Checks a node through this interface.
    pub async fn run(&self, node: SocketAddr, interface: Option<&str>) -> Outcome {
        let begin = Instant::now();
        let mut expires = None;
        let limit = self.checks.timeout;
        let spoken = match interface {
            None => Err(CheckError::NoTunnel),
            Some(interface) => timeout(limit, self.speak(node, interface, &mut expires))
                .await
                .unwrap_or(Err(CheckError::Timeout(limit))),
        };
        let took = begin.elapsed();
        let result = match spoken {
            Ok(Some(Farewell { mut stream, result })) => {
                // It has been judged; whether the farewell arrives does not matter.
                let _ = timeout(FAREWELL, farewell(&mut stream)).await;
                result
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        Outcome {
            result,
            took,
            expires,
        }
    }

    async fn speak(
        &self,
        node: SocketAddr,
        interface: &str,
        expires: &mut Option<SystemTime>,
    ) -> Result<Option<Farewell>, CheckError> {
        let check = self.checks.check;
        if check == Check::Tcp && self.checks.proxy.is_none() {
            let knocked = knock(node, interface).await;
            return knocked.map(|()| None).map_err(CheckError::Connect);
        }
        let mut stream = connect(node, interface)
            .await
            .map_err(CheckError::Connect)?;
        if let Some(command) = self.checks.proxy {
            let sent = self.introduce(&mut stream, node, command).await;
            sent.map_err(CheckError::Proxy)?;
        }
        let Some(trust) = self.trust.as_ref().filter(|_| check.is_tls()) else {
            if check == Check::Http {
                self.request(&mut stream, node).await?;
            }
            return Ok(None);
        };
        let witness = trust.witness();
        let shaken = self.shake_hands(stream, node, &witness).await;
        let chain = witness.chain();
        *expires = chain.first().and_then(|leaf| expiry::not_after(leaf));
        let Some(mut stream) = shaken? else {
            self.judge(trust, &chain, node)?;
            return Ok(None);
        };
        // It is said farewell to whatever comes of it.
        let result = match self.judge(trust, &chain, node) {
            Ok(()) if check == Check::Https => self.request(&mut stream, node).await,
            judged => judged,
        };
        Ok(Some(Farewell { stream, result }))
    }

    async fn introduce(
        &self,
        stream: &mut TcpStream,
        node: SocketAddr,
        command: ProxyCommand,
    ) -> io::Result<()> {
        match command {
            ProxyCommand::Local => stream.write_all(&proxy_header::LOCAL).await,
            ProxyCommand::Proxy => {
                let name = self.server_name.as_deref().unwrap_or_default();
                let header = proxy_header::of(stream.local_addr()?, node, name);
                stream.write_all(&header).await
            }
        }
    }

    /// The name that is asked for; without one, the node's address, which is not sent.
    fn name(&self, node: SocketAddr) -> ServerName<'static> {
        match self.server_name.clone().map(ServerName::try_from) {
            Some(Ok(name)) => name,
            _ => ServerName::from(node.ip()),
        }
    }

    /// `None` where the server took part as far as it could and then wanted what no check has: a certificate of the
    /// client, or a name that nobody knows.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        node: SocketAddr,
        witness: &Arc<Witness>,
    ) -> Result<Option<TlsStream<TcpStream>>, CheckError> {
        let https = self.checks.check == Check::Https;
        let config = witness.config(https).map_err(io::Error::other);
        let connector = TlsConnector::from(Arc::new(config.map_err(CheckError::Tls)?));
        match connector.connect(self.name(node), stream).await {
            Ok(stream) => Ok(Some(stream)),
            Err(_) if !https && witness.was_asked() => Ok(None),
            Err(error) if !https && self.server_name.is_none() && is_alert(&error) => Ok(None),
            Err(error) => Err(CheckError::Tls(error)),
        }
    }

    fn judge(
        &self,
        trust: &Trust,
        chain: &[CertificateDer<'_>],
        node: SocketAddr,
    ) -> Result<(), CheckError> {
        if !self.checks.verify {
            return Ok(());
        }
        tls::verify(trust, chain, &self.name(node)).map_err(CheckError::Certificate)
    }

    async fn request<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        node: SocketAddr,
    ) -> Result<(), CheckError> {
        let host = match (&self.server_name, node.ip()) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(ip)) => ip.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        let path = &self.checks.path;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forwarder-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let sent = stream.write_all(request.as_bytes()).await;
        sent.map_err(CheckError::Http)?;
        stream.flush().await.map_err(CheckError::Http)?;
        let status = status(stream).await?;
        let expected = if self.checks.expect.is_empty() {
            (200..400).contains(&status)
        } else {
            self.checks.expect.contains(&status)
        };
        if expected {
            Ok(())
        } else {
            Err(CheckError::Status(status))
        }
    }
}

/// A connection over TLS that has been judged and is still open.
struct Farewell {
    stream: TlsStream<TcpStream>,
    result: Result<(), CheckError>,
}

/// Ends our side, and reads what the server still has to say: a connection closed over unread bytes is reset.
async fn farewell(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Whether the server said itself that it would not go on.
fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|own| own.downcast_ref());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

/// Whether a node answers a SYN. Its SYN-ACK is answered with a reset, and never acknowledged: a server is not told of
/// connections that are not complete. HAProxy's checks do the same.
async fn knock(node: SocketAddr, interface: &str) -> io::Result<()> {
    let socket = socket_for(node, interface)?;
    // The acknowledgement waits for data (`tcp_rcv_synsent_state_process` in net/ipv4/tcp_input.c).
    SockRef::from(&socket).set_tcp_quickack(false)?;
    let stream = socket.connect(node).await?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

fn socket_for(node: SocketAddr, interface: &str) -> io::Result<TcpSocket> {
    let socket = if node.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}

/// Connects to a node through this interface.
pub async fn connect(node: SocketAddr, interface: &str) -> io::Result<TcpStream> {
    connect_with(node, interface, None).await
}

/// The same with segments of at most so many bytes in both directions.
pub async fn connect_with(
    node: SocketAddr,
    interface: &str,
    segment: Option<i32>,
) -> io::Result<TcpStream> {
    let socket = socket_for(node, interface)?;
    if let Some(segment) = segment {
        limit_segments(&socket, segment)?;
    }
    let stream = socket.connect(node).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `TCP_MAXSEG` (`tcp(7)`): what is offered to the other end and used towards it.
fn limit_segments(socket: &TcpSocket, segment: i32) -> io::Result<()> {
    let length = size_of_val(&segment) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the pointer leads to as many bytes as the length says.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            (&raw const segment).cast(),
            length,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads the status line (RFC 9112 4).
pub async fn status<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u16, CheckError> {
    let mut line = Vec::new();
    let mut chunk = [0; 512];
    while !line.contains(&b'\n') && line.len() < STATUS_LINE {
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(length) => line.extend_from_slice(&chunk[..length]),
            Err(error) => return Err(CheckError::Http(error)),
        }
    }
    if line.is_empty() {
        return Err(CheckError::Http(io::ErrorKind::UnexpectedEof.into()));
    }
    let text = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| CheckError::NotHttp)?;
    let mut words = text.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let code = words.next().filter(|word| word.len() == 3);
    match (version, code.and_then(|word| word.parse().ok())) {
        (Some(_), Some(code)) => Ok(code),
        _ => Err(CheckError::NotHttp),
    }
}

#[cfg(test)]
mod tests;
