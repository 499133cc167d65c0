//! Which address the node sees: the client's own, the PROXY v2 header's, or the entrance's.

use std::sync::OnceLock;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::hello::Hello;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::raw::{PATIENCE, SILENCE};
use forwarder_tests::server::haproxy::Haproxy;
use forwarder_tests::server::nginx::Nginx;
use forwarder_tests::server::proxy_header::ProxyHeader;
use forwarder_tests::site::{ALERT, LISTENERS, Site, pool, route};

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

#[test]
fn transparent_shows_the_client_itself() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let report = site.report(family, "www.example.org")?;
        assert_eq!(report.server, "node0");
        assert_eq!(report.peer.ip(), site.lab.clients[0].address(family));
        assert_eq!(report.local, site.lab.nodes[0].socket(family, 443));
        assert_eq!(
            site.report(family, "one.deep.apps.example.org")?.server,
            "node1"
        );
    }
    Ok(())
}

#[test]
fn masquerade_shows_the_entrance() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        let report = site.report(family, "masked.example.org")?;
        assert_eq!(report.server, "node0");
        assert_eq!(report.peer.ip(), site.lab.nodes[0].entrance_address(family));
    }
    Ok(())
}

#[test]
fn proxy_v2_tells_addresses_name_protocol_and_identity() -> Result<()> {
    let site = site();
    let mut identities = Vec::new();
    for family in Family::BOTH {
        for (crypto, alpn) in [
            (Crypto::Classic, Some("http/1.1")),
            (Crypto::PostQuantum, None),
        ] {
            let protocols: Vec<&str> = alpn.into_iter().collect();
            let config = config(&site.lab.pki, crypto, &protocols)?;
            let entrance = site.entrance(family, ALERT);
            let namespace = &site.lab.clients[1].namespace;
            let mut client =
                TlsClient::connect(namespace, &config, "proxied.example.org", entrance)?;
            let report = client.report()?;
            let proxy = report.proxy.clone().unwrap();
            assert!(proxy.stream && !proxy.local, "{proxy:?}");
            assert_eq!(proxy.source, Some(client.socket().local_addr().unwrap()));
            assert_eq!(proxy.destination, Some(entrance));
            assert_eq!(proxy.authority.as_deref(), Some("proxied.example.org"));
            assert_eq!(proxy.alpn.as_deref(), alpn);
            assert_eq!(report.peer.ip(), site.lab.nodes[0].entrance_address(family));
            identities.push(proxy.unique_id.unwrap());
        }
    }
    identities.sort();
    identities.dedup();
    assert_eq!(
        identities.len(),
        4,
        "each connection has an identity of its own"
    );
    Ok(())
}

#[test]
fn the_header_stands_first_once_and_before_an_untouched_hello() -> Result<()> {
    let site = site();
    for family in Family::BOTH {
        for hello in [
            Hello::small("record-proxied.example.org").record(),
            Hello::browser("record-proxied.example.org", 4).record(),
            Hello::small("record-proxied.example.org").records(16),
        ] {
            let tunnel = site.tunnel(0)?;
            let mut raw = site.raw(family, ALERT)?;
            raw.connect()?;
            raw.send_in_pieces(&hello, 1_000)?;
            let ours = |bytes: &[u8]| {
                ProxyHeader::parse(bytes).is_ok_and(|header| header.source == Some(raw.local))
            };
            let seen =
                site.recorder_proxied
                    .wait_for("header and hello", PATIENCE, |connection| {
                        ours(&connection.bytes)
                            && ProxyHeader::parse(&connection.bytes).is_ok_and(|header| {
                                connection.bytes.len() >= header.length + hello.len()
                            })
                    })?;
            let header = ProxyHeader::parse(&seen.bytes).unwrap();
            assert!(
                seen.bytes[header.length..] == hello,
                "the hello behind the header"
            );
            // Both directions go on behind the header.
            raw.send_data(b"request")?;
            let total = header.length + hello.len() + 7;
            let seen = site
                .recorder_proxied
                .wait_for("the request", PATIENCE, |connection| {
                    connection.peer == seen.peer && connection.bytes.len() >= total
                })?;
            assert!(seen.bytes.ends_with(b"request"));
            seen.send(b"answer")?;
            assert_eq!(raw.read(6, PATIENCE)?, b"answer");
            seen.finish()?;
            raw.expect("the node's FIN", |segment| segment.flags.has(Flags::FIN))?;
            assert_eq!(raw.bad_checksums, 0);
            tunnel.assert_checksums();
        }
    }
    Ok(())
}

