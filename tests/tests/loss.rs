//! Connections and transfers over links that lose, double, delay and reorder packets.

use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forwarder_tests::Result;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::ethtool::Offloads;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::pattern;
use forwarder_tests::server::web::DOWNLOAD_SEED;
use forwarder_tests::site::{ALERT, Site, crowd};
use forwarder_tests::wire::{Fate, Faults, Way};

/// One site with faulty wires on both sides of the entrance; tests take turns, for they share the wires.
fn site() -> (&'static Site, MutexGuard<'static, ()>) {
    static SITE: OnceLock<Site> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let site = SITE.get_or_init(|| {
        // Segments arrive one by one and are merged, as behind a network card with GRO.
        let builder = Lab::builder()
            .clients(2)
            .tunnel(TunnelKind::Ethernet, 2)
            .offloads(Offloads::MERGE_ONLY);
        let builder = builder.public_wire().tunnel_wires();
        Site::build(builder.seed(2024))
    });
    site.lab.public_wire().mend();
    site.lab.nodes[0].wire().mend();
    (site, turn)
}

fn faults(loss: f64) -> Faults {
    Faults {
        loss,
        duplication: 0.01,
        reordering: 0.02,
        held: Duration::from_millis(3),
        delay: Duration::ZERO,
    }
}

fn set_faults(site: &Site, faults: Faults) {
    site.lab.public_wire().set_faults(faults);
    site.lab.nodes[0].wire().set_faults(faults);
}

/// Moves bytes both ways for each family and some names, and compares their SHA-256.
fn transfer(site: &Site, size: u64) -> Result<()> {
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            let config = config(&site.lab.pki, Crypto::PostQuantum, &[])?;
            let client = &site.lab.clients[0].namespace;
            let mut tls = TlsClient::connect(client, &config, name, site.entrance(family, ALERT))?;
            let down = tls.download(&format!("/bytes/{size}"))?;
            assert_eq!(
                down,
                (size, pattern::digest(DOWNLOAD_SEED, size)),
                "{name} by {family:?}"
            );
            let upload = tls.upload("/", 6, size)?;
            assert_eq!(
                (upload.bytes, upload.sha256),
                (size, pattern::digest(6, size)),
                "{name} by {family:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn transfers_survive_loss_reordering_and_duplication() -> Result<()> {
    let (site, _turn) = site();
    let tunnel = site.tunnel(0)?;
    for (loss, size) in [(0.01, 10_000_000), (0.05, 1_500_000)] {
        set_faults(site, faults(loss));
        transfer(site, size)?;
    }
    tunnel.assert_checksums();
    for wire in [site.lab.public_wire(), site.lab.nodes[0].wire()] {
        assert!(
            wire.counters().lost.load(Ordering::Relaxed) > 100,
            "{:?}",
            wire.counters()
        );
    }
    Ok(())
}

#[test]
fn a_real_tunnel_over_a_bad_link_does_no_harm() -> Result<()> {
    let builder = Lab::builder().clients(2).tunnel(TunnelKind::WireGuard, 2);
    let site = Site::build(builder.public_wire().tunnel_wires().seed(7));
    let tunnel = site.tunnel(0)?;
    // Here it is WireGuard's own datagrams that come to harm.
    set_faults(&site, faults(0.01));
    transfer(&site, 3_000_000)?;
    tunnel.assert_checksums();
    assert!(
        site.lab.nodes[0]
            .wire()
            .counters()
            .lost
            .load(Ordering::Relaxed)
            > 50
    );
    Ok(())
}

#[test]
fn no_connection_fails_at_two_per_cent_on_every_link() -> Result<()> {
    let (site, _turn) = site();
    set_faults(site, faults(0.02));
    // Mostly waiting for time-outs, so that many at once cost little.
    crowd(240, 12, |number| {
        let family = Family::BOTH[number % 2];
        let name = ["www.example.org", "proxied.example.org"][number / 2 % 2];
        let crypto = [Crypto::PostQuantum, Crypto::Classic][number / 4 % 2];
        let config = config(&site.lab.pki, crypto, &[])?;
        let client = &site.lab.clients[0].namespace;
        let mut tls = TlsClient::connect(client, &config, name, site.entrance(family, ALERT))?;
        assert_eq!(tls.report()?.server, "node0", "{name} by {family:?}");
        Ok(())
    });
    Ok(())
}

/// Loses the first packet that fits, once for each connection attempt.
fn lose_first(
    site: &Site,
    public: bool,
    mut fits: impl FnMut(Way, &Segment) -> bool + Send + 'static,
) {
    let mut lost = false;
    let wire = if public {
        site.lab.public_wire()
    } else {
        site.lab.nodes[0].wire()
    };
    wire.set_rule(move |way, packet| match packet.tcp() {
        Some(segment) if !lost && fits(way, segment) => {
            lost = true;
            Fate::Lose
        }
        _ => Fate::Pass,
    });
}

#[test]
fn every_single_packet_of_the_beginning_may_be_lost() -> Result<()> {
    type Fits = fn(Way, &Segment) -> bool;
    let losses: [(&str, bool, Fits); 11] = [
        ("the client's SYN", true, |way, s| {
            way == Way::In && s.flags == Flags::SYN
        }),
        ("our SYN-ACK", true, |way, s| {
            way == Way::Out && s.flags.has(Flags::SYN_ACK)
        }),
        ("the client's ACK", true, |way, s| {
            way == Way::In && s.flags == Flags::ACK
        }),
        ("the hello's first part", true, |way, s| {
            way == Way::In && s.payload.first() == Some(&22)
        }),
        ("the hello's second part", true, |way, s| {
            way == Way::In
                && !s.payload.is_empty()
                && s.payload.len() < 1_000
                && s.payload.first() != Some(&22)
        }),
        ("our ACK of the first part", true, |way, s| {
            way == Way::Out && s.flags == Flags::ACK
        }),
        ("the SYN to the node", false, |way, s| {
            way == Way::In && s.flags.has(Flags::SYN)
        }),
        ("the node's SYN-ACK", false, |way, s| {
            way == Way::Out && s.flags.has(Flags::SYN_ACK)
        }),
        ("the replayed hello", false, |way, s| {
            way == Way::In && !s.payload.is_empty()
        }),
        ("the node's first ACK", false, |way, s| {
            way == Way::Out && s.flags == Flags::ACK
        }),
        ("the node's first data", false, |way, s| {
            way == Way::Out && !s.payload.is_empty()
        }),
    ];
    let (site, _turn) = site();
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            for (what, public, fits) in losses {
                lose_first(site, public, fits);
                let begin = Instant::now();
                let config = config(&site.lab.pki, Crypto::PostQuantum, &[])?;
                let client = &site.lab.clients[0].namespace;
                let done = TlsClient::connect(client, &config, name, site.entrance(family, ALERT))
                    .and_then(|mut tls| tls.report());
                let context = || format!("without {what}, {name} by {family:?}");
                let report = done.unwrap_or_else(|error| panic!("{}: {error:?}", context()));
                assert_eq!(report.server, "node0", "{}", context());
                assert!(
                    begin.elapsed() < Duration::from_secs(8),
                    "{}: {:?}",
                    context(),
                    begin.elapsed()
                );
                site.lab.public_wire().mend();
                site.lab.nodes[0].wire().mend();
            }
        }
    }
    Ok(())
}

