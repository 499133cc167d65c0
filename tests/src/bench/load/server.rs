//! The node's servers: one that answers hellos without any TLS work, and one with TLS (rustls).
//!
//! | Port | What |
//! |---|---|
//! | [`RAW`] | does what the hello says ([`super::job`]) |
//! | [`TLS`] | TLS 1.3; a small answer to whatever comes first, then waits for the client's end |
//! | each plus [`PROXIED`] | the same behind a PROXY v2 header |

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::job::{self, Job, Opening};
use super::{Place, runtime, vanish};
use crate::error::{Context, Error, Result};
use crate::netns::Namespace;
use crate::pki::Pki;

/// Where the raw server listens.
pub const RAW: u16 = 7000;
/// Where the TLS server listens.
pub const TLS: u16 = 7443;
/// What is added to a port for the same server behind PROXY v2.
pub const PROXIED: u16 = 1;
/// The services that clients ask for.
pub const SERVICES: [u16; 2] = [RAW, TLS];

/// The TLS server's answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// As many connections as the kernel lets wait to be accepted.
const BACKLOG: u32 = 65_535;
const CHUNK: usize = 256 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// The servers at work; they end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    _end: watch::Sender<()>,
}

impl Servers {
    /// Starts them in a namespace.
    pub fn start(namespace: &Namespace, pki: &Pki) -> Result<Self> {
        let tls = TlsAcceptor::from(super::tls::server(pki)?);
        let (sender, end) = watch::channel(());
        let (ready, started) = mpsc::channel();
        namespace.spawn("bench-node", move || {
            Place::Node.keep();
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async move {
                let listening = listen(&tls, &end);
                let works = listening.is_ok();
                let _ = ready.send(listening);
                let mut end = end;
                if works {
                    let _ = end.changed().await;
                }
            });
        })?;
        started.recv().map_err(|_| Error::Unintelligible {
            what: "the node's servers ended at once".to_owned(),
            text: String::new(),
        })??;
        Ok(Self { _end: sender })
    }
}

fn listen(tls: &TlsAcceptor, end: &watch::Receiver<()>) -> Result<()> {
    for proxied in [false, true] {
        let add = if proxied { PROXIED } else { 0 };
        let raw = bind(RAW + add)?;
        tokio::spawn(accept(raw, end.clone(), move |socket| {
            raw_service(socket, proxied)
        }));
        let secure = bind(TLS + add)?;
        let tls = tls.clone();
        tokio::spawn(accept(secure, end.clone(), move |socket| {
            tls_service(socket, tls.clone(), proxied)
        }));
    }
    Ok(())
}

fn bind(port: u16) -> Result<TcpListener> {
    let listen = || {
        let socket = TcpSocket::new_v6()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        socket.listen(BACKLOG)
    };
    listen().context(|| format!("listening on port {port}"))
}

async fn accept<F>(
    listener: TcpListener,
    mut end: watch::Receiver<()>,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                // Without descriptors there is nothing to do but to wait for some.
                match accepted {
                    Ok((socket, _)) => drop(tokio::spawn(serve(socket))),
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
            _ = end.changed() => return,
        }
    }
}

async fn raw_service(mut socket: TcpStream, proxied: bool) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match read_job(&mut socket, proxied).await? {
        Job::Reply(size) => {
            send(&mut socket, size).await?;
            // One byte of room: a hundred thousand idle connections wait here.
            while socket.read(&mut [0]).await? > 0 {}
        }
        Job::Requests(size) => {
            let mut request = [0; job::REQUEST];
            loop {
                send(&mut socket, size).await?;
                socket.read_exact(&mut request).await?;
            }
        }
        Job::Download => loop {
            socket.write_all(&ZEROS).await?;
        },
        Job::Vanish => {
            send(&mut socket, 1).await?;
            vanish::when_acknowledged(socket).await?;
        }
        Job::Upload => {
            let mut count = 0;
            loop {
                match discard(&socket).await? {
                    0 => break,
                    length => count += length,
                }
            }
            socket.write_all(&count.to_be_bytes()).await?;
        }
    }
    Ok(())
}

async fn send(socket: &mut TcpStream, mut size: u64) -> io::Result<()> {
    while size > 0 {
        let part = ZEROS.len().min(usize::try_from(size).unwrap_or(CHUNK));
        socket.write_all(&ZEROS[..part]).await?;
        size -= part as u64;
    }
    Ok(())
}

async fn read_job(socket: &mut TcpStream, proxied: bool) -> io::Result<Job> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match job::opening(&bytes, proxied) {
            Opening::Incomplete => {}
            Opening::Complete(job, length) if length == bytes.len() => return Ok(job),
            Opening::Complete(Job::Upload, _) => {
                return Err(io::Error::other("an upload began before it was answered"));
            }
            Opening::Complete(job, _) => return Ok(job),
            Opening::Foreign => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Takes what has come off a connection without copying it (`MSG_TRUNC`, tcp(7)): its length, 0 at the end.
pub(super) async fn discard(socket: &TcpStream) -> io::Result<u64> {
    socket
        .async_io(Interest::READABLE, || {
            // SAFETY: with MSG_TRUNC TCP writes nothing to the buffer, which may then be null.
            let length = unsafe {
                libc::recv(
                    socket.as_raw_fd(),
                    std::ptr::null_mut(),
                    4 << 20,
                    libc::MSG_TRUNC,
                )
            };
            u64::try_from(length).map_err(|_| io::Error::last_os_error())
        })
        .await
}

async fn tls_service(mut socket: TcpStream, tls: TlsAcceptor, proxied: bool) -> io::Result<()> {
    socket.set_nodelay(true)?;
    if proxied {
        let mut header = [0; 16];
        socket.read_exact(&mut header).await?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
        socket.read_exact(&mut rest).await?;
    }
    let mut stream = tls.accept(socket).await?;
    let mut request = [0; 512];
    while stream.read(&mut request).await? > 0 {
        stream.write_all(ANSWER).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The length of the TLS server's answer.
pub(super) const fn answer_length() -> usize {
    ANSWER.len()
}

/// The acceptor's configuration, shared.
pub(super) type ServerTls = Arc<rustls::ServerConfig>;
