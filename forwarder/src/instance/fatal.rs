//! A panic anywhere ends the process.
//!
//! Work goes on in many places: tasks of the runtime, threads for what blocks, threads of libraries. One that panicked
//! would be missed by nobody until what it did is needed: flows that never expire, nodes that nobody checks. So the
//! process ends, loudly, and the service manager starts another; the programs in the kernel forward all the while.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use tracing::error;

/// The process' exit code after a panic, as Rust's own where it ends `main`.
pub const EXIT_CODE: i32 = 101;

/// The last words may take so many seconds; a panic may have happened while somebody held what they need.
const LAST_WORDS: u32 = 5;

/// From now on a panic of any thread ends the process.
pub fn end_at_a_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // SAFETY: takes a number and cannot fail. Nothing else in this process asks for SIGALRM, which ends it.
        unsafe { libc::alarm(LAST_WORDS) };
        last_words(panic);
        // SAFETY: ends the process at once. Destructors would run beside threads that go on.
        unsafe { libc::_exit(EXIT_CODE) }
    }));
}

fn last_words(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(
        place,
        thread = thread.name(),
        backtrace,
        "a defect of this program: {message}; the daemon ends with code {EXIT_CODE}. Programs stay attached and flows go on"
    );
}

/// Lets tests make a part of the daemon panic: `FORWARDER_PANIC` names it. Programs for use do not look.
pub fn point(part: &str) {
    if cfg!(debug_assertions) && std::env::var("FORWARDER_PANIC").is_ok_and(|own| own == part) {
        panic!("asked for in {part}");
    }
}
