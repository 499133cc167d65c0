//! The ClientHello in every shape that TCP may give it: cut, doubled, out of order, overlapping.

use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::tls::{Crypto, TlsClient, client_hello, config};
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::Family;
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::{PATIENCE, RawTcp, SILENCE};
use forwarder_tests::site::{ALERT, Site};

const NAME: &str = "record.example.org";

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

fn offset(index: usize) -> u32 {
    u32::try_from(index).unwrap()
}

/// Checks that the node gets exactly these bytes, and that all of them are acknowledged.
#[track_caller]
fn assert_delivered(raw: &mut RawTcp, bytes: &[u8], what: &str) {
    let seen = site()
        .recorded(raw, bytes.len())
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(seen.bytes == bytes, "{what}: the node got other bytes");
    let end = raw.isn.wrapping_add(1).wrapping_add(offset(bytes.len()));
    raw.expect("the acknowledgement", |s| s.ack == end)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(raw.bad_checksums, 0, "{what}");
}

#[test]
fn a_post_quantum_hello_comes_in_two_segments() -> Result<()> {
    let site = site();
    let config = config(&site.lab.pki, Crypto::PostQuantum, &["http/1.1"])?;
    assert!(client_hello(&config, "www.example.org")?.len() > 1_400);
    let capture = Capture::start(&site.lab.entrance, "eth0")?;
    for family in Family::BOTH {
        let namespace = &site.lab.clients[0].namespace;
        let mut client = TlsClient::connect(
            namespace,
            &config,
            "www.example.org",
            site.entrance(family, ALERT),
        )?;
        let report = client.report()?;
        assert_eq!(
            (report.server.as_str(), report.sni.as_deref()),
            ("node0", Some("www.example.org"))
        );
        let local = client.socket().local_addr().unwrap();
        // The MSS that the entrance announces makes the client cut the hello, offload or not.
        let syn_ack = capture.wait_for("the SYN-ACK", PATIENCE, |seen| {
            seen.packet
                .tcp()
                .is_some_and(|s| s.destination == local && s.flags.has(Flags::SYN_ACK))
        })?;
        let mss = syn_ack
            .packet
            .tcp()
            .and_then(|segment| segment.mss())
            .unwrap();
        assert_eq!(mss, if family == Family::V4 { 1_380 } else { 1_360 });
    }
    Ok(())
}

#[test]
fn a_real_handshake_works_in_pieces_of_any_size() -> Result<()> {
    let site = site();
    let namespace = &site.lab.clients[0].namespace;
    for (crypto, size) in [
        (Crypto::Classic, 1),
        (Crypto::Classic, 7),
        (Crypto::PostQuantum, 1),
        (Crypto::PostQuantum, 100),
        (Crypto::PostQuantum, 700),
    ] {
        for family in Family::BOTH {
            let config = config(&site.lab.pki, crypto, &["http/1.1"])?;
            let address = site.entrance(family, ALERT);
            let mut client =
                TlsClient::connect_in_pieces(namespace, &config, "www.example.org", address, size)?;
            assert_eq!(
                client.report()?.server,
                "node0",
                "{crypto:?} in pieces of {size}"
            );
        }
    }
    Ok(())
}

#[test]
fn any_cut_and_any_order_give_the_same_bytes() -> Result<()> {
    for family in Family::BOTH {
        for (seed, hello) in [
            (1, Hello::small(NAME).record()),
            (2, Hello::browser(NAME, 5).name_last().record()),
        ] {
            for pieces in [2, 3, 5] {
                let mut raw = site().raw(family, ALERT)?;
                raw.connect()?;
                let size = hello.len().div_ceil(pieces);
                let mut order: Vec<usize> = (0..pieces).collect();
                order.rotate_left(seed);
                // Out of order, each twice; then in order, as a client does after its time-out.
                for index in order
                    .iter()
                    .flat_map(|index| [index, index])
                    .chain(&(0..pieces).collect::<Vec<_>>())
                {
                    let at = index * size;
                    let piece = &hello[at..hello.len().min(at + size)];
                    raw.send(&raw.data_at(offset(at), piece))?;
                }
                assert_delivered(
                    &mut raw,
                    &hello,
                    &format!("{family:?}, {pieces} pieces, rotated by {seed}"),
                );
            }
        }
    }
    Ok(())
}

#[test]
fn parts_of_a_hello_are_acknowledged_but_not_its_end() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let hello = Hello::browser(NAME, 6).record();
        let tunnel = site.tunnel(0)?;
        let mut raw = site.raw(family, ALERT)?;
        let syn_ack = raw.connect()?;
        let (front, back) = hello.split_at(900);
        raw.send_data(front)?;
        let next = raw.next;
        let answer = raw.expect("the acknowledgement of the first part", |segment| {
            segment.ack == next
        })?;
        assert!(answer.payload.is_empty());
        let scale = u32::from(syn_ack.window_scale().unwrap_or(0));
        let room = u32::from(answer.window) << scale;
        assert!(room >= offset(back.len()), "room for the rest: {room}");
        let local = raw.local;
        tunnel.assert_none("a packet before the hello is complete", |seen| {
            seen.packet
                .tcp()
                .is_some_and(|segment| segment.source == local)
        });
        raw.send_data(back)?;
        assert_delivered(&mut raw, &hello, "the whole hello");
    }
    Ok(())
}

