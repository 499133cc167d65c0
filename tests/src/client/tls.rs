//! A TLS client on rustls.
//!
//! With aws-lc-rs it offers a post-quantum key share, and its ClientHello of about 1,500 bytes takes
//! two segments; with ring it is about 260 bytes long.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::error::{Context, Result};
use crate::netns::Namespace;
use crate::pattern::{self, Hash};
use crate::pki::Pki;
use crate::server::web::{Report, Upload};

/// Which cryptography the client has, and with it the size of its ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// aws-lc-rs, with X25519MLKEM768: two segments.
    PostQuantum,
    /// ring: one small segment.
    Classic,
}

/// A connected client.
#[derive(Debug)]
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    name: String,
}

/// A client's TLS configuration.
pub fn config(pki: &Pki, crypto: Crypto, protocols: &[&str]) -> Result<Arc<ClientConfig>> {
    let provider = match crypto {
        Crypto::PostQuantum => rustls::crypto::aws_lc_rs::default_provider(),
        Crypto::Classic => rustls::crypto::ring::default_provider(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(&pki.roots))
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(Arc::new(config))
}

/// The bytes of a ClientHello as rustls sends it.
pub fn client_hello(config: &Arc<ClientConfig>, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    connection(config, name)?
        .write_tls(&mut bytes)
        .context(|| "writing a ClientHello".to_owned())?;
    Ok(bytes)
}

fn connection(config: &Arc<ClientConfig>, name: &str) -> Result<ClientConnection> {
    let server = ServerName::try_from(name.to_owned())
        .map_err(io::Error::other)
        .context(|| format!("using {name} as a server name"))?;
    Ok(ClientConnection::new(Arc::clone(config), server)?)
}

impl TlsClient {
    /// Connects and finishes the handshake.
    pub fn connect(
        namespace: &Namespace,
        config: &Arc<ClientConfig>,
        name: &str,
        address: SocketAddr,
    ) -> Result<Self> {
        let limit = Duration::from_secs(30);
        let socket = namespace
            .enter(|| TcpStream::connect_timeout(&address, limit))?
            .context(|| format!("connecting to {address}"))?;
        Self::over(socket, config, name)
    }

    /// Finishes the handshake over a connection that exists.
    pub fn over(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Result<Self> {
        let connection = connection(config, name)?;
        Self::finish(socket, connection, name)
    }

    fn finish(mut socket: TcpStream, mut connection: ClientConnection, name: &str) -> Result<Self> {
        let limit = Some(Duration::from_secs(60));
        let mut handshake = || {
            socket.set_read_timeout(limit)?;
            socket.set_write_timeout(limit)?;
            socket.set_nodelay(true)?;
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            Ok(())
        };
        handshake().context(|| format!("the TLS handshake for {name}"))?;
        Ok(Self {
            stream: StreamOwned::new(connection, socket),
            name: name.to_owned(),
        })
    }

    /// Connects and finishes the handshake, its first flight cut into segments of `size` bytes.
    pub fn connect_in_pieces(
        namespace: &Namespace,
        config: &Arc<ClientConfig>,
        name: &str,
        address: SocketAddr,
        size: usize,
    ) -> Result<Self> {
        let limit = Duration::from_secs(30);
        let mut socket = namespace
            .enter(|| TcpStream::connect_timeout(&address, limit))?
            .context(|| format!("connecting to {address}"))?;
        let mut connection = connection(config, name)?;
        let mut hello = Vec::new();
        let mut send = || {
            socket.set_nodelay(true)?;
            connection.write_tls(&mut hello)?;
            for piece in hello.chunks(size) {
                socket.write_all(piece)?;
                // Without a pause the kernel would put pieces together while it waits for room.
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(())
        };
        send().context(|| format!("sending a hello for {name} in pieces of {size} bytes"))?;
        Self::finish(socket, connection, name)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Asks the lab's web server what it sees.
    pub fn report(&mut self) -> Result<Report> {
        let body = self.get("/")?;
        serde_json::from_slice(&body)
            .map_err(io::Error::other)
            .context(|| "reading the server's report".to_owned())
    }

    /// Fetches a small body.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        self.get_into(path, |bytes| body.extend_from_slice(bytes))?;
        Ok(body)
    }

    /// Fetches a body of any size: its length and SHA-256.
    pub fn download(&mut self, path: &str) -> Result<(u64, String)> {
        let (mut hash, mut count) = (Hash::default(), 0);
        self.get_into(path, |bytes| {
            hash.add(bytes);
            count += bytes.len() as u64;
        })?;
        Ok((count, hash.finish()))
    }

    /// Uploads bytes of the pattern with a seed to the lab's web server.
    pub fn upload(&mut self, path: &str, seed: u64, length: u64) -> Result<Upload> {
        let mut job = || {
            let head = format!(
                "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n",
                self.name
            );
            self.stream.write_all(head.as_bytes())?;
            pattern::write(seed, length, &mut self.stream)?;
            let body = self.answer()?;
            serde_json::from_slice(&body).map_err(io::Error::other)
        };
        job().context(|| format!("uploading {length} bytes to {path}"))
    }

    /// Uploads, closes this side of the connection, and only then reads the answer.
    pub fn upload_and_close(&mut self, seed: u64, length: u64) -> Result<Upload> {
        let mut job = || {
            let head = format!("PUT /until-close HTTP/1.1\r\nHost: {}\r\n\r\n", self.name);
            self.stream.write_all(head.as_bytes())?;
            pattern::write(seed, length, &mut self.stream)?;
            self.stream.conn.send_close_notify();
            self.stream.flush()?;
            self.stream.sock.shutdown(Shutdown::Write)?;
            let body = self.answer()?;
            serde_json::from_slice(&body).map_err(io::Error::other)
        };
        job().context(|| format!("uploading {length} bytes, then closing"))
    }

    /// Sends a request without waiting for anything.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads plain bytes.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    fn get_into(&mut self, path: &str, take: impl FnMut(&[u8])) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.name);
        let job = || {
            self.send(request.as_bytes())?;
            self.answer_into(take)
        };
        job().context(|| format!("fetching {path}"))
    }

    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.answer_into(|bytes| body.extend_from_slice(bytes))?;
        Ok(body)
    }

    /// Reads one HTTP answer that has a `Content-Length`.
    fn answer_into(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut head = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let body_at = loop {
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&buffer[..length]);
            if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..body_at]).to_ascii_lowercase();
        let length = text
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let mut rest: u64 = length
            .and_then(|length| length.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("an answer without length: {text}")))?;
        let early = &head[body_at..];
        take(early);
        rest = rest.saturating_sub(early.len() as u64);
        while rest > 0 {
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&buffer[..length]);
            rest = rest.saturating_sub(length as u64);
        }
        Ok(())
    }
}
