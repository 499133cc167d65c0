//! A plain TCP server that keeps every byte it gets: what was judged must be what is delivered.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Listening, plain};
use crate::error::{Context, Error, Result};
use crate::netns::Namespace;
use crate::socket;

/// How a connection of the recorder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Open,
    /// The other side finished.
    Fin,
    /// The other side reset it.
    Reset,
}

/// One connection as the recorder saw it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who connected, by address.
    pub peer: SocketAddr,
    /// Everything that came.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: End,
    socket: Arc<TcpStream>,
}

impl Connection {
    /// Sends bytes to the client.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        (&*self.socket)
            .write_all(bytes)
            .context(|| format!("sending to {}", self.peer))
    }

    /// Finishes this side; the client may go on sending.
    pub fn finish(&self) -> Result<()> {
        self.socket
            .shutdown(Shutdown::Write)
            .context(|| format!("finishing towards {}", self.peer))
    }

    /// Resets the connection.
    pub fn reset(&self) -> Result<()> {
        socket::close_with_reset(&self.socket).context(|| format!("resetting {}", self.peer))
    }

    /// Sends keep-alive probes from now on.
    pub fn keep_alive(&self, after: Duration) -> Result<()> {
        socket::keep_alive(&self.socket, after).context(|| format!("probing {}", self.peer))
    }
}

/// A listening recorder; it stops when dropped.
#[derive(Debug)]
pub struct Recorder {
    port: u16,
    _listening: Listening,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<Connection>>,
}

impl Recorder {
    /// Listens on a port of a namespace, on all its addresses.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let listening = Listening::start(namespace, port, move |socket| worker.accept(socket))?;
        Ok(Self {
            port,
            shared,
            _listening: listening,
        })
    }

    /// All connections so far, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.lock().clone()
    }

    /// Waits for a connection that is as wanted.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Connection> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = self
                .shared
                .lock()
                .iter()
                .find(|connection| wanted(connection))
            {
                return Ok(found.clone());
            }
            if Instant::now() >= end {
                let seen = self.connections();
                let detail = seen
                    .iter()
                    .map(|c| format!("  {} {} bytes, {:?}", c.peer, c.bytes.len(), c.end))
                    .collect::<Vec<_>>()
                    .join("\n");
                return Err(Error::Timeout {
                    what: format!("recorder on port {}: {what}", self.port),
                    waited: limit,
                    detail,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets all connections, and closes those that are open.
    pub fn clear(&self) {
        for connection in self.shared.lock().drain(..) {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, socket: TcpStream) {
        let Ok(peer) = socket.peer_addr() else { return };
        let socket = Arc::new(socket);
        let connection = Connection {
            peer: plain(peer),
            bytes: Vec::new(),
            end: End::Open,
            socket: Arc::clone(&socket),
        };
        self.lock().push(connection);
        let worker = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let end = loop {
                match (&*socket).read(&mut buffer) {
                    Ok(0) => break End::Fin,
                    Ok(length) => {
                        worker.update(&socket, |c| c.bytes.extend_from_slice(&buffer[..length]))
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break End::Reset,
                }
            };
            worker.update(&socket, |connection| connection.end = end);
        });
    }

    fn update(&self, socket: &Arc<TcpStream>, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self
            .lock()
            .iter_mut()
            .find(|c| Arc::ptr_eq(&c.socket, socket))
        {
            change(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
