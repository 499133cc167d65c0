//! What was started or reloaded on probation: it goes unless somebody confirms, whatever becomes of the daemon.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::command::{output, run};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::site::{Site, configuration};

/// The verifier is slow on a busy machine.
const START: Duration = Duration::from_secs(60);
/// Everything else.
const SOON: Duration = Duration::from_secs(60);

/// A daemon that these tests start and end themselves.
struct Daemon(Child);

impl Daemon {
    /// Starts one and waits until it forwards.
    fn start(forwarder: &Forwarder<'_>, log: &std::path::Path, arguments: &[&str]) -> Result<Self> {
        let file = std::fs::File::create(log).expect("a log");
        let mut command = forwarder.command()?;
        command
            .args(["--log-format", "human", "run"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let own = Self(command.spawn().expect("a daemon"));
        wait_until("a daemon that forwards", START, || {
            std::fs::read_to_string(log).is_ok_and(|said| said.contains("forwarding"))
        })?;
        Ok(own)
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        // SAFETY: takes two numbers; the process is our child and was not waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// Its exit code; `None` for a signal.
    fn ended(&mut self) -> Result<Option<i32>> {
        let mut code = None;
        wait_until("its end", SOON, || {
            code = self.0.try_wait().ok().flatten();
            code.is_some()
        })?;
        Ok(code.and_then(|own| own.code()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pins(forwarder: &Forwarder<'_>) -> usize {
    std::fs::read_dir(forwarder.bpffs()).map_or(0, Iterator::count)
}

fn start() -> Site {
    let mut site = Site::build(Lab::builder().tunnel(TunnelKind::Ethernet, 2));
    site.forwarder.stop();
    let said = run(site
        .forwarder
        .command()
        .expect("a command")
        .args(["unload", "--yes"]));
    assert!(said.is_ok(), "{said:?}");
    site
}

#[test]
fn a_daemon_that_is_stopped_before_it_is_confirmed_leaves_nothing() -> Result<()> {
    let site = start();
    let log = site.lab.folder().join("confirm.log");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut daemon = Daemon::start(&site.forwarder, &log, &["--confirm", "10m"])?;
        assert!(pins(&site.forwarder) > 0);
        daemon.signal(signal);
        assert_eq!(daemon.ended()?, Some(3), "{signal}");
        assert_eq!(pins(&site.forwarder), 0, "signal {signal}: pins are left");
    }
    // Confirmed, it ends as any other.
    let mut daemon = Daemon::start(&site.forwarder, &log, &["--confirm", "10m"])?;
    let said = run(site.forwarder.command()?.arg("confirm"))?;
    assert!(said.starts_with("confirmed"), "{said}");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended()?, Some(0));
    assert!(pins(&site.forwarder) > 0, "what was confirmed is gone");
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_before_it_is_confirmed_leaves_nothing_after_its_time() -> Result<()> {
    let site = start();
    let log = site.lab.folder().join("confirm.log");
    let begin = Instant::now();
    let mut daemon = Daemon::start(&site.forwarder, &log, &["--confirm", "12s"])?;
    daemon.signal(libc::SIGKILL);
    daemon.ended()?;
    assert!(pins(&site.forwarder) > 0 || begin.elapsed() > Duration::from_secs(11));
    wait_until("everything to be gone", SOON, || pins(&site.forwarder) == 0)?;
    // It started to count when it started.
    assert!(
        begin.elapsed() > Duration::from_secs(11),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

#[test]
fn a_daemon_that_takes_over_obeys_the_time_of_the_one_that_was_killed() -> Result<()> {
    let site = start();
    let log = site.lab.folder().join("confirm.log");
    let mut daemon = Daemon::start(&site.forwarder, &log, &["--confirm", "40s"])?;
    daemon.signal(libc::SIGKILL);
    daemon.ended()?;
    let mut next = Daemon::start(&site.forwarder, &log, &[])?;
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(said.contains("a former daemon was not confirmed"), "{said}");
    let mut code = None;
    wait_until("its end", Duration::from_secs(45), || {
        code = next.0.try_wait().ok().flatten();
        code.is_some()
    })?;
    assert_eq!(code.and_then(|own| own.code()), Some(3));
    assert_eq!(pins(&site.forwarder), 0, "pins are left");
    // A start after that is a new decision.
    let next = Daemon::start(&site.forwarder, &log, &[])?;
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    drop(next);
    Ok(())
}

#[test]
fn a_reload_that_nobody_confirms_is_undone() -> Result<()> {
    let mut site = Site::build(Lab::builder().tunnel(TunnelKind::Ethernet, 2));
    let own = configuration(site.lab);
    let changed = own.replacen("\"www.example.org\"", "\"new.example.org\"", 1);
    assert_ne!(own, changed);
    let reload = |site: &Site, time: &str| -> Result<()> {
        site.forwarder.write_config(&changed)?;
        let said = run(site
            .forwarder
            .command()?
            .args(["reload", "--confirm", time]))?;
        assert!(said.contains("forwarder confirm"), "{said}");
        assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
        Ok(())
    };
    let is_old = |site: &Site| -> Result<()> {
        assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
        let new = site.curl(Family::V4, "new.example.org", "/")?.run()?;
        assert_eq!(new.status, 0, "it was not confirmed");
        Ok(())
    };
    reload(&site, "8s")?;
    wait_until("the former configuration", SOON, || {
        site.forwarder.log().contains("not confirmed in time")
    })?;
    is_old(&site)?;
    // Nor does a daemon that starts now take the files for confirmed.
    site.forwarder.kill()?;
    site.forwarder.run()?;
    is_old(&site)?;
    // One that starts in between goes on waiting.
    reload(&site, "30s")?;
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(12));
    site.forwarder.kill()?;
    site.forwarder.run()?;
    let again = begin.elapsed();
    assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
    wait_until("the former configuration", SOON, || {
        site.report(Family::V4, "www.example.org").is_ok()
    })?;
    let anew = again + Duration::from_secs(28);
    assert!(begin.elapsed() < anew, "it began to wait anew");
    is_old(&site)?;
    // One that is stopped goes back at once.
    reload(&site, "10m")?;
    site.forwarder.stop();
    is_old(&site)?;
    site.forwarder.run()?;
    is_old(&site)?;
    // And confirmed is confirmed.
    reload(&site, "8s")?;
    let said = run(site.forwarder.command()?.arg("confirm"))?;
    assert!(said.starts_with("confirmed"), "{said}");
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
    site.forwarder.kill()?;
    site.forwarder.run()?;
    assert_eq!(site.report(Family::V4, "new.example.org")?.server, "node0");
    let wrong = output(
        site.forwarder
            .command()?
            .args(["reload", "--confirm", "soon"]),
    )?;
    assert_eq!(wrong.status.code(), Some(2));
    Ok(())
}
