//! Connections after their beginning: bulk both ways, half-close, resets, probes, zero windows, and
//! right checksums under every kind of offload.

use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::ethtool::Offloads;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::pattern;
use forwarder_tests::raw::{PATIENCE, RawTcp, SILENCE};
use forwarder_tests::server::recorder::End;
use forwarder_tests::server::web::DOWNLOAD_SEED;
use forwarder_tests::site::{ALERT, Site};

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

fn connect(site: &Site, family: Family, name: &str) -> Result<TlsClient> {
    let config = config(&site.lab.pki, Crypto::PostQuantum, &[])?;
    TlsClient::connect(
        &site.lab.clients[0].namespace,
        &config,
        name,
        site.entrance(family, ALERT),
    )
}

/// Moves bytes both ways and compares their SHA-256.
fn transfer(site: &Site, family: Family, name: &str, size: u64) -> Result<()> {
    let mut client = connect(site, family, name)?;
    assert_eq!(
        client.download(&format!("/bytes/{size}"))?,
        (size, pattern::digest(DOWNLOAD_SEED, size))
    );
    let upload = client.upload("/", 3, size)?;
    assert_eq!(
        (upload.bytes, upload.sha256),
        (size, pattern::digest(3, size))
    );
    Ok(())
}

#[test]
fn bulk_arrives_intact_in_every_mode() -> Result<()> {
    let site = site();
    let tunnel = site.tunnel(0)?;
    for family in Family::BOTH {
        for name in [
            "www.example.org",
            "proxied.example.org",
            "masked.example.org",
        ] {
            transfer(site, family, name, 10_000_000)?;
        }
    }
    tunnel.assert_checksums();
    Ok(())
}

#[test]
fn checksums_are_right_under_every_offload() -> Result<()> {
    for offloads in [
        Offloads::DEFAULT,
        Offloads::ALL,
        Offloads::NONE,
        Offloads::MERGE_ONLY,
    ] {
        let builder = Lab::builder()
            .clients(2)
            .tunnel(TunnelKind::Ethernet, 2)
            .offloads(offloads);
        let site = Site::build(builder);
        let entrance = Capture::start(&site.lab.entrance, "eth0")?;
        let at_client = Capture::start(&site.lab.clients[0].namespace, "eth0")?;
        let tunnel = site.tunnel(0)?;
        for family in Family::BOTH {
            for name in [
                "www.example.org",
                "proxied.example.org",
                "masked.example.org",
            ] {
                transfer(&site, family, name, 1_500_000)
                    .unwrap_or_else(|error| panic!("{offloads:?}: {error:?}"));
            }
        }
        // Super-packets pass both ways in one piece, where the interfaces have them.
        for outgoing in [false, true] {
            let seen = entrance.seen();
            let sizes = seen
                .iter()
                .filter(|seen| seen.outgoing == outgoing)
                .map(|seen| seen.packet.length);
            let largest = sizes.max().unwrap_or_default();
            let expected = if offloads.segmentation {
                20_000..66_000
            } else {
                1_000..1_501
            };
            assert!(
                expected.contains(&largest) || (offloads.receive_merge && largest > 1_500),
                "{offloads:?}: the largest packet was {largest} bytes, outgoing: {outgoing}"
            );
        }
        for capture in [at_client, tunnel] {
            let tally = capture.tally();
            assert_eq!(tally.bad, 0, "{offloads:?}: {}", capture.transcript(5));
            assert!(
                offloads.checksum || tally.good > 100,
                "{offloads:?}: {tally:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_syn_carries_what_the_client_offered() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let tunnel_mss = if family == Family::V4 { 1_380 } else { 1_360 };
        for (options, mss, scale, sack) in [
            (
                &[2, 4, 5, 180, 4, 2, 1, 3, 3, 9, 1, 1][..],
                tunnel_mss,
                Some(9),
                true,
            ),
            (&[2, 4, 3, 232], 1_000, None, false),
            (&[], 536, None, false),
            (
                &[1, 1, 4, 2, 3, 3, 0, 1, 2, 4, 4, 176],
                1_200,
                Some(0),
                true,
            ),
        ] {
            let tunnel = site.tunnel(0)?;
            let mut raw = site.raw(family, ALERT)?;
            let answer = raw.connect_with(options)?;
            assert_eq!(
                answer.window_scale().is_some(),
                scale.is_some(),
                "{answer:?}"
            );
            assert_eq!(answer.sack_permitted(), sack, "{answer:?}");
            raw.send_data(&forwarder_tests::hello::Hello::small("record.example.org").record())?;
            let local = raw.local;
            let syn = tunnel.wait_for("the SYN to the node", PATIENCE, |seen| {
                seen.packet
                    .tcp()
                    .is_some_and(|s| s.source == local && s.flags.has(Flags::SYN))
            })?;
            let syn = syn.packet.tcp().cloned().unwrap();
            assert_eq!(syn.window_scale(), scale, "{syn:?}");
            assert_eq!(syn.sack_permitted(), sack, "{syn:?}");
            assert!(
                syn.mss().is_some_and(|announced| announced <= mss),
                "at most {mss}: {syn:?}"
            );
            assert!(!syn.flags.has(Flags::ECE), "{syn:?}");
        }
    }
    Ok(())
}

#[test]
fn hop_limits_go_down_by_one() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let tunnel = site.tunnel(0)?;
        let (mut raw, node) = site.established(family)?;
        let mut data = raw.segment(Flags::PSH_ACK);
        (data.hop_limit, data.payload) = (30, b"x".to_vec());
        raw.send(&data)?;
        raw.next = data.end();
        let local = raw.local;
        let seen = tunnel.wait_for("the data", PATIENCE, |seen| {
            seen.packet
                .tcp()
                .is_some_and(|s| s.source == local && s.payload == b"x")
        })?;
        // The router takes one, the entrance another.
        assert_eq!(seen.packet.hop_limit, 28);
        node.send(b"back")?;
        let back = raw.expect("the answer", |segment| segment.payload == b"back")?;
        assert_eq!(back.hop_limit, 62);
    }
    Ok(())
}

