//! The end that asks: one conversation, a crowd of them, and clients that come and go.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{NOBODY, RECORD, Side, check, record};
use crate::error::{Context, Error, Result};
use crate::hello::Hello;
use crate::netns::Namespace;

/// How long an answer may take until it counts as lost.
const LOST: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    socket: TcpStream,
    id: u32,
    sent: u32,
    answered: u32,
}

impl Conversation {
    /// Connects from the calling thread's namespace, sends the ClientHello and waits for the greeting.
    pub fn open(entrance: SocketAddr, name: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&entrance, LOST)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOST))?;
        socket.set_write_timeout(Some(LOST))?;
        socket.write_all(&Hello::small(name).record())?;
        let mut greeting = [0; RECORD];
        socket.read_exact(&mut greeting)?;
        check(&greeting, Side::Server, NOBODY, 0)?;
        Ok(Self {
            socket,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sent: 0,
            answered: 0,
        })
    }

    /// Sends the next record.
    pub fn ask(&mut self) -> io::Result<()> {
        self.socket
            .write_all(&record(Side::Client, self.id, self.sent))?;
        self.sent += 1;
        Ok(())
    }

    /// Waits for the answer to the oldest record that has none, and checks it.
    pub fn hear(&mut self) -> io::Result<()> {
        let mut got = [0; RECORD];
        self.socket.read_exact(&mut got)?;
        check(&got, Side::Server, self.id, self.answered)?;
        self.answered += 1;
        Ok(())
    }

    /// Sends a record and waits for its answer.
    pub fn exchange(&mut self) -> io::Result<()> {
        self.ask()?;
        self.hear()
    }

    /// How long an answer may take.
    pub fn limit(&self, time: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(time))
    }

    /// Waits until the other side ends it, and says how it did: an error, or `None` for FIN. Whatever
    /// it says before that is passed over.
    pub fn end(&mut self, limit: Duration) -> io::Result<Option<io::ErrorKind>> {
        self.limit(limit)?;
        let mut rest = [0; RECORD];
        loop {
            match self.socket.read(&mut rest) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => return Ok(Some(error.kind())),
            }
        }
    }

    /// This end's address.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Conversations that go on by themselves, a record each in every round.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    rounds: AtomicU64,
    slowest_ms: AtomicU64,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl Crowd {
    /// Opens a conversation for each `(entrance, name)` from a namespace, exchanges a record on each, and
    /// then one in every round; a round begins no sooner than `pause` after the one before.
    pub fn start(
        namespace: &Namespace,
        to: Vec<(SocketAddr, String)>,
        pause: Duration,
    ) -> Result<Self> {
        let open = || -> io::Result<Vec<_>> {
            let open =
                |(entrance, name): &(SocketAddr, String)| Conversation::open(*entrance, name);
            let mut all = to.iter().map(open).collect::<io::Result<Vec<_>>>()?;
            all.iter_mut().try_for_each(Conversation::exchange)?;
            Ok(all)
        };
        let all = namespace
            .enter(open)?
            .context(|| "opening a crowd of conversations".to_owned())?;
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let thread = std::thread::spawn(move || worker.talk(all, pause));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits until so many further rounds are complete.
    pub fn rounds(&self, count: u64) -> Result<()> {
        let goal = self.shared.rounds.load(Ordering::Acquire) + count;
        let begin = Instant::now();
        while self.shared.rounds.load(Ordering::Acquire) < goal {
            if begin.elapsed() > LOST * 2 {
                return Err(Error::Timeout {
                    what: format!("{count} rounds of a crowd"),
                    waited: begin.elapsed(),
                    detail: self.failures().join("\n"),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What went wrong so far: each conversation fails once and is silent from then on.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// How long the slowest round took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.shared.slowest_ms.load(Ordering::Relaxed))
    }

    /// Complete rounds so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.shared.rounds.load(Ordering::Acquire)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn talk(&self, mut all: Vec<Conversation>, pause: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            for half in [Conversation::ask, Conversation::hear] {
                all.retain_mut(|own| match half(own) {
                    Ok(()) => true,
                    Err(error) => {
                        let number = own.answered;
                        let text = format!("conversation {} at record {number}: {error}", own.id);
                        lock(&self.failures).push(text);
                        false
                    }
                });
            }
            let took = begin.elapsed();
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.slowest_ms.fetch_max(ms, Ordering::Relaxed);
            self.rounds.fetch_add(1, Ordering::Release);
            std::thread::sleep(pause.saturating_sub(took));
        }
    }
}

/// Clients that come, exchange a few records and go, one after the other.
#[derive(Debug)]
pub struct Newcomers {
    shared: Arc<Shared>,
    gate: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Newcomers {
    /// Connects to each `(entrance, name)` in turn, with a pause in between.
    pub fn start(
        namespace: &Namespace,
        to: Vec<(SocketAddr, String)>,
        pause: Duration,
    ) -> Result<Self> {
        let (shared, gate) = (Arc::new(Shared::default()), Arc::new(Mutex::new(())));
        let (worker, held) = (Arc::clone(&shared), Arc::clone(&gate));
        let come = move || {
            for (entrance, name) in to.iter().cycle() {
                if worker.stop.load(Ordering::Relaxed) {
                    return;
                }
                let begin = Instant::now();
                let visit = || -> io::Result<()> {
                    let _gate = lock(&held);
                    let mut own = Conversation::open(*entrance, name)?;
                    (0..3).try_for_each(|_| own.exchange())
                };
                if let Err(error) = visit() {
                    let text = format!("{name} by {entrance}: {error}");
                    lock(&worker.failures).push(text);
                }
                let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                worker.slowest_ms.fetch_max(ms, Ordering::Relaxed);
                worker.rounds.fetch_add(1, Ordering::Release);
                std::thread::sleep(pause);
            }
        };
        // Scoped to the namespace, and joined at the end.
        let (to_handle, from) = std::sync::mpsc::channel();
        namespace.enter(|| to_handle.send(std::thread::spawn(come)).is_ok())?;
        Ok(Self {
            shared,
            gate,
            thread: from.recv().ok(),
        })
    }

    /// Does something while none is under way.
    pub fn between<T>(&self, job: impl FnOnce() -> T) -> T {
        let _gate = lock(&self.gate);
        job()
    }

    /// How many came so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.rounds.load(Ordering::Acquire)
    }

    /// What went wrong so far.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// How long the slowest took, from its SYN to its last answer.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.shared.slowest_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
