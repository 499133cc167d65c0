//! What attackers send: floods, forged resets, guessed cookies, fragments, nodes that lie.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::Family;
use forwarder_tests::packet::{Flags, Packet, Segment, ip_header};
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{Injector, PATIENCE, RawTcp, SILENCE, SYN_OPTIONS};
use forwarder_tests::server::recorder::{Connection, End};
use forwarder_tests::site::{ALERT, Site};

/// The minute after which a flow that was reset is doubted, and the sweeps (10 s) that ask its node and wait for it.
const RESET_AND_SILENT: Duration = Duration::from_secs(85);

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

#[test]
fn a_syn_gets_one_small_answer_and_no_more() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let mut raw = site.raw(family, ALERT)?;
        let syn = raw.segment(Flags::SYN);
        raw.send(&syn)?;
        let answer = raw.expect("a SYN-ACK", |segment| segment.flags == Flags::SYN_ACK)?;
        // An MSS option is all that a bare SYN draws.
        assert!(
            answer.to_bytes().len() <= syn.to_bytes().len() + 4,
            "{answer:?}"
        );
        assert_eq!(
            raw.receive(Duration::from_millis(3_500))?,
            None,
            "no repetition to an unverified source"
        );
    }
    Ok(())
}

#[test]
fn a_flood_of_syns_leaves_nothing_behind_and_others_get_through() -> Result<()> {
    let site = site();
    let tunnel = site.tunnel(0)?;
    for family in Family::BOTH {
        let flood = site.raw(family, ALERT)?;
        for number in 0..20_000_u32 {
            let mut syn = flood.segment(Flags::SYN);
            let number = number.to_be_bytes();
            syn.source = SocketAddr::new(
                site.lab.clients[0].raw_address(family, 2 + number[3] % 100),
                1_024 + u16::from_be_bytes([number[2], number[3]]),
            );
            syn.options = SYN_OPTIONS.to_vec();
            flood.send(&syn)?;
        }
        assert_eq!(site.report(family, "www.example.org")?.server, "node0");
    }
    tunnel.assert_none("a SYN of the flood", |seen| {
        seen.packet
            .tcp()
            .is_some_and(|s| s.flags.has(Flags::SYN) && s.destination.port() == 7000)
    });
    Ok(())
}

#[test]
fn a_guessed_cookie_opens_nothing() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let mut raw = site.raw(family, ALERT)?;
        let tunnel = site.tunnel(0)?;
        raw.next = raw.isn.wrapping_add(1);
        for guess in [0, 1, 0xdead_beef, u32::MAX] {
            raw.expected = guess;
            let mut hello = raw.segment(Flags::PSH_ACK);
            hello.payload = Hello::small("record.example.org").record();
            raw.send(&hello)?;
        }
        let answers = raw.drain(SILENCE)?;
        assert!(
            answers
                .iter()
                .all(|s| s.flags.has(Flags::RST) && s.payload.is_empty()),
            "{answers:?}"
        );
        // A cookie is bound to its connection: another port cannot use it.
        let mut honest = site.raw(family, ALERT)?;
        honest.connect()?;
        let mut thief = site.raw(family, ALERT)?;
        (thief.isn, thief.next, thief.expected) = (honest.isn, honest.next, honest.expected);
        thief.send_data(&Hello::small("record.example.org").record())?;
        thief.drain(SILENCE)?;
        let locals = [raw.local, thief.local];
        tunnel.assert_none("a packet of a guessed connection", |seen| {
            seen.packet
                .tcp()
                .is_some_and(|segment| locals.contains(&segment.source))
        });
    }
    Ok(())
}

#[test]
fn a_reset_is_never_answered_and_a_bare_ack_is_absorbed() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let mut raw = site.raw(family, ALERT)?;
        raw.send(&raw.segment(Flags::RST))?;
        raw.send(&raw.segment(Flags::RST_ACK))?;
        assert_eq!(raw.receive(SILENCE)?, None, "a reset in answer to a reset");
        raw.connect()?;
        assert_eq!(
            raw.receive(SILENCE)?,
            None,
            "an answer to the handshake's last ACK"
        );
    }
    Ok(())
}

#[test]
fn a_close_before_the_hello_is_answered() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let mut raw = site.raw(family, ALERT)?;
        raw.connect()?;
        raw.send(&raw.segment(Flags::FIN_ACK))?;
        let end = raw.next.wrapping_add(1);
        let answer = raw.expect("an answer to a FIN", |_| true)?;
        assert!(
            answer.flags.has(Flags::RST) || answer.ack == end,
            "the client's stack is done: {answer:?}"
        );
    }
    Ok(())
}

