//! Standard output and standard error of the verbs. Whoever reads them may go, as `head` does: then the verb ends as other
//! programs do, by SIGPIPE and without a word.

use std::io::{self, Write, stderr, stdout};

use anyhow::Context;

/// Writes text to standard output.
pub fn show(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
        .context("cannot write the answer")
}

/// Writes text to standard error.
pub fn tell(text: &str) -> anyhow::Result<()> {
    let mut out = stderr().lock();
    written(out.write_all(text.as_bytes())).context("cannot write to standard error")
}

/// Ends the process if nobody reads any more.
pub fn written(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => end_by_sigpipe(),
        other => other,
    }
}

/// Rust programs ignore SIGPIPE, which is right for sockets; whoever waits for this one still sees what it expects.
fn end_by_sigpipe() -> ! {
    // SAFETY: takes two numbers; the default action is that of the kernel.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: takes a number, and ends the process.
    unsafe { libc::raise(libc::SIGPIPE) };
    // Where the signal is blocked.
    std::process::exit(128 + libc::SIGPIPE)
}
