//! Takes things down exactly once: when their guard is dropped, or at the end of the process.
//!
//! A lab that is shared by the tests of a file lives in a `static`, and statics are never dropped.
//! So every namespace, mount, folder and child registers here what undoes it, and `atexit` runs
//! what is left, newest first.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::Once;

type Action = Box<dyn FnOnce() + Send>;

static PENDING: Mutex<Pending> = Mutex::new(Pending {
    next: 0,
    actions: BTreeMap::new(),
});
static AT_EXIT: Once = Once::new();

struct Pending {
    next: u64,
    actions: BTreeMap<u64, Action>,
}

/// Runs its action when dropped, unless the end of the process came first.
#[derive(Debug)]
#[must_use = "the action runs as soon as the guard is dropped"]
pub struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        let action = lock().actions.remove(&self.0);
        if let Some(action) = action {
            action();
        }
    }
}

/// Registers what undoes something that was just done.
pub fn on_end(action: impl FnOnce() + Send + 'static) -> Guard {
    AT_EXIT.call_once(|| {
        // SAFETY: `run_all` is a plain function without arguments that never unwinds (see there).
        unsafe { libc::atexit(run_all) };
    });
    let mut pending = lock();
    let key = pending.next;
    pending.next += 1;
    pending.actions.insert(key, Box::new(action));
    Guard(key)
}

/// Forgets everything that is registered, so that the lab outlives this process (`demo --keep`).
pub fn keep_all() {
    lock().actions.clear();
}

/// Makes SIGINT and SIGTERM end the process in the orderly way, which runs the clean-up.
///
/// Call it first thing in `main`, before any thread exists: it blocks both signals in all of them.
pub fn on_signal_exit() {
    // SAFETY: the set is initialised by sigemptyset before it is read; all pointers are to a local.
    let set = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both pointers are to locals that outlive the call.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        eprintln!("\nsignal {signal}: taking the lab down");
        std::process::exit(128 + signal);
    });
}

extern "C" fn run_all() {
    loop {
        let last = lock().actions.pop_last();
        let Some((_, action)) = last else { return };
        // Unwinding out of an `extern "C"` function would abort before the rest is undone.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
    }
}

fn lock() -> std::sync::MutexGuard<'static, Pending> {
    PENDING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_dropped_guard_runs_its_action_once() {
        let runs = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&runs);
        let guard = super::on_end(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        drop(guard);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
}