fn works_both_ways(site: &Site, raw: &mut RawTcp, node: &Connection) -> Result<()> {
    raw.send_data(b"alive")?;
    let seen = site.recorded(raw, node.bytes.len() + 5)?;
    assert_eq!(seen.end, End::Open);
    node.send(b"indeed")?;
    assert_eq!(raw.read(6, PATIENCE)?, b"indeed");
    Ok(())
}

#[test]
fn a_forged_reset_kills_no_flow() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        for away in [1, 100, 10_000, u32::MAX / 2, u32::MAX] {
            let mut reset = raw.segment(Flags::RST);
            reset.seq = raw.next.wrapping_add(away);
            raw.send(&reset)?;
        }
        raw.drain(SILENCE)?;
        works_both_ways(site, &mut raw, &node)?;
    }
    Ok(())
}

/// One far beyond any window, which nobody answers, and then silence for longer than a flow is kept that was reset: its
/// node is asked, and still has it.
#[test]
fn a_forged_reset_and_silence_kill_no_flow() -> Result<()> {
    let site = site();
    let mut kept = Vec::new();
    for family in Family::BOTH {
        let (raw, node) = site.established(family)?;
        let mut reset = raw.segment(Flags::RST);
        reset.seq = raw.next.wrapping_add(20 << 20);
        raw.send(&reset)?;
        kept.push((raw, node));
    }
    std::thread::sleep(RESET_AND_SILENT);
    for (mut raw, node) in kept {
        raw.drain(SILENCE)?;
        works_both_ways(site, &mut raw, &node)?;
    }
    Ok(())
}

#[test]
fn a_syn_on_a_live_connection_is_resolved_by_the_node() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        let mut syn = raw.segment(Flags::SYN);
        syn.seq = raw.next.wrapping_add(100_000);
        syn.options = SYN_OPTIONS.to_vec();
        raw.send(&syn)?;
        let answer = raw.expect("the node's challenge", |_| true)?;
        assert_eq!(answer.flags, Flags::ACK, "RFC 5961, section 4: {answer:?}");
        assert_eq!(
            (answer.seq, answer.ack),
            (raw.expected, raw.next),
            "{answer:?}"
        );
        raw.send_data(b"alive")?;
        site.recorded(&raw, node.bytes.len() + 5)?;
    }
    Ok(())
}

/// The segments of somebody who knows the addresses and ports of a connection, and nothing else.
fn spoofed(raw: &RawTcp, flags: Flags, at: u32) -> Segment {
    let mut segment = raw.segment(flags);
    segment.seq = raw.next.wrapping_add(at);
    segment.ack = 0;
    segment
}

/// A bare ACK starts the node's limit of challenge ACKs (500 ms on Linux), so that it says nothing to what comes next.
#[test]
fn three_spoofed_packets_end_no_flow() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        for _ in 0..2 {
            raw.send(&spoofed(&raw, Flags::ACK, 1 << 20))?;
            let mut syn = spoofed(&raw, Flags::SYN, 1 << 30);
            syn.options = SYN_OPTIONS.to_vec();
            raw.send(&syn)?;
            std::thread::sleep(Duration::from_millis(950));
            raw.send(&syn)?;
        }
        let answers = raw.drain(SILENCE)?;
        assert!(
            answers.iter().all(|answer| answer.flags == Flags::ACK),
            "no cookie for a live connection: {answers:?}"
        );
        works_both_ways(site, &mut raw, &node)?;
    }
    Ok(())
}

/// One who knows only a client's address tries each of its ports twice.
#[test]
fn a_spray_over_all_ports_ends_no_flow() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(site.established(family)?);
        }
        let (first, _) = &open[0];
        let ports: Vec<u16> = open.iter().map(|(raw, _)| raw.local.port()).collect();
        let around = ports[0].saturating_sub(2_000)..ports[0].saturating_add(2_000);
        for round in 0..3 {
            for port in around.clone() {
                let flags = if round == 0 { Flags::ACK } else { Flags::SYN };
                let mut segment = spoofed(first, flags, 1 << 29);
                segment.source.set_port(port);
                first.send(&segment)?;
            }
            if round == 1 {
                std::thread::sleep(Duration::from_millis(950));
            }
        }
        for (raw, node) in &mut open {
            raw.drain(SILENCE)?;
            works_both_ways(site, raw, node)?;
        }
    }
    Ok(())
}