#[test]
fn either_side_may_close_first_and_go_on_receiving() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            let upload = connect(site, family, name)?.upload_and_close(8, 1_000_000)?;
            assert_eq!(upload.sha256, pattern::digest(8, 1_000_000), "{name}");
        }
        let (mut raw, node) = site.established(family)?;
        node.finish()?;
        raw.expect("the node's FIN", |segment| segment.flags.has(Flags::FIN))?;
        raw.expected = raw.expected.wrapping_add(1);
        raw.send(&raw.segment(Flags::ACK))?;
        raw.send_data(b"still here")?;
        let length = node.bytes.len() + 10;
        let seen = site.recorded(&raw, length)?;
        assert!(seen.bytes.ends_with(b"still here"));
        raw.send(&raw.segment(Flags::FIN_ACK))?;
        raw.next = raw.next.wrapping_add(1);
        let (local, next) = (raw.local, raw.next);
        site.recorder.wait_for("the client's FIN", PATIENCE, |c| {
            c.peer == local && c.end == End::Fin
        })?;
        raw.expect("its acknowledgement", |segment| segment.ack == next)?;
    }
    Ok(())
}

#[test]
fn both_sides_may_close_at_once() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        raw.send(&raw.segment(Flags::FIN_ACK))?;
        node.finish()?;
        raw.next = raw.next.wrapping_add(1);
        let (local, next) = (raw.local, raw.next);
        let fin = raw.expect("the node's FIN", |segment| segment.flags.has(Flags::FIN))?;
        raw.expected = fin.end();
        raw.send(&raw.segment(Flags::ACK))?;
        if fin.ack != next {
            raw.expect("the acknowledgement of our FIN", |segment| {
                segment.ack == next
            })?;
        }
        site.recorder.wait_for("the client's FIN", PATIENCE, |c| {
            c.peer == local && c.end == End::Fin
        })?;
    }
    Ok(())
}

#[test]
fn resets_reach_the_other_side() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        node.reset()?;
        let reset = raw.expect("the node's reset", |segment| segment.flags.has(Flags::RST))?;
        assert_eq!(reset.seq, raw.expected, "{reset:?}");

        let (raw, _node) = site.established(family)?;
        raw.send(&raw.segment(Flags::RST))?;
        let local = raw.local;
        site.recorder
            .wait_for("the client's reset", PATIENCE, |c| {
                c.peer == local && c.end == End::Reset
            })?;

        assert!(
            connect(site, family, "www.example.org")?
                .get("/reset")
                .is_err()
        );
    }
    Ok(())
}

