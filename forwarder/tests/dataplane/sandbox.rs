//! A thread with a network namespace and a bpf file system of its own. Both go with the thread.

use std::path::Path;
use std::process::Command;

use forwarder::link::Network;
use forwarder::link::survey::Surveyor;

/// Runs `test` in a sandbox; its argument is a directory on a fresh bpf file system. Needs root: without
/// it the test says so and ends.
pub fn sandboxed(test: impl FnOnce(&Path) + Send + 'static) {
    // SAFETY: no argument, no memory.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().join("bpf");
        std::fs::create_dir(&mount).unwrap();
        enter(&mount);
        // Unmounted before the directory is removed, also when the test panics.
        let _mounted = Mounted(&mount);
        test(&mount);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter(directory: &Path) {
    // SAFETY: no pointers; only this thread changes its namespaces.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) };
    assert_eq!(unshared, 0, "unshare: {}", std::io::Error::last_os_error());
    run("mount --make-rprivate /");
    run(&format!("mount -t bpf bpf {}", directory.display()));
    run("ip link set lo up");
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Runs a command in the sandbox of this thread.
pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

/// A public interface and a tunnel; the other ends stand for clients and nodes.
pub fn interfaces() {
    for command in [
        "ip link add pub0 type veth peer name cli0",
        "ip link add tun0 type veth peer name nod0",
        "ip addr add 203.0.113.7/24 dev pub0",
        "ip addr add 10.0.0.1/24 dev tun0",
        "ip link set tun0 mtu 1420",
        "ip link set pub0 up",
        "ip link set cli0 up",
        "ip link set tun0 up",
        "ip link set nod0 up",
    ] {
        run(command);
    }
}

/// What the kernel says of this thread's network.
pub fn survey(destinations: &[std::net::IpAddr]) -> Network {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let surveyor = Surveyor::open().unwrap();
        surveyor.survey(destinations.iter().copied()).await.unwrap()
    })
}
