//! What nodes know, offer and refuse, with real kernels at both ends: older connections of the same ends, small
//! segments, no window scale.

use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::command::run;
use forwarder_tests::forwarder::{Forwarder, entrance_section};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Content;
use forwarder_tests::pattern;
use forwarder_tests::raw::SYN_OPTIONS;
use forwarder_tests::server::web::DOWNLOAD_SEED;
use forwarder_tests::site::{ALERT, Site, configuration};

fn site() -> Site {
    Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2))
}

fn connect(site: &Site, family: Family, name: &str) -> Result<TlsClient> {
    let config = config(&site.lab.pki, Crypto::Classic, &[])?;
    let client = &site.lab.clients[0].namespace;
    TlsClient::connect(client, &config, name, site.entrance(family, ALERT))
}

/// After a reboot nodes still know what was open before. Few ports make sure that they are met.
#[test]
fn what_a_node_still_knows_keeps_nobody_waiting() -> Result<()> {
    let mut site = site();
    let entrance = entrance_section(site.lab) + "source_ports = \"20000-20063\"\n";
    let text = format!("{entrance}\n{}", configuration(site.lab));
    let anew = |forwarder: &mut Forwarder<'static>| -> Result<()> {
        forwarder.kill()?;
        run(forwarder.command()?.args(["unload", "--yes"]))?;
        forwarder.run()
    };
    site.forwarder.write_config(&text)?;
    anew(&mut site.forwarder)?;
    let names = ["proxied.example.org", "masked.example.org"];
    for family in Family::BOTH {
        for name in names {
            let idle: Vec<TlsClient> = (0..50)
                .map(|_| connect(&site, family, name))
                .collect::<Result<_>>()?;
            anew(&mut site.forwarder)?;
            let mut took = Vec::new();
            for _ in 0..20 {
                let begin = Instant::now();
                assert_eq!(connect(&site, family, name)?.report()?.server, "node0");
                took.push(begin.elapsed());
            }
            // A client that had to send its hello again waited for a second at least, and who had to wait for the node's
            // memory ten. On a busy machine one or two lose a packet.
            took.sort();
            assert!(
                took[17] < Duration::from_millis(900) && took[19] < Duration::from_secs(5),
                "{name} {family:?}: {took:?}"
            );
            // Until here the clients say nothing that would end them.
            drop(idle);
        }
    }
    let status = site.forwarder.status()?;
    assert!(!status.to_string().contains(":\"down\""), "{status}");
    Ok(())
}

/// A node behind a narrower link than the tunnel offers less than clients were told, and what is larger is lost without
/// a word.
#[test]
fn a_node_that_takes_small_segments_only() -> Result<()> {
    const MTU: u32 = 1_300;
    let site = site();
    for family in Family::BOTH {
        let headers = if family == Family::V4 { 40 } else { 60 };
        let mut before = connect(&site, family, "www.example.org")?;
        assert_eq!(before.report()?.server, "node0");
        let told = |site: &Site| -> Result<Option<u16>> {
            let mut raw = site.raw(family, ALERT)?;
            Ok(raw.connect_with(&SYN_OPTIONS)?.mss())
        };
        assert_eq!(told(&site)?, Some(1_420 - headers));
        let node = &site.lab.nodes[0];
        node.namespace
            .ip(&format!("link set {} mtu {MTU}", node.interface))?;
        let capture = Capture::start(&site.lab.router, "p0")?;
        let size = 2_000_000;
        for _ in 0..2 {
            let begin = Instant::now();
            let mut tls = connect(&site, family, "www.example.org")?;
            let upload = tls.upload("/", 6, size)?;
            let digest = pattern::digest(6, size);
            assert_eq!((upload.bytes, upload.sha256), (size, digest));
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{:?}",
                begin.elapsed()
            );
            assert_eq!(told(&site)?, Some(MTU as u16 - headers));
        }
        // The first was told too much, and was then told the truth.
        let entrance = site.lab.public(family);
        capture.wait_for("an error to the client", Duration::from_secs(1), |seen| {
            seen.packet.source == entrance
                && matches!(seen.packet.content, Content::Icmp { rest: MTU, .. })
        })?;
        capture.assert_checksums();
        node.namespace
            .ip(&format!("link set {} mtu 1420", node.interface))?;
        // What was learnt is of each claimed address; the other family begins anew.
    }
    Ok(())
}

/// A node without window scaling, as one that answers by SYN cookie, is still told of 64 KB: it is about as quick as
/// one with it (before, 12 s of 1).
#[test]
fn a_node_without_window_scaling_is_not_slow() -> Result<()> {
    let site = site();
    let node = &site.lab.nodes[0].namespace;
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            node.sysctl("net/ipv4/tcp_window_scaling", "1")?;
            let usual = both_ways(&site, family, name)?;
            node.sysctl("net/ipv4/tcp_window_scaling", "0")?;
            let took = both_ways(&site, family, name)?;
            let limit = usual + Duration::from_secs(8);
            assert!(took < limit, "{name} {family:?}: {took:?}, {usual:?} with");
        }
    }
    Ok(())
}

/// How long 4 MB take there and back.
fn both_ways(site: &Site, family: Family, name: &str) -> Result<Duration> {
    let size = 4_000_000;
    let begin = Instant::now();
    let mut tls = connect(site, family, name)?;
    let down = tls.download(&format!("/bytes/{size}"))?;
    assert_eq!(down, (size, pattern::digest(DOWNLOAD_SEED, size)));
    let upload = tls.upload("/", 6, size)?;
    assert_eq!(upload.sha256, pattern::digest(6, size));
    Ok(begin.elapsed())
}
