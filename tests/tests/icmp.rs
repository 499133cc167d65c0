//! Path MTU discovery through the entrance: *fragmentation needed* and *packet too big* are translated
//! both ways, sequence numbers included; without that, large packets fall into a black hole.

use std::sync::OnceLock;

use forwarder_tests::Result;
use forwarder_tests::capture::Capture;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::lab::Family;
use forwarder_tests::packet::{Checksums, Content, Flags, Packet, packet_too_big};
use forwarder_tests::pattern;
use forwarder_tests::raw::{Injector, PATIENCE};
use forwarder_tests::server::web::DOWNLOAD_SEED;
use forwarder_tests::site::{ALERT, Site};

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

/// The packet that an ICMP error is about, as far as it is quoted.
fn quoted(packet: &Packet) -> (String, String, u32) {
    let Content::Icmp { body, .. } = &packet.content else {
        panic!("not ICMP: {packet:?}")
    };
    let four = body[0] >> 4 == 4;
    let ports = if four { 20 } else { 40 };
    let address = |at: usize| -> std::net::IpAddr {
        if four {
            std::net::IpAddr::from(<[u8; 4]>::try_from(&body[at..at + 4]).unwrap())
        } else {
            std::net::IpAddr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap())
        }
    };
    let (source, destination) = if four {
        (address(12), address(16))
    } else {
        (address(8), address(24))
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let seq = u32::from_be_bytes(body[ports + 4..ports + 8].try_into().unwrap());
    (
        std::net::SocketAddr::new(source, port(ports)).to_string(),
        std::net::SocketAddr::new(destination, port(ports + 2)).to_string(),
        seq,
    )
}

#[test]
fn a_router_near_the_client_reaches_the_node() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (mut raw, node) = site.established(family)?;
        let tunnel = site.tunnel(0)?;
        node.send(&[9; 4_000])?;
        let first = raw.expected;
        let big = raw.expect("a full segment", |segment| segment.payload.len() > 1_200)?;
        let sent = tunnel.wait_for("the same segment in the tunnel", PATIENCE, |seen| {
            seen.outgoing
                && seen
                    .packet
                    .tcp()
                    .is_some_and(|s| s.destination == raw.local && s.payload.len() > 1_200)
        })?;
        // The router that cannot pass it on tells the entrance.
        let router = site.lab.clients[0].raw_address(family, 77);
        raw.send_packet(&packet_too_big(router, &big.to_bytes(), 1_280))?;
        let told = tunnel.wait_for("the ICMP error in the tunnel", PATIENCE, |seen| {
            !seen.outgoing && matches!(seen.packet.content, Content::Icmp { rest: 1_280, .. })
        })?;
        assert_eq!(told.packet.checksums, Checksums::Good);
        assert_eq!(told.packet.destination, site.lab.nodes[0].address(family));
        let shift = sent.packet.tcp().unwrap().seq.wrapping_sub(first);
        let expected = (
            site.lab.nodes[0].socket(family, 7000).to_string(),
            raw.local.to_string(),
            big.seq.wrapping_add(shift),
        );
        assert_eq!(quoted(&told.packet), expected, "in the node's own terms");
        // The node believes it and sends smaller segments from now on.
        raw.drain(std::time::Duration::from_millis(100))?;
        raw.expected = first;
        let smaller = raw.expect("a smaller copy", |s| {
            s.seq == first && !s.payload.is_empty()
        })?;
        assert!(smaller.payload.len() <= 1_280 - 40, "{smaller:?}");
    }
    Ok(())
}

#[test]
fn a_router_near_the_node_reaches_the_client() -> Result<()> {
    // A node that has learnt of a narrow path in another test would offer a smaller segment size.
    let site = Site::start();
    let node = &site.lab.nodes[0];
    let injector = Injector::open(&node.namespace, &node.interface, [0; 6])?;
    for family in Family::BOTH {
        let tunnel = site.tunnel(0)?;
        let (mut raw, _node) = site.established(family)?;
        raw.send_data(&[4; 1_300])?;
        let (local, seq) = (raw.local, raw.next);
        let sent = tunnel.wait_for("the segment in the tunnel", PATIENCE, |seen| {
            seen.packet
                .tcp()
                .is_some_and(|s| s.source == local && s.payload.len() == 1_300)
        })?;
        // About the next one: an error about what the node has acknowledged goes no further.
        let mut next = sent.packet.tcp().unwrap().clone();
        next.seq = seq;
        let about = next.to_bytes();
        injector.send(&packet_too_big(node.address(family), &about, 1_280))?;
        let told = raw.expect_icmp("the ICMP error at the client")?;
        assert!(
            matches!(told.content, Content::Icmp { rest: 1_280, .. }),
            "{told:?}"
        );
        assert_eq!(told.checksums, Checksums::Good);
        let expected = (
            local.to_string(),
            site.entrance(family, ALERT).to_string(),
            seq,
        );
        assert_eq!(quoted(&told), expected, "in the client's own terms");
    }
    Ok(())
}

#[test]
fn a_narrow_link_before_the_client_is_no_black_hole() -> Result<()> {
    let site = Site::start();
    let client = &site.lab.clients[0];
    // The router's link to the client becomes narrower than anything the ends know of.
    site.lab.router.ip("link set c0 mtu 1300")?;
    for family in Family::BOTH {
        // The server's first flight may be too large already.
        let capture = Capture::start(&site.lab.router, "p0")?;
        let config = config(&site.lab.pki, Crypto::PostQuantum, &[])?;
        let entrance = site.entrance(family, ALERT);
        let mut tls = TlsClient::connect(&client.namespace, &config, "www.example.org", entrance)?;
        let size = 2_000_000;
        assert_eq!(
            tls.download(&format!("/bytes/{size}"))?,
            (size, pattern::digest(DOWNLOAD_SEED, size))
        );
        let told = capture
            .seen()
            .iter()
            .any(|s| s.outgoing && matches!(s.packet.content, Content::Icmp { .. }));
        assert!(
            told,
            "the router had to tell the entrance: {}",
            capture.transcript(10)
        );
    }
    Ok(())
}

#[test]
fn an_error_about_no_flow_goes_nowhere() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let (raw, _node) = site.established(family)?;
        let tunnel = site.tunnel(0)?;
        // About a packet of the entrance to this client, but of a connection that does not exist.
        let mut other = raw.segment(Flags::ACK);
        (other.source, other.destination) = (raw.remote, raw.local);
        other.destination.set_port(1);
        let router = site.lab.clients[0].raw_address(family, 77);
        raw.send_packet(&packet_too_big(router, &other.to_bytes(), 1_280))?;
        std::thread::sleep(forwarder_tests::raw::SILENCE);
        tunnel.assert_none("a stray ICMP error", |seen| {
            matches!(seen.packet.content, Content::Icmp { .. })
        });
    }
    Ok(())
}
