//! One file for each contender. The configurations of those that are programs of others are in
//! `bench/configs/`, with `@NAMES@` in place of what depends on the run.

pub mod direct;
pub mod forwarder;
pub mod haproxy;
pub mod nftables;
pub mod nginx;
pub mod redirect;
pub mod routing;
pub mod shield;
pub mod sniproxy;

use std::fmt::Display;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::lab::Family;
use crate::process::Daemon;

use super::contender::Capacity;
use super::load::descriptors;
use super::load::server::SERVICES;
use super::scene::{NAME, Scene};

/// How long a program may take until it serves.
const START: Duration = Duration::from_secs(60);

/// Fills in a configuration.
fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), &value.to_string())
        })
}

/// Writes a file.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).context(|| format!("writing {}", path.display()))
}

/// A line for each listed name.
fn names(capacity: Capacity, line: impl Fn(&str) -> String) -> String {
    std::iter::once(NAME.to_owned())
        .chain(capacity.other_names())
        .map(|name| line(&name))
        .collect()
}

/// How many connections a proxy's process can have: it needs a descriptor towards each side, and HAProxy
/// one end of a pipe for every other connection.
#[must_use]
pub fn proxied_connections(capacity: Capacity) -> usize {
    capacity
        .flows
        .min(descriptors().saturating_sub(1_000) * 2 / 5)
}

/// A log that nothing has been written to yet.
fn fresh_log(scene: &Scene, program: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    scene
        .lab
        .folder()
        .join(format!("bench-{program}-{number}.log"))
}

/// Replaces a text in a file and tells a program of it.
fn rename_in(file: PathBuf, pid: u32, signal: i32) -> impl Fn(&str, &str) -> Result<()> {
    move |from, to| {
        let reading = || format!("reading {}", file.display());
        let text = std::fs::read_to_string(&file).context(reading)?;
        write(&file, &text.replace(from, to))?;
        // SAFETY: a signal to a process that this one started.
        match unsafe { libc::kill(pid.cast_signed(), signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context(|| format!("signalling {pid}")),
        }
    }
}

/// The node's address in the tunnel.
fn node(scene: &Scene) -> std::net::IpAddr {
    scene.node().address(Family::V4)
}

/// The same of IPv6.
fn node_v6(scene: &Scene) -> std::net::IpAddr {
    scene.node().address(Family::V6)
}

/// Waits until a program at the entrance accepts connections for every service.
fn wait_serving(daemon: &Daemon, scene: &Scene) -> Result<()> {
    daemon.wait_until("accepting connections", START, || {
        let tried = || {
            SERVICES.iter().all(|port| {
                let address = (scene.public(), *port).into();
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            })
        };
        scene.lab.entrance.enter(tried).unwrap_or(false)
    })
}

/// A process and those below it.
fn family(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn every_place_is_filled() {
        let text = fill("a @X@ b @Y@ c @X@", &[("X", &1), ("Y", &"two")]);
        assert_eq!(text, "a 1 b two c 1");
    }
}