#[test]
fn overlapping_segments_deliver_what_was_judged() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        // The first part holds the listed name. What comes over it later names another.
        let hello = Hello::small(NAME).record();
        let evil = Hello::small("secret.example.org").record();
        assert_eq!(hello.len(), evil.len());
        let cut = hello.len() - 20;
        let mut raw = site.raw(family, ALERT)?;
        raw.connect()?;
        raw.send(&raw.data_at(0, &hello[..cut]))?;
        raw.drain(Duration::from_millis(50))?;
        raw.send(&raw.data_at(0, &evil[..cut]))?;
        raw.send(&raw.data_at(offset(10), &evil[10..]))?;
        raw.send(&raw.data_at(offset(cut), &hello[cut..]))?;
        let seen = site.recorded(&raw, hello.len())?;
        assert!(
            seen.bytes[..cut] == hello[..cut],
            "the first bytes win, and are what the node gets"
        );

        // The other way round: first the unlisted name, then the listed one over it.
        let mut raw = site.raw(family, ALERT)?;
        raw.connect()?;
        raw.send(&raw.data_at(0, &evil[..cut]))?;
        raw.drain(Duration::from_millis(50))?;
        raw.send(&raw.data_at(0, &hello[..cut]))?;
        raw.send(&raw.data_at(offset(cut), &evil[cut..]))?;
        raw.drain(SILENCE)?;
        let local = raw.local;
        assert!(
            site.recorder.connections().iter().all(|c| c.peer != local),
            "refused"
        );
    }
    Ok(())
}

#[test]
fn a_repeated_hello_is_delivered_once() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let hello = Hello::browser(NAME, 11).record();
        let mut raw = site.raw(family, ALERT)?;
        raw.connect()?;
        for _ in 0..3 {
            raw.send(&raw.data_at(0, &hello[..1_000]))?;
            raw.send(&raw.data_at(1_000, &hello[1_000..]))?;
        }
        assert_delivered(&mut raw, &hello, "a hello sent three times");
        raw.next = raw.isn.wrapping_add(1).wrapping_add(offset(hello.len()));
        raw.send_data(b"more")?;
        let seen = site.recorded(&raw, hello.len() + 4)?;
        assert_eq!(&seen.bytes[hello.len()..], b"more");
        let local = raw.local;
        assert_eq!(
            site.recorder
                .connections()
                .iter()
                .filter(|c| c.peer == local)
                .count(),
            1
        );
    }
    Ok(())
}

#[test]
fn a_segment_with_a_wrong_checksum_is_not_kept() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let hello = Hello::small(NAME).record();
        let mut raw = site.raw(family, ALERT)?;
        raw.connect()?;
        // A wrong sum over right bytes, and over wrong ones.
        for changed in [hello.len() - 1, 12] {
            let mut broken = raw.data_at(0, &hello).to_bytes();
            let at = broken.len() - hello.len() + changed;
            broken[at] ^= 0x20;
            raw.send_packet(&broken)?;
        }
        raw.drain(SILENCE)?;
        let local = raw.local;
        assert!(
            site.recorder.connections().iter().all(|c| c.peer != local),
            "nothing was delivered"
        );
        raw.send(&raw.data_at(0, &hello))?;
        assert_delivered(&mut raw, &hello, "the intact segment after broken ones");
    }
    Ok(())
}

#[test]
fn a_hello_of_sixteen_kilobytes_passes() -> Result<()> {
    for family in Family::BOTH {
        let hello = Hello::small(NAME).padded_to(16_000).record();
        let mut raw = site().raw(family, ALERT)?;
        raw.connect()?;
        raw.send_in_pieces(&hello, 1_200)?;
        assert_delivered(&mut raw, &hello, "16,000 bytes");
    }
    Ok(())
}

#[test]
fn data_behind_the_hello_is_delivered_in_order() -> Result<()> {
    for family in Family::BOTH {
        let mut bytes = Hello::small(NAME).record();
        bytes.extend_from_slice(&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]);
        let mut raw = site().raw(family, ALERT)?;
        raw.connect()?;
        raw.send_data(&bytes)?;
        // This may come before the node has answered; then it has to come again.
        let late = raw.segment(Flags::PSH_ACK);
        let late = forwarder_tests::packet::Segment {
            payload: b"late".to_vec(),
            ..late
        };
        raw.send(&late)?;
        std::thread::sleep(Duration::from_millis(300));
        raw.send(&late)?;
        bytes.extend_from_slice(b"late");
        assert_delivered(&mut raw, &bytes, "early data");
    }
    Ok(())
}