#[test]
fn a_pool_of_one_node_is_tried_as_long_as_the_client_waits() -> Result<()> {
    let (site, _turn) = site();
    for family in Family::BOTH {
        let mut lost = 0;
        site.lab.nodes[0]
            .wire()
            .set_rule(move |way, packet| match packet.tcp() {
                Some(segment) if way == Way::In && segment.flags.has(Flags::SYN) && lost < 3 => {
                    lost += 1;
                    Fate::Lose
                }
                _ => Fate::Pass,
            });
        assert_eq!(site.report(family, "www.example.org")?.server, "node0");
        site.lab.nodes[0].wire().mend();
    }
    Ok(())
}

#[test]
fn duplicates_of_every_packet_do_no_harm() -> Result<()> {
    let (site, _turn) = site();
    set_faults(
        site,
        Faults {
            duplication: 1.0,
            ..Faults::default()
        },
    );
    for family in Family::BOTH {
        for name in [
            "www.example.org",
            "proxied.example.org",
            "masked.example.org",
        ] {
            assert_eq!(site.report(family, name)?.server, "node0");
        }
    }
    Ok(())
}

#[test]
fn a_long_way_does_no_harm() -> Result<()> {
    let (site, _turn) = site();
    set_faults(
        site,
        Faults {
            delay: Duration::from_millis(40),
            ..Faults::default()
        },
    );
    for family in Family::BOTH {
        let config = config(&site.lab.pki, Crypto::PostQuantum, &[])?;
        let client = &site.lab.clients[0].namespace;
        let mut tls = TlsClient::connect(
            client,
            &config,
            "www.example.org",
            site.entrance(family, ALERT),
        )?;
        let size = 3_000_000;
        assert_eq!(
            tls.download(&format!("/bytes/{size}"))?.1,
            pattern::digest(DOWNLOAD_SEED, size)
        );
    }
    Ok(())
}

#[test]
fn a_connection_that_never_speaks_costs_nothing() -> Result<()> {
    let (site, _turn) = site();
    let tunnel = site.tunnel(0)?;
    let address: SocketAddr = site.entrance(Family::V4, ALERT);
    let silent = site.lab.clients[0]
        .namespace
        .enter(|| TcpStream::connect(address))?
        .unwrap();
    let local = silent.local_addr().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(silent);
    std::thread::sleep(Duration::from_millis(300));
    tunnel.assert_none("a packet of a silent client", |seen| {
        seen.packet
            .tcp()
            .is_some_and(|segment| segment.source == local)
    });
    Ok(())
}