#[test]
fn a_client_cannot_forge_the_header() -> Result<()> {
    let site = site();
    let forged = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb"[..],
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
    ];
    for family in Family::BOTH {
        for header in forged {
            let tunnel = site.tunnel(0)?;
            let mut raw = site.raw(family, ALERT)?;
            raw.connect()?;
            let bytes = [header, &Hello::small("record-proxied.example.org").record()].concat();
            raw.send_data(&bytes)?;
            let answers = raw.drain(SILENCE)?;
            assert!(!answers.is_empty(), "it is refused");
            let before = site.recorder_proxied.connections().len();
            tunnel.assert_none("a packet of a forged connection", |seen| {
                seen.packet
                    .tcp()
                    .is_some_and(|segment| segment.flags == Flags::SYN && !seen.outgoing)
            });
            assert_eq!(site.recorder_proxied.connections().len(), before);
        }
    }
    Ok(())
}

#[test]
fn nginx_and_haproxy_read_the_header() -> Result<()> {
    let lab = Lab::builder()
        .clients(2)
        .tunnel(TunnelKind::WireGuard, 2)
        .build()?;
    let [first, second] = [&lab.nodes[0], &lab.nodes[1]];
    let _nginx = Nginx::serve_tls(&lab, &first.namespace, "nginx", 443, true)?;
    let _haproxy = Haproxy::serve_tls(&lab, &second.namespace, "haproxy", 443, true)?;
    let _plain = Nginx::serve_tls(&lab, &second.namespace, "plain", 8443, false)?;
    let config = [
        LISTENERS.to_owned(),
        pool("nginx", "proxy-v2", &[(first, 443)]),
        pool("haproxy", "proxy-v2", &[(second, 443)]),
        pool("plain", "transparent", &[(second, 8443)]),
        route(&["www.example.org"], "nginx"),
        route(&["*.apps.example.org"], "haproxy"),
        route(&["plain.example.net"], "plain"),
    ];
    let _forwarder = Forwarder::start(&lab, &config.join("\n"))?;
    for family in Family::BOTH {
        let client = &lab.clients[1];
        let address = client.address(family);
        let entrance = std::net::SocketAddr::new(lab.public(family), 443);
        let ask = |name: &str| {
            let curl = Curl::new(&client.namespace, &lab.pki, name, entrance, "/whoami")?;
            let fetched = curl.limit(Duration::from_secs(20)).run()?;
            assert_eq!(
                (fetched.status, fetched.exit),
                (200, 0),
                "{name} by {family:?}: {fetched:?}"
            );
            Ok::<_, forwarder_tests::Error>(fetched.body)
        };
        let nginx = ask("www.example.org")?;
        assert!(nginx.contains(&format!("|{address} ")), "{nginx}");
        let haproxy = ask("some.apps.example.org")?;
        assert!(haproxy.starts_with(&format!("{address} ")), "{haproxy}");
        assert!(
            haproxy.contains("|some.apps.example.org|some.apps.example.org|"),
            "the authority TLV: {haproxy}"
        );
        assert!(!haproxy.ends_with('|'), "a unique id: {haproxy}");
        let plain = ask("plain.example.net")?;
        assert!(plain.starts_with(&format!("plain|{address} ")), "{plain}");
    }
    Ok(())
}
