//! The armour: it comes with a flood and leaves after it, nobody else notices, and where it cannot be worn
//! that is told and harmless.

use std::os::fd::OwnedFd;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::bench::bpf;
use forwarder_tests::command::run;
use forwarder_tests::error::Context;
use forwarder_tests::ethtool::Offloads;
use forwarder_tests::flood::{Flood, Kind};
use forwarder_tests::forwarder::entrance_section;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::PATIENCE;
use forwarder_tests::site::{Site, configuration};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);
/// Packets a second of each flood: enough to be one, little enough for a busy machine.
const RATE: u64 = 1_000;

/// A site, and an ear at the other end of its public interface.
fn start() -> Result<(Site, OwnedFd)> {
    let lab = Lab::builder()
        .clients(2)
        .tunnel(TunnelKind::Ethernet, 2)
        .offloads(Offloads::ALL);
    let site = Site::build(lab);
    let ear = site.lab.router.enter(|| bpf::ear("p0"))?;
    let ear = ear.context(|| String::from("an XDP program at the router"))?;
    Ok((site, ear))
}

fn use_armour(site: &mut Site, keys: &str) -> Result<()> {
    let entrance = entrance_section(site.lab);
    site.forwarder.write_config(&format!(
        "{entrance}xdp_veth = true\n{keys}\n{}",
        configuration(site.lab)
    ))?;
    run(site.forwarder.command()?.arg("reload")).map(drop)
}

fn armour(status: &Value, interface: &str) -> Value {
    let all = status["armour"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|own| own["interface"] == interface);
    found.unwrap_or_default()
}

/// Waits until an interface wears the armour, or not.
fn wait_worn(site: &Site, worn: bool) -> Result<Value> {
    let mut last = Value::Null;
    let what = format!("armour worn: {worn}");
    let waited = wait_until(&what, LONG, || {
        last = site.forwarder.status().unwrap_or_default();
        armour(&last, "eth0")["worn"] == worn
    });
    if waited.is_err() {
        eprintln!("last status: {last:#}");
    }
    waited?;
    Ok(last)
}

/// What the kernel says is attached to the entrance's first public interface.
fn has_xdp(site: &Site) -> Result<bool> {
    let mut ip = site.lab.entrance.command("ip")?;
    Ok(run(ip.args(["link", "show", "dev", "eth0"]))?.contains("prog/xdp "))
}

/// A connection that was there before goes both ways, byte for byte.
struct Kept {
    raw: forwarder_tests::raw::RawTcp,
    node: forwarder_tests::server::recorder::Connection,
    sent: usize,
}

impl Kept {
    fn new(site: &Site, family: Family) -> Result<Self> {
        let (raw, node) = site.established(family)?;
        let sent = node.bytes.len();
        Ok(Self { raw, node, sent })
    }

    fn talk(&mut self, site: &Site, word: &[u8]) -> Result<()> {
        self.raw.send_data(word)?;
        self.sent += word.len();
        assert!(site.recorded(&self.raw, self.sent)?.bytes.ends_with(word));
        self.node.send(word)?;
        assert_eq!(self.raw.read(word.len(), PATIENCE)?, word);
        Ok(())
    }
}

