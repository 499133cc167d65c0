//! The end that answers: plain TCP on a node, behind a PROXY v2 header or without.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{NOBODY, RECORD, Side, check, record};
use crate::error::{Context, Result};
use crate::netns::Namespace;
use crate::server::Listening;

/// A conversation needs little; there are many.
const STACK: usize = 64 << 10;
/// The first bytes of a PROXY v2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A server that answers conversations; they go on when it is closed, until their clients end them.
#[derive(Debug)]
pub struct Answerer {
    port: u16,
    proxied: bool,
    listening: Option<Listening>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Answerer {
    /// Listens on a port of a namespace, on all its addresses; `proxied` if connections begin with a
    /// PROXY v2 header.
    pub fn start(namespace: &Namespace, port: u16, proxied: bool) -> Result<Self> {
        let mut own = Self {
            port,
            proxied,
            listening: None,
            shared: Arc::default(),
        };
        own.listen(namespace)?;
        Ok(own)
    }

    /// Listens again after [`Self::close`].
    pub fn listen(&mut self, namespace: &Namespace) -> Result<()> {
        let (shared, proxied) = (Arc::clone(&self.shared), self.proxied);
        let accept = move |socket: TcpStream| {
            let worker = Arc::clone(&shared);
            worker.open.fetch_add(1, Ordering::Relaxed);
            let thread = std::thread::Builder::new().stack_size(STACK);
            let spawned = thread.spawn(move || {
                if let Err(error) = answer(socket, proxied) {
                    worker.fail(error.to_string());
                }
                worker.open.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = spawned {
                shared.fail(format!("no thread: {error}"));
            }
        };
        self.listening = Some(Listening::start(namespace, self.port, accept)?);
        Ok(())
    }

    /// Accepts no more: SYNs draw resets. Open conversations go on.
    pub fn close(&mut self) {
        self.listening = None;
    }

    /// Connections that are open at this end.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.shared.lock().clone()
    }
}

impl Shared {
    fn fail(&self, what: String) {
        self.lock().push(what);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers conversations on a port of the calling process's namespace until the process ends.
pub fn serve(port: u16, proxied: bool) -> Result<()> {
    let listener = crate::server::listen_everywhere(port)?;
    for socket in listener.incoming().map_while(io::Result::ok) {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let spawned = thread.spawn(move || {
            if let Err(error) = answer(socket, proxied) {
                eprintln!("conversation: {error}");
            }
        });
        spawned.context(|| "starting a thread".to_owned())?;
    }
    Ok(())
}

/// One conversation, until its client ends it. One that never says a word is a health check.
fn answer(mut socket: TcpStream, proxied: bool) -> io::Result<()> {
    socket.set_nodelay(true)?;
    if proxied {
        let mut header = [0; 16];
        if !begins(&mut socket, &mut header)? {
            return Ok(());
        }
        if header[..12] != *SIGNATURE {
            return Err(io::Error::other(format!("no PROXY header: {header:02x?}")));
        }
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        socket.read_exact(&mut vec![0; length])?;
    }
    let mut header = [0; 5];
    if !begins(&mut socket, &mut header)? {
        return Ok(());
    }
    if header[0] != 22 {
        return Err(io::Error::other(format!("no ClientHello: {header:02x?}")));
    }
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    socket.read_exact(&mut vec![0; length])?;
    socket.write_all(&record(Side::Server, NOBODY, 0))?;
    let mut conversation = None;
    for number in 0.. {
        let mut got = [0; RECORD];
        if !begins(&mut socket, &mut got)? {
            break;
        }
        let [a, b, c, d, ..] = got;
        let own = *conversation.get_or_insert(u32::from_be_bytes([a, b, c, d]));
        check(&got, Side::Client, own, number)?;
        socket.write_all(&record(Side::Server, own, number))?;
    }
    Ok(())
}

/// Reads a whole piece; `false` if the other end has finished or given up before its first byte.
fn begins(socket: &mut TcpStream, piece: &mut [u8]) -> io::Result<bool> {
    let first = match socket.read(piece) {
        Ok(0) => return Ok(false),
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
        Err(error) => return Err(error),
    };
    socket.read_exact(&mut piece[first..])?;
    Ok(true)
}
