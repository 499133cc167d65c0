//! The loop at the terminal: keys, samples and signals come in, pictures go out.
//!
//! Keys, samples and signals each have a thread of their own, so that a daemon that is slow to answer does not
//! make the keyboard slow. However it ends (a key, an error, a panic, a signal), the terminal is as it was before.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::{DefaultTerminal, Terminal};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use super::app::{App, Next};
use super::sample::Sample;
use crate::control::client::{Client, ClientError};

/// Why there is no live view.
#[derive(Debug, Error)]
pub enum TopError {
    /// The daemon does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The terminal does not do what it is told.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    /// Signals cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
}

/// What comes in.
enum Message {
    Terminal(io::Result<Event>),
    Sample(Box<Result<Sample, ClientError>>),
    End,
}

/// Shows the daemon behind `client` until somebody has seen enough.
pub fn run(client: Client, interval: Duration) -> Result<(), TopError> {
    // Before the terminal is taken, so that "no daemon" is a line like any other.
    let first = Sample::take(&client)?;
    let (to, messages) = mpsc::channel();
    end_by_signal(to.clone())?;
    // From here on a panic gives the terminal back, too.
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    listen(to.clone());
    look(client, interval, to);
    let mut app = App::default();
    app.take(Ok(first));
    let result = show(&mut app, &mut terminal, &messages);
    let restored = ratatui::try_restore();
    result.and(restored).map_err(TopError::Terminal)
}

fn show(
    app: &mut App,
    terminal: &mut DefaultTerminal,
    messages: &Receiver<Message>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| app.draw(frame))?;
        // The senders live as long as the process.
        match messages.recv().unwrap_or(Message::End) {
            Message::Terminal(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                if app.key(key) == Next::Quit {
                    return Ok(());
                }
            }
            // Another size: drawn at once, as after everything.
            Message::Terminal(Ok(_)) => {}
            Message::Terminal(Err(error)) => return Err(error),
            Message::Sample(sample) => app.take(sample.map_err(|error| error.to_string())),
            Message::End => return Ok(()),
        }
    }
}

fn listen(to: Sender<Message>) {
    thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if to.send(Message::Terminal(event)).is_err() || failed {
                return;
            }
        }
    });
}

/// Takes samples, `interval` from one to the next, however long one takes.
fn look(client: Client, interval: Duration, to: Sender<Message>) {
    thread::spawn(move || {
        let mut due = Instant::now();
        loop {
            due = (due + interval).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sample = Box::new(Sample::take(&client));
            if to.send(Message::Sample(sample)).is_err() {
                return;
            }
        }
    });
}

/// `kill`, and the end of the session that the terminal belongs to.
fn end_by_signal(to: Sender<Message>) -> Result<(), TopError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(TopError::Signals)?;
    let guard = runtime.enter();
    let catch = |kind| signal(kind).map_err(TopError::Signals);
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut terminate = catch(SignalKind::terminate())?;
    let mut hang_up = catch(SignalKind::hangup())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        // Whoever would hear it has ended already.
        let _ = to.send(Message::End);
    });
    Ok(())
}

/// One picture as text, of two samples that are `interval` apart.
pub fn once(client: &Client, interval: Duration, size: (u16, u16)) -> Result<String, TopError> {
    let mut app = App::default();
    app.take(Ok(Sample::take(client)?));
    thread::sleep(interval);
    app.take(Ok(Sample::take(client)?));
    Ok(text(&mut app, size))
}

/// What the app would draw on a terminal of that many columns and lines; blank ends left out.
pub(super) fn text(app: &mut App, (columns, lines): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, lines));
    let Ok(_) = terminal.draw(|frame| app.draw(frame));
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(columns.max(1)));
    let rows = rows.map(|row| {
        let row: String = row.iter().map(|cell| cell.symbol()).collect();
        row.trim_end().to_owned() + "\n"
    });
    rows.collect()
}
