//! A part of the daemon that panics: it is never a part alone that is gone.

use std::process::{Command, Stdio};
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::command::output;
use forwarder_tests::forwarder::entrance_section;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::site::{Site, configuration};

/// Sweeps are ten seconds apart.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_panic_anywhere_ends_the_daemon_and_nothing_else() -> Result<()> {
    let mut site = Site::build(Lab::builder().tunnel(TunnelKind::Ethernet, 2));
    let own = configuration(site.lab);
    let checked = own.replacen(
        "[[pool]]\n",
        "[[pool]]\nhealth = { check = \"tcp\", interval = \"300ms\" }\n",
        1,
    );
    assert_ne!(own, checked);
    let entrance = entrance_section(site.lab);
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9469\"\n";
    site.forwarder
        .write_config(&format!("{entrance}{metrics}{checked}"))?;
    for part in ["sweep", "check", "control", "metrics"] {
        site.forwarder.stop();
        let log = site.lab.folder().join(format!("panic-{part}.log"));
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = site.forwarder.command()?;
        command
            .args(["--log-format", "human", "run"])
            .env("FORWARDER_PANIC", part)
            .stdin(Stdio::null())
            .stderr(file);
        let mut daemon = command.spawn().expect("a daemon");
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let mut code = None;
        let ended = wait_until("its end", SOON, || {
            if !read().contains("forwarding") {
                return false;
            }
            let asks: Option<Command> = match part {
                "control" => site.forwarder.command().ok().map(|mut own| {
                    own.args(["node", "ls"]);
                    own
                }),
                "metrics" => site.lab.entrance.command("curl").ok().map(|mut own| {
                    own.args(["-s", "-m", "2", "http://127.0.0.1:9469/metrics"]);
                    own
                }),
                _ => None,
            };
            if let Some(mut asks) = asks {
                let _ = output(&mut asks);
            }
            code = daemon.try_wait().ok().flatten();
            code.is_some()
        });
        let _ = daemon.kill();
        let _ = daemon.wait();
        let said = read();
        assert!(ended.is_ok(), "{part}: it went on: {said}");
        assert_eq!(code.and_then(|own| own.code()), Some(101), "{part}: {said}");
        assert!(said.contains("a defect of this program"), "{part}: {said}");
        assert!(said.contains(&format!("asked for in {part}")), "{said}");
        // Nobody who connects notices, and the next daemon takes over.
        assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
        site.forwarder.run()?;
        assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    }
    Ok(())
}