#[test]
fn keep_alive_probes_are_answered_by_the_other_side() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        // The client's probe: one byte before the next one, without data.
        let mut probe = raw.segment(Flags::ACK);
        probe.seq = probe.seq.wrapping_sub(1);
        raw.drain(Duration::from_millis(50))?;
        raw.send(&probe)?;
        let answer = raw.expect("the node's answer to a probe", |_| true)?;
        assert_eq!(
            (answer.seq, answer.ack),
            (raw.expected, raw.next),
            "{answer:?}"
        );
        // The node's probe: the kernel sends it after a second.
        node.keep_alive(Duration::from_secs(1))?;
        let before = raw.expected.wrapping_sub(1);
        let probe = raw.expect("the node's probe", |segment| segment.seq == before)?;
        assert_eq!(probe.ack, raw.next);
        raw.send(&raw.segment(Flags::ACK))?;
    }
    Ok(())
}

#[test]
fn a_zero_window_stops_and_opens_again() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        // A server that does not read, then does.
        let upload =
            connect(site, family, "www.example.org")?.upload("/stall/1500", 4, 12_000_000)?;
        assert_eq!(upload.sha256, pattern::digest(4, 12_000_000));
        // A client that closes its window, then opens it.
        let (mut raw, node) = site.established(family)?;
        raw.window = 0;
        raw.send(&raw.segment(Flags::ACK))?;
        std::thread::sleep(Duration::from_millis(100));
        node.send(&[7; 5_000])?;
        let early = raw.receive_matching(SILENCE, |segment| segment.payload.len() > 1)?;
        assert_eq!(early, None, "nothing into a closed window");
        raw.window = 64_000;
        raw.send(&raw.segment(Flags::ACK))?;
        assert_eq!(raw.read(5_000, PATIENCE)?, [7; 5_000]);
    }
    Ok(())
}

#[test]
fn sequence_numbers_may_wrap() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for isn in [u32::MAX, u32::MAX - 100, 0x7fff_ffff] {
            let raw =
                RawTcp::new(&site.lab.clients[0], site.entrance(family, ALERT))?.with_isn(isn);
            let (mut raw, node) = site.establish(raw)?;
            node.send(&[1; 3_000])?;
            assert_eq!(raw.read(3_000, PATIENCE)?, [1; 3_000]);
            raw.send_data(&[2; 1_000])?;
            site.recorded(&raw, node.bytes.len() + 1_000)?;
        }
    }
    Ok(())
}

#[test]
fn selective_acknowledgements_are_translated() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for client_lacks in [true, false] {
            let tunnel = site.tunnel(0)?;
            let (mut raw, node) = site.established(family)?;
            let local = raw.local;
            if client_lacks {
                // Three segments from the node; the client misses the first.
                node.send(&[5; 3_600])?;
                let first = raw.expected;
                let second = raw.expect("a later segment", |s| {
                    !s.payload.is_empty() && s.seq != first
                })?;
                let mut ack = raw.segment(Flags::ACK);
                let (from, to) = (second.seq, second.end());
                ack.options = [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat();
                raw.send(&ack)?;
                // In the node's numbers the block lies within what the node has sent.
                let seen = tunnel.wait_for("the SACK", PATIENCE, |seen| {
                    seen.packet
                        .tcp()
                        .is_some_and(|s| s.source == local && !s.sack_blocks().is_empty())
                })?;
                let seen = seen.packet.tcp().cloned().unwrap();
                let [(node_from, node_to)] = seen.sack_blocks()[..] else {
                    panic!("{seen:?}")
                };
                let shift = seen.ack.wrapping_sub(ack.ack);
                assert_eq!(
                    (node_from, node_to),
                    (from.wrapping_add(shift), to.wrapping_add(shift)),
                    "{seen:?}"
                );
            } else {
                // The node misses the first of two segments and says so.
                let start = raw.next;
                let mut later = raw.segment(Flags::PSH_ACK);
                (later.seq, later.payload) = (start.wrapping_add(100), vec![6; 50]);
                raw.send(&later)?;
                let sack = raw.expect("the node's SACK", |segment| {
                    !segment.sack_blocks().is_empty()
                })?;
                assert_eq!(
                    sack.sack_blocks(),
                    [(start.wrapping_add(100), start.wrapping_add(150))]
                );
                assert_eq!(sack.ack, start);
            }
        }
    }
    Ok(())
}
