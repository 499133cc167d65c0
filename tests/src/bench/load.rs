//! The loads: a client and a server of our own that cost little, so that what stands between them shows.
//!
//! Both run on one thread each, the client in the client's namespace on the first processor, the server
//! in the node's namespace on another (where there is another). Neither knows what is in between.

pub mod client;
pub mod control;
pub mod flood;
pub mod job;
pub mod server;
pub mod tls;
pub mod vanish;

use std::future::Future;
use std::sync::OnceLock;

use crate::error::{Context, Result};
use crate::netns::Namespace;

/// Which processor a thread is kept on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first: clients.
    Client,
    /// The second, or the first where there is only one: servers, and the source of floods.
    Node,
}

impl Place {
    fn processor(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Node => 1 % processors(),
        }
    }

    /// Keeps the calling thread there. A machine that does not allow it is used as it is.
    pub fn keep(self) {
        // SAFETY: an all-zero cpu_set_t is an empty set; CPU_SET writes inside it, for the number is
        // far below its 1,024 bits; the pointer is to a local.
        unsafe {
            let mut set = std::mem::zeroed::<libc::cpu_set_t>();
            libc::CPU_SET(self.processor(), &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }
}

/// How many processors this process may use.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a future to its end on a thread inside a namespace, kept on a processor.
pub fn block_on<T: Send>(
    namespace: &Namespace,
    place: Place,
    future: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    namespace.enter(|| {
        place.keep();
        runtime()?.block_on(future)
    })?
}

/// Raises how many descriptors a process may have, for this one and its children, as far as that is
/// allowed, and tells how many it is then.
pub fn descriptors() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        if let Ok(most) = most.trim().parse() {
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            // SAFETY: the pointer is to a local. A refusal leaves the limit as it is.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        }
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the pointer is to a local.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        usize::try_from(limit.rlim_cur).unwrap_or(1 << 20)
    })
}

/// A single-threaded runtime.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "starting a runtime".to_owned())
}
