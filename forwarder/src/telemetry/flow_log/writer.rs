//! The thread that writes lines: whatever it waits for, nobody waits for it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use tracing::{error, info};

use super::entry::{Dropped, Entry, Further, write_line};
use super::file::LogFile;
use super::journal::{self, Journal};
use super::lines::{Lines, Unwritten};
use crate::config::model::FlowLogTo;
use crate::telemetry::counters::Tally;

/// Messages that may wait.
const BACKLOG: usize = 8_192;
/// Messages that are written together.
const AT_ONCE: usize = 256;

/// What the writer is told.
#[derive(Debug)]
pub enum Message {
    /// A line.
    Entry(Box<Entry>),
    /// Lines were left out.
    Dropped(Dropped),
    /// Refusals without a line were summed up.
    Further(Further),
    /// Open the file again.
    Reopen,
}

/// Where lines go.
enum Sink {
    Log,
    Journal(Journal),
    Stdout(Lines),
    File(LogFile),
}

impl Sink {
    fn new(to: &FlowLogTo, max_size: u64) -> Option<Self> {
        Some(match to {
            FlowLogTo::None => return None,
            FlowLogTo::Log => Self::Log,
            FlowLogTo::Journald => Self::Journal(Journal::new(PathBuf::from(journal::SOCKET))),
            FlowLogTo::Stdout => Self::Stdout(Lines::default()),
            FlowLogTo::File(path) => Self::File(LogFile::new(path.clone(), max_size)),
        })
    }

    fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.reopen();
        }
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Unwritten> {
        match self {
            Self::Log => Ok(()),
            Self::Journal(journal) => journal.write(text),
            Self::Stdout(lines) => lines.write(&mut io::stdout().lock(), text),
            Self::File(file) => file.write(text),
        }
    }
}

/// The sending end, and how to learn that the thread has written everything.
#[derive(Debug)]
pub struct Writer {
    messages: SyncSender<Message>,
    done: Receiver<()>,
}

impl Writer {
    /// Starts a thread that writes to `to`; `None` if nothing is to be written, or no thread can be had.
    pub fn start(to: &FlowLogTo, max_size: u64, tally: Arc<Tally>) -> Option<Self> {
        let sink = Sink::new(to, max_size)?;
        let name = to.to_string();
        let (messages, received) = sync_channel(BACKLOG);
        let (alive, done) = channel();
        let work = move || {
            // Dropped at the end of the thread, whichever way that comes.
            let _alive = alive;
            Thread {
                sink,
                name,
                tally,
                text: Vec::new(),
                broken: false,
            }
            .run(&received);
        };
        match std::thread::Builder::new()
            .name("flow-log".into())
            .spawn(work)
        {
            Ok(_) => Some(Self { messages, done }),
            Err(error) => {
                error!(%error, "there is no flow log: no thread can be started for it");
                None
            }
        }
    }

    /// Passes a message on; gives it back if too many wait.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        self.messages
            .try_send(message)
            .map_err(|error| match error {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
            })
    }

    /// Waits until everything is written, but no longer than `limit`; says whether it is.
    pub fn finish(self, limit: Duration) -> bool {
        drop(self.messages);
        let waited = self.done.recv_timeout(limit);
        waited != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    }
}

struct Thread {
    sink: Sink,
    name: String,
    tally: Arc<Tally>,
    /// Lines that are not written yet.
    text: Vec<u8>,
    /// Whether the last write failed, which was said.
    broken: bool,
}

impl Thread {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let more = messages.try_iter().take(AT_ONCE - 1);
            let mut lines = 0;
            for message in std::iter::once(first).chain(more) {
                lines += u64::from(self.take(message));
            }
            self.write(lines);
        }
    }

    /// Makes a line of a message; says whether it did.
    fn take(&mut self, message: Message) -> bool {
        match (message, &self.sink) {
            (Message::Reopen, _) => {
                self.sink.reopen();
                return false;
            }
            (Message::Entry(entry), Sink::Log) => entry.log(),
            (Message::Dropped(dropped), Sink::Log) => {
                info!(target: "forwarder::flow", event = "dropped", dropped = dropped.dropped, "lines left out");
                return false;
            }
            (Message::Further(further), Sink::Log) => {
                info!(
                    target: "forwarder::flow", event = further.event, refused = further.refused,
                    seconds = further.seconds, "{}", further.summary
                );
                return false;
            }
            (Message::Entry(entry), _) => return self.line(&entry),
            (Message::Further(further), _) => {
                self.line(&further);
                return false;
            }
            (Message::Dropped(dropped), _) => {
                // It counts as no line: whoever compares lines with flows does not expect it.
                self.line(&dropped);
                return false;
            }
        }
        true
    }

    fn line(&mut self, value: &impl serde::Serialize) -> bool {
        let written = write_line(&mut self.text, value);
        // Texts and numbers always can be written.
        debug_assert!(written.is_ok(), "{written:?}");
        written.is_ok()
    }

    fn write(&mut self, lines: u64) {
        let missing = match self.sink.write(&self.text) {
            Ok(()) => {
                if self.broken && !self.text.is_empty() {
                    info!("the flow log is written to {} again", self.name);
                    self.broken = false;
                }
                0
            }
            Err(unwritten) => {
                if !self.broken {
                    error!(
                        error = &unwritten.source as &dyn std::error::Error,
                        "the flow log cannot be written to {}; its lines are lost, and counted, until it can",
                        self.name
                    );
                    self.broken = true;
                }
                unwritten.lines
            }
        };
        let missing = missing.min(lines);
        self.tally.flow_log.failed.add(missing);
        self.tally.flow_log.written.add(lines - missing);
        self.text.clear();
    }
}