/// Nothing of a SYN on a live connection reaches the node, and one that sends many makes the node say little.
#[test]
fn a_syn_on_a_live_connection_goes_no_further() -> Result<()> {
    let site = site();
    let tunnel = site.tunnel(0)?;
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        let mut syn = spoofed(&raw, Flags::SYN, 0);
        syn.options = [2, 4, 2, 24, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1].to_vec();
        syn.payload = Hello::small("unlisted.example.org").record();
        for _ in 0..200 {
            raw.send(&syn)?;
        }
        raw.expect("the node's answer", |answer| answer.flags == Flags::ACK)?;
        let more = raw.drain(SILENCE)?;
        assert!(more.len() <= 3, "{more:?}");
        works_both_ways(site, &mut raw, &node)?;
        let local = raw.local;
        tunnel.assert_none("a SYN behind the first", |seen| {
            seen.packet.tcp().is_some_and(|segment| {
                segment.source == local && segment.flags.has(Flags::SYN) && segment.seq != raw.isn
            })
        });
    }
    Ok(())
}

/// Also while the node withholds challenge ACKs.
#[test]
fn a_client_comes_back_within_a_second_while_challenges_are_withheld() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, _node) = site.established(family)?;
        raw.send(&spoofed(&raw, Flags::ACK, 1 << 20))?;
        raw.drain(Duration::from_millis(50))?;
        let mut again = RawTcp::from(&site.lab.clients[0], raw.local, raw.remote)?
            .with_isn(raw.next.wrapping_add(3 << 28));
        let mut syn = again.segment(Flags::SYN);
        syn.options = SYN_OPTIONS.to_vec();
        again.send(&syn)?;
        let answer = again.receive_matching(Duration::from_millis(300), |segment| {
            segment.flags == Flags::ACK
        })?;
        let answer = answer.expect("the node answers although it has just sent a challenge");
        assert_eq!(answer.ack, raw.next);
        let mut reset = again.segment(Flags::RST);
        reset.seq = answer.ack;
        again.send(&reset)?;
        std::thread::sleep(Duration::from_millis(100));
        site.establish(again)?;
    }
    Ok(())
}

/// A hello that the network, or somebody who recorded it, sends again after its connection ended: early data in it would be
/// executed twice.
#[test]
fn a_hello_sent_again_opens_no_connection() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for ended in [Flags::RST, Flags::FIN_ACK] {
            let (mut raw, node) = site.established(family)?;
            raw.send(&raw.segment(ended))?;
            if ended == Flags::FIN_ACK {
                node.finish()?;
                let fin = raw.expect("the node's FIN", |segment| segment.flags.has(Flags::FIN))?;
                let mut last = raw.segment(Flags::ACK);
                (last.seq, last.ack) = (raw.next.wrapping_add(1), fin.end());
                raw.send(&last)?;
            }
            std::thread::sleep(Duration::from_millis(300));
            let tunnel = site.tunnel(0)?;
            raw.send(&raw.data_at(0, &Hello::small("record.example.org").record()))?;
            raw.drain(SILENCE)?;
            let local = raw.local;
            tunnel.assert_none("a second connection", |seen| {
                seen.packet
                    .tcp()
                    .is_some_and(|segment| segment.source == local)
            });
        }
    }
    Ok(())
}

#[test]
fn a_client_that_forgot_its_connection_can_come_back() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (raw, _node) = site.established(family)?;
        // As after a client's crash: the same addresses and ports, another sequence number.
        let mut again = RawTcp::from(&site.lab.clients[0], raw.local, raw.remote)?
            .with_isn(raw.next.wrapping_add(1 << 20));
        let mut syn = again.segment(Flags::SYN);
        syn.options = SYN_OPTIONS.to_vec();
        again.send(&syn)?;
        let challenge = again.expect("the challenge", |segment| segment.flags == Flags::ACK)?;
        let mut reset = again.segment(Flags::RST);
        reset.seq = challenge.ack;
        again.send(&reset)?;
        std::thread::sleep(Duration::from_millis(200));
        site.establish(again)?;
    }
    Ok(())
}

