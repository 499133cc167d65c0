//! The client's side of the loads: connections made, used and closed, many at a time on one thread.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::job::REQUEST;
use super::server::{answer_length, discard};
use crate::bench::measure::{Meter, Usage};

/// How long one exchange may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// What is left out of a measurement at its beginning.
const WARM_UP: Duration = Duration::from_millis(200);

/// What many tasks count together.
#[derive(Debug, Default)]
pub struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    counting: AtomicBool,
    latencies: Mutex<Vec<u32>>,
    first_error: Mutex<Option<String>>,
}

impl Tally {
    /// Whether the tasks should go on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Counts units of work (connections, requests, bytes).
    pub fn count(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Counts one exchange and what it took.
    pub fn exchange(&self, began: Instant, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.count(1);
                if self.counting.load(Ordering::Relaxed) {
                    let tenths =
                        u32::try_from(began.elapsed().as_nanos() / 100).unwrap_or(u32::MAX);
                    lock(&self.latencies).push(tenths);
                }
            }
            Err(error) => self.failure(&error),
        }
    }

    /// Counts a failure.
    pub fn failure(&self, error: &io::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        lock(&self.first_error).get_or_insert_with(|| error.to_string());
    }
}

/// What was counted while the meter ran.
#[derive(Clone, Debug)]
pub struct Count {
    /// Units of work done.
    pub done: u64,
    /// Exchanges that failed.
    pub failed: u64,
    /// The first failure in words.
    pub first_error: Option<String>,
    /// What each exchange took, in tenths of a microsecond, ascending.
    pub latencies: Vec<u32>,
    /// What it cost the machine.
    pub usage: Usage,
}

impl Count {
    /// Units a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.usage.wall.as_secs_f64()
    }

    /// CPU time of the whole machine for each unit, in microseconds.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.usage.busy.as_secs_f64() * 1e6 / (self.done.max(1)) as f64
    }

    /// A quantile of the latencies in microseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies
            .get(at)
            .map_or(f64::NAN, |it| f64::from(*it) / 10.0)
    }
}

/// Runs `width` tasks until the time is up, and measures all but the beginning.
pub async fn load<F>(
    width: usize,
    duration: Duration,
    task: impl Fn(usize, Arc<Tally>) -> F,
) -> Count
where
    F: Future<Output = ()> + Send + 'static,
{
    let tally = Arc::new(Tally::default());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..width {
        tasks.spawn(task(number, Arc::clone(&tally)));
    }
    tokio::time::sleep(WARM_UP).await;
    tally.counting.store(true, Ordering::Relaxed);
    let failed = tally.failed.load(Ordering::Relaxed);
    let meter = Meter::start();
    let before = tally.done.load(Ordering::Relaxed);
    tokio::time::sleep(duration).await;
    let done = tally.done.load(Ordering::Relaxed) - before;
    let usage = meter.stop();
    let failed = tally.failed.load(Ordering::Relaxed) - failed;
    tally.counting.store(false, Ordering::Relaxed);
    tally.stop.store(true, Ordering::Relaxed);
    let end = tokio::time::Instant::now() + PATIENCE;
    while let Ok(Some(_)) = tokio::time::timeout_at(end, tasks.join_next()).await {}
    tasks.shutdown().await;
    let mut latencies = std::mem::take(&mut *lock(&tally.latencies));
    latencies.sort_unstable();
    Count {
        done,
        failed,
        first_error: lock(&tally.first_error).clone(),
        latencies,
        usage,
    }
}

/// Connects, with Nagle's algorithm off.
pub async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// One connection: hello, answer of `size` bytes, close.
pub async fn fetch(target: SocketAddr, hello: &[u8], size: usize) -> io::Result<()> {
    patiently(async {
        let mut socket = connect(target).await?;
        socket.write_all(hello).await?;
        receive(&mut socket, size).await
    })
    .await
}

/// One connection that must be refused: hello, then whatever comes, to the end.
pub async fn refused(target: SocketAddr, hello: &[u8]) -> io::Result<()> {
    patiently(async {
        let mut socket = connect(target).await?;
        socket.write_all(hello).await?;
        let mut bytes = Vec::new();
        match socket.read_to_end(&mut bytes).await {
            Ok(_) if bytes.len() > 64 => Err(io::Error::other("an unlisted name was answered")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error),
        }
    })
    .await
}

/// One TLS connection: handshake, a request, its answer, close.
pub async fn fetch_tls(
    target: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<()> {
    patiently(async {
        let socket = connect(target).await?;
        let mut stream = TlsConnector::from(config).connect(name, socket).await?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        let mut answer = [0; answer_length()];
        stream.read_exact(&mut answer).await?;
        stream.shutdown().await
    })
    .await
}

/// An open connection whose server answers requests.
#[derive(Debug)]
pub struct Kept {
    socket: TcpStream,
    answer: Vec<u8>,
}

impl Kept {
    /// Connects; the hello's job must be [`super::job::Job::Requests`] of `size`.
    pub async fn open(target: SocketAddr, hello: &[u8], size: usize) -> io::Result<Self> {
        patiently(async {
            let mut socket = connect(target).await?;
            socket.write_all(hello).await?;
            receive(&mut socket, size).await?;
            Ok(Self {
                socket,
                answer: vec![0; size],
            })
        })
        .await
    }

    /// One request and its answer.
    pub async fn request(&mut self) -> io::Result<()> {
        self.socket.write_all(&[0x5a; REQUEST]).await?;
        self.socket.read_exact(&mut self.answer).await.map(drop)
    }
}

/// Receives without end, counting bytes.
pub async fn download(target: SocketAddr, hello: &[u8], tally: &Tally) -> io::Result<()> {
    let mut socket = patiently(connect(target)).await?;
    socket.write_all(hello).await?;
    while tally.goes_on() {
        match patiently(discard(&socket)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => tally.count(length),
        }
    }
    Ok(())
}

/// Sends until told to stop, counting bytes; the server must have got as many.
pub async fn upload(target: SocketAddr, hello: &[u8], tally: &Tally) -> io::Result<()> {
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    let mut socket = patiently(connect(target)).await?;
    socket.write_all(hello).await?;
    // A server that reads a whole hello at once must not find the upload behind it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut sent = 0;
    while tally.goes_on() {
        let length = patiently(socket.write(&ZEROS)).await? as u64;
        tally.count(length);
        sent += length;
    }
    socket.shutdown().await?;
    let mut answer = [0; 8];
    patiently(socket.read_exact(&mut answer)).await?;
    if u64::from_be_bytes(answer) == sent {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{sent} bytes were sent and {} arrived",
            u64::from_be_bytes(answer)
        )))
    }
}

async fn receive(socket: &mut TcpStream, size: usize) -> io::Result<()> {
    let mut rest = size;
    let mut bytes = [0; 2048];
    while rest > 0 {
        let room = rest.min(bytes.len());
        match socket.read(&mut bytes[..room]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => rest -= length,
        }
    }
    Ok(())
}

async fn patiently<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
