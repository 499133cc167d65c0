//! One health check: connect to a node through its tunnel, and speak as the configuration says.
//!
//! The socket is bound to the tunnel's interface: were the route to the node to change in between, nothing of
//! the check would leave by another interface.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::expiry;
use super::tls::{self, Trust};
use crate::config::model::{Check, Checks};

/// PROXY protocol version 2, command LOCAL, no addresses: the connection is the proxy's own.
pub const PROXY_LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
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
    /// Checks a node through this interface.
    pub async fn run(&self, node: SocketAddr, interface: Option<&str>) -> Outcome {
        let begin = Instant::now();
        let mut expires = None;
        let limit = self.checks.timeout;
        let result = match interface {
            None => Err(CheckError::NoTunnel),
            Some(interface) => timeout(limit, self.speak(node, interface, &mut expires))
                .await
                .unwrap_or(Err(CheckError::Timeout(limit))),
        };
        Outcome {
            result,
            took: begin.elapsed(),
            expires,
        }
    }

    async fn speak(
        &self,
        node: SocketAddr,
        interface: &str,
        expires: &mut Option<SystemTime>,
    ) -> Result<(), CheckError> {
        let mut stream = connect(node, interface)
            .await
            .map_err(CheckError::Connect)?;
        if self.checks.proxy {
            let sent = stream.write_all(&PROXY_LOCAL).await;
            sent.map_err(CheckError::Proxy)?;
        }
        let Some(trust) = self.trust.as_ref().filter(|_| self.checks.check.is_tls()) else {
            if self.checks.check == Check::Http {
                self.request(&mut stream, node).await?;
            }
            return Ok(());
        };
        let name = match self.server_name.clone().map(ServerName::try_from) {
            Some(Ok(name)) => name,
            _ => ServerName::from(node.ip()),
        };
        let connector = TlsConnector::from(match self.checks.check {
            Check::Https => Arc::clone(&trust.http),
            _ => Arc::clone(&trust.plain),
        });
        let mut stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(CheckError::Tls)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        *expires = chain.first().and_then(|leaf| expiry::not_after(leaf));
        if self.checks.verify {
            tls::verify(trust, chain, &name).map_err(CheckError::Certificate)?;
        }
        if self.checks.check == Check::Https {
            self.request(&mut stream, node).await?;
        }
        // The answer has been judged; whether the farewell arrives does not matter.
        let _ = stream.shutdown().await;
        Ok(())
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
    let socket = if node.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind_device(Some(interface.as_bytes()))?;
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