#[test]
fn fragments_reach_no_node() -> Result<()> {
    let site = site();
    let tunnel = site.tunnel(0)?;
    let mut raw = site.raw(Family::V4, ALERT)?;
    raw.connect()?;
    let whole = raw
        .data_at(0, &Hello::small("record.example.org").record())
        .to_bytes();
    let (ports, body) = (20, &whole[20..]);
    for (offset, more) in [(0_usize, true), (64, false)] {
        let part = if more { &body[..64] } else { &body[64..] };
        let mut fragment = ip_header(raw.local.ip(), raw.remote.ip(), 6, 64, part.len());
        let field = (u16::try_from(offset / 8).unwrap()) | if more { 0x2000 } else { 0 };
        fragment[4..6].copy_from_slice(&[0x12, 0x34]);
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        repair_header_checksum(&mut fragment[..ports]);
        fragment.extend_from_slice(part);
        raw.send_packet(&fragment)?;
    }
    assert_eq!(
        raw.receive_matching(SILENCE, |segment| !segment.payload.is_empty())?,
        None
    );
    let local = raw.local;
    tunnel.assert_none("something from fragments", |seen| {
        seen.packet.source == local.ip() && {
            seen.packet.fragment
                || seen
                    .packet
                    .tcp()
                    .is_some_and(|segment| segment.source == local)
        }
    });
    Ok(())
}

fn repair_header_checksum(header: &mut [u8]) {
    header[10..12].copy_from_slice(&[0, 0]);
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_node_cannot_speak_for_another() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        node.send(b"hello")?;
        assert_eq!(raw.read(5, PATIENCE)?, b"hello");
        // Node 1 sends what would be the next segment, from its own address and port 7000.
        let other = &site.lab.nodes[1];
        let liar = Injector::open(&other.namespace, &other.interface, [0; 6])?;
        for source in [other.socket(family, 7000), other.socket(family, 443)] {
            for flags in [Flags::PSH_ACK, Flags::RST, Flags::RST_ACK] {
                let mut forged = Segment::new(source, raw.local, flags);
                (forged.seq, forged.ack) = (raw.expected, raw.next);
                forged.payload = if flags == Flags::PSH_ACK {
                    b"forged".to_vec()
                } else {
                    Vec::new()
                };
                liar.send(&forged.to_bytes())?;
            }
        }
        assert_eq!(
            raw.receive(SILENCE)?,
            None,
            "nothing of it reaches the client"
        );
        node.send(b"again")?;
        assert_eq!(raw.read(5, PATIENCE)?, b"again");
    }
    Ok(())
}

#[test]
fn what_leaves_for_the_client_comes_from_the_entrance_alone() -> Result<()> {
    let site = site();
    let capture = forwarder_tests::capture::Capture::start(&site.lab.router, "p0")?;
    for family in Family::BOTH {
        for name in [
            "www.example.org",
            "proxied.example.org",
            "masked.example.org",
        ] {
            site.report(family, name)?;
        }
        let tunnelled = |packet: &Packet| {
            site.lab.nodes.iter().any(|node| {
                let addresses = [node.address(family), node.entrance_address(family)];
                addresses.contains(&packet.source) || addresses.contains(&packet.destination)
            })
        };
        capture.assert_none("a tunnel address on the internet", |seen| {
            tunnelled(&seen.packet)
        });
    }
    capture.assert_checksums();
    Ok(())
}

#[test]
fn with_the_tunnel_gone_nothing_leaves_in_clear_text() -> Result<()> {
    let site = Site::start();
    for family in Family::BOTH {
        let (mut raw, _node) = site.established(family)?;
        let capture = forwarder_tests::capture::Capture::start(&site.lab.router, "p0")?;
        site.lab.entrance.ip("link set wg0 down")?;
        raw.send_data(b"secret")?;
        raw.drain(SILENCE)?;
        let node = site.lab.nodes[0].address(family);
        capture.assert_none("the client's data", |seen| {
            !seen.outgoing
                && (seen.packet.destination == node
                    || seen.packet.tcp().is_some_and(|s| s.payload == b"secret"))
        });
        // IPv6 addresses go with the link; what the lab set is set again.
        let address = site.lab.nodes[0].entrance_address(Family::V6);
        site.lab.entrance.ip(&format!(
            "link set wg0 up\naddr replace {address}/64 dev wg0 nodad"
        ))?;
        for family in Family::BOTH {
            wait_until("service again", Duration::from_secs(10), || {
                let curl = site
                    .curl(family, "www.example.org", "/")
                    .map(|curl| curl.limit(Duration::from_secs(2)));
                curl.and_then(Curl::run)
                    .is_ok_and(|fetched| fetched.status == 200)
            })?;
        }
    }
    Ok(())
}