#[test]
fn it_comes_with_a_flood_and_leaves_after_it() -> Result<()> {
    let (mut site, _ear) = start()?;
    use_armour(
        &mut site,
        "rst_rate = 10\nxdp_above = 200\nxdp_calm = \"2s\"",
    )?;
    for family in Family::BOTH {
        let mut kept = Kept::new(&site, family)?;
        kept.talk(&site, b"before")?;
        let before = wait_worn(&site, false)?;
        assert!(!has_xdp(&site)?);
        let target = site.entrance(family, 443);
        let client = &site.lab.clients[1];
        let syns = Flood::start(client, target, Kind::Syn, RATE)?;
        let acks = Flood::start(client, target, Kind::Ack, RATE)?;
        wait_worn(&site, true)?;
        assert!(has_xdp(&site)?);
        for i in 0..10 {
            kept.talk(&site, format!("while flooded {i}").as_bytes())?;
            assert_eq!(site.report(family, "www.example.org")?.server, "node0");
            assert_eq!(site.report(family, "proxied.example.org")?.server, "node0");
        }
        // A refused name is refused, and still at once.
        let refused = site.curl(family, "private.example.org", "/")?.run()?;
        assert_eq!(refused.status, 0);
        let (syns_sent, acks_sent) = (syns.sent(), acks.sent());
        assert!(
            syns_sent > 100 && acks_sent > 100,
            "{syns_sent} {acks_sent}"
        );
        drop((syns, acks));
        let after = wait_worn(&site, false)?;
        assert!(!has_xdp(&site)?);
        kept.talk(&site, b"afterwards")?;
        assert_eq!(site.report(family, "www.example.org")?.server, "node0");

        let difference = |key: &str| {
            let of = |status: &Value| status["armour_frames"][key].as_u64().unwrap_or(0);
            of(&after) - of(&before)
        };
        assert!(difference("answered") > 50, "{after:#}");
        assert!(difference("dropped") > 50, "{after:#}");
        assert!(difference("flow") >= 10, "{after:#}");
        let times = |status: &Value, key: &str| armour(status, "eth0")[key].as_u64().unwrap_or(0);
        assert_eq!(times(&after, "attached"), times(&before, "attached") + 1);
        assert_eq!(times(&after, "detached"), times(&before, "detached") + 1);
        assert!(
            site.forwarder
                .status_text()?
                .contains("armour     eth0 off")
        );
    }
    let log = site.forwarder.log();
    assert!(
        log.contains("XDP filter attached") && log.contains("XDP filter detached"),
        "{log}"
    );
    Ok(())
}

/// With the daemon killed the armour stays and works; the next daemon takes it over without a gap.
#[test]
fn it_outlives_the_daemon() -> Result<()> {
    let (mut site, _ear) = start()?;
    use_armour(&mut site, "xdp = \"on\"")?;
    wait_worn(&site, true)?;
    let mut kept = Kept::new(&site, Family::V4)?;
    site.forwarder.kill()?;
    assert!(has_xdp(&site)?);
    kept.talk(&site, b"without a daemon")?;
    assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    site.forwarder.run()?;
    assert!(has_xdp(&site)?);
    kept.talk(&site, b"with a new one")?;
    let status = wait_worn(&site, true)?;
    assert_eq!(armour(&status, "eth0")["attached"], 1, "{status:#}");
    use_armour(&mut site, "xdp = \"off\"")?;
    wait_worn(&site, false)?;
    assert!(!has_xdp(&site)?);
    use_armour(&mut site, "xdp = \"on\"")?;
    wait_worn(&site, true)?;
    site.forwarder.stop();
    run(site.forwarder.command()?.args(["unload", "--yes"]))?;
    assert!(!has_xdp(&site)?, "unload takes it off");
    Ok(())
}

/// A bridge has no native XDP: the refusal is told, counted, and nothing else changes.
#[test]
fn a_driver_that_refuses_is_told_and_harmless() -> Result<()> {
    let (site, _ear) = start()?;
    site.lab
        .entrance
        .ip("link add br0 type bridge\nlink set br0 up")?;
    let entrance = entrance_section(site.lab).replace("[\"eth0\"]", "[\"eth0\", \"br0\"]");
    let text = configuration(site.lab);
    site.forwarder
        .write_config(&format!("{entrance}xdp = \"on\"\nxdp_veth = true\n{text}"))?;
    let said = run(site.forwarder.command()?.arg("reload"))?;
    assert!(said.contains("xdp  auto → on"), "{said}");
    let status = wait_worn(&site, true)?;
    let bridge = armour(&status, "br0");
    assert_eq!(bridge["worn"], false, "{status:#}");
    assert_eq!(bridge["refused"], 1, "{status:#}");
    assert!(!bridge["refusal"].as_str().unwrap_or_default().is_empty());
    let said = site.forwarder.status_text()?;
    assert!(said.contains("br0 refused: "), "{said}");
    assert!(site.forwarder.log().contains("no XDP filter here"));
    for family in Family::BOTH {
        assert_eq!(site.report(family, "www.example.org")?.server, "node0");
    }
    // It is not asked again and again.
    std::thread::sleep(Duration::from_secs(2));
    let status = site.forwarder.status()?;
    assert_eq!(armour(&status, "br0")["refused"], 1);
    Ok(())
}
