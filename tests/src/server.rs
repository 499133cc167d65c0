//! Servers for the nodes: real ones (nginx, HAProxy; Prometheus for the entrance), and two of our own that tell more than those
//! can: [`web`] (TLS by rustls) and [`recorder`] (plain TCP, for byte-exact questions).

pub mod haproxy;
pub mod nginx;
pub mod prometheus;
pub mod proxy_header;
pub mod recorder;
pub mod web;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::netns::Namespace;
use crate::process::Daemon;

/// A listener that accepts on a thread of its own until this is dropped.
#[derive(Debug)]
pub(crate) struct Listening(TcpListener);

impl Listening {
    /// Listens on all addresses of a namespace and hands over each connection.
    pub(crate) fn start(
        namespace: &Namespace,
        port: u16,
        mut accept: impl FnMut(TcpStream) + Send + 'static,
    ) -> Result<Self> {
        let listener = namespace.enter(|| listen_everywhere(port))??;
        let kept = listener
            .try_clone()
            .context(|| "duplicating a listening socket".to_owned())?;
        namespace.spawn("accept", move || {
            for socket in listener.incoming().map_while(std::result::Result::ok) {
                accept(socket);
            }
        })?;
        Ok(Self(kept))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then lets go of the port.
        // SAFETY: shutdown takes plain numbers; the descriptor is open.
        unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Listens on all addresses, IPv6 and IPv4, of the calling thread's namespace.
pub(crate) fn listen_everywhere(port: u16) -> Result<TcpListener> {
    TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port))
        .context(|| format!("listening on port {port}"))
}

/// Waits until a daemon accepts connections on a port of its namespace.
fn wait_listening(daemon: &Daemon, namespace: &Namespace, port: u16) -> Result<()> {
    let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    daemon.wait_until(
        &format!("listening on port {port}"),
        Duration::from_secs(10),
        || {
            let tried = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
            namespace.enter(tried).unwrap_or(false)
        },
    )
}

/// IPv4 addresses as such, not mapped into IPv6 as a dual-stack socket shows them.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
