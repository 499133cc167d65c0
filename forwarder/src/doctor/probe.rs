//! One connection to a node, made as the entrance makes those of clients: through the tunnel, with a PROXY header
//! of the same form before the hello, if one is sent at all.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::health::check::{self, CheckError};
use crate::health::proxy_header;

/// How long a connection, a handshake or an answer may take.
const LIMIT: Duration = Duration::from_secs(4);

/// The least that every host takes (RFC 9293 3.7.1).
const SMALL: i32 = 536;

/// Protocols that nobody speaks and that make a ClientHello of about 2 KB: the extension carries up to 255
/// bytes for each.
const PADDING: usize = 8;
const PADDING_LENGTH: usize = 210;

/// A node, and the interface that leads to it.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it listens.
    pub node: SocketAddr,
    /// The tunnel.
    pub interface: String,
    /// The largest segment, in both directions, if it is not to be what the tunnel carries.
    pub segment: Option<i32>,
}

/// What precedes the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// Nothing.
    Bare,
    /// A PROXY protocol header, version 2.
    Proxy,
}

impl Preface {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Bare => Self::Proxy,
            Self::Proxy => Self::Bare,
        }
    }
}

/// A finished handshake.
pub struct Session {
    /// The connection.
    stream: TlsStream<TcpStream>,
    /// What the node showed, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Way {
    /// The same with segments that pass every path.
    pub fn in_small_segments(&self) -> Self {
        Self {
            segment: Some(SMALL),
            ..self.clone()
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<TcpStream, CheckError> {
        let connecting = check::connect_with(self.node, &self.interface, self.segment);
        match timeout(LIMIT, connecting).await {
            Ok(connected) => connected.map_err(CheckError::Connect),
            Err(_) => Err(CheckError::Timeout(LIMIT)),
        }
    }

    /// Connects, and sends what precedes a hello for `name`.
    pub async fn open(&self, preface: Preface, name: &str) -> Result<TcpStream, CheckError> {
        let mut stream = self.connect().await?;
        if preface == Preface::Proxy {
            let own = stream.local_addr().map_err(CheckError::Proxy)?;
            let header = proxy_header::of(own, self.node, name);
            let sent = stream.write_all(&header).await;
            sent.map_err(CheckError::Proxy)?;
        }
        Ok(stream)
    }

    /// Connects and shakes hands for `name`.
    pub async fn handshake(
        &self,
        preface: Preface,
        name: &str,
        tls: &Arc<ClientConfig>,
    ) -> Result<Session, CheckError> {
        let stream = self.open(preface, name).await?;
        let handshake = async {
            let name = ServerName::try_from(name.to_owned())
                .unwrap_or_else(|_| ServerName::from(self.node.ip()));
            let connector = TlsConnector::from(Arc::clone(tls));
            let stream = connector.connect(name, stream);
            stream.await.map_err(CheckError::Tls)
        };
        let stream = timeout(LIMIT, handshake).await;
        let stream = stream.unwrap_or(Err(CheckError::Timeout(LIMIT)))?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.to_vec();
        Ok(Session { stream, chain })
    }
}

impl Session {
    /// Asks for `/` of `host` and tells the status code.
    pub async fn ask(mut self, host: &str) -> Result<u16, CheckError> {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forwarder-doctor\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let asking = async {
            let sent = self.stream.write_all(request.as_bytes()).await;
            sent.map_err(CheckError::Http)?;
            self.stream.flush().await.map_err(CheckError::Http)?;
            check::status(&mut self.stream).await
        };
        let status = timeout(LIMIT, asking).await;
        let status = status.unwrap_or(Err(CheckError::Timeout(LIMIT)));
        self.close().await;
        status
    }

    /// Bytes of the largest segment that came from the node, as far as the kernel remembers; it knows none of less
    /// than 536.
    pub fn largest_received(&self) -> Option<u32> {
        let socket = self.stream.get_ref().0;
        // SAFETY: integers only: zeros are a value of it.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes no more than `length` bytes.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        (got == 0).then_some(info.tcpi_rcv_mss)
    }

    /// Says farewell, so that the node's log shows no broken connection.
    pub async fn close(mut self) {
        // Whether it arrives does not matter.
        let _ = timeout(LIMIT, self.stream.shutdown()).await;
    }
}

/// The same configuration with a ClientHello of about 2 KB, as browsers with a post-quantum key send it.
pub fn with_large_hello(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut large = tls.clone();
    let unspoken = (0..PADDING).map(|number| vec![b'a' + number as u8; PADDING_LENGTH]);
    large.alpn_protocols.extend(unspoken);
    Arc::new(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_hello_fills_two_segments_of_any_tunnel() {
        let small = crate::health::tls::Trust::new(false).unwrap().http;
        let large = with_large_hello(&small);
        let length = |tls: &Arc<ClientConfig>| {
            let name = ServerName::try_from("www.example.org").unwrap();
            let mut connection = rustls::ClientConnection::new(Arc::clone(tls), name).unwrap();
            let mut bytes = Vec::new();
            connection.write_tls(&mut bytes).unwrap();
            bytes.len()
        };
        assert!(length(&small) < 600, "{}", length(&small));
        assert!(
            (1_800..2_600).contains(&length(&large)),
            "{}",
            length(&large)
        );
    }
}
