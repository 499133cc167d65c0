//! Clients that nobody here wrote, through the forwarder; and many of them at once.

use std::sync::OnceLock;

use forwarder_tests::Result;
use forwarder_tests::client::programs::{has_java, java, openssl, python};
use forwarder_tests::client::tls::{Crypto, TlsClient, config};
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::pattern;
use forwarder_tests::server::web::{DOWNLOAD_SEED, Report};
use forwarder_tests::site::{ALERT, Site, crowd};

const NAMES: [&str; 3] = [
    "www.example.org",
    "proxied.example.org",
    "masked.example.org",
];

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(Site::start)
}

fn report(text: &str) -> Report {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn curl_openssl_python_and_java_get_through() -> Result<()> {
    let site = site();
    let (client, pki) = (&site.lab.clients[0].namespace, &site.lab.pki);
    for family in Family::BOTH {
        let entrance = site.entrance(family, ALERT);
        for name in NAMES {
            for version in ["--tlsv1.3", "--tls-max 1.2"] {
                let curl = site.curl(family, name, "/")?.args(version.split(' '));
                assert_eq!(
                    curl.json::<Report>()?.sni.as_deref(),
                    Some(name),
                    "{version}"
                );
            }
            for version in ["-tls1_2", "-tls1_3"] {
                let said = openssl(client, pki, name, entrance, &[version])?;
                assert!(
                    said.contains("Verify return code: 0 (ok)"),
                    "{version}: {said}"
                );
                assert!(
                    said.contains(&format!("\"sni\":\"{name}\"")),
                    "{version}: {said}"
                );
            }
            assert_eq!(
                report(&python(client, pki, name, entrance, "/")?).server,
                "node0"
            );
        }
        if has_java() {
            let seen = report(&java(client, pki, "www.example.org", entrance, "/")?);
            assert_eq!(
                (seen.server.as_str(), seen.peer.ip()),
                ("node0", site.lab.clients[0].address(family))
            );
        }
    }
    Ok(())
}

#[test]
fn connections_are_kept_and_resumed() -> Result<()> {
    let site = site();
    let namespace = &site.lab.clients[0].namespace;
    for family in Family::BOTH {
        // One configuration remembers the tickets: the second hello carries one, and is longer.
        let config = config(&site.lab.pki, Crypto::PostQuantum, &["http/1.1"])?;
        for _ in 0..3 {
            let mut tls = TlsClient::connect(
                namespace,
                &config,
                "www.example.org",
                site.entrance(family, ALERT),
            )?;
            for request in 1..=20 {
                assert_eq!(tls.report()?.requests, request);
            }
        }
    }
    Ok(())
}

#[test]
fn a_crowd_gets_what_it_asked_for() -> Result<()> {
    // Ethernet, so that the entrance and not the tunnel's cryptography is kept busy.
    let site = Site::build(Lab::builder().clients(2).tunnel(TunnelKind::Ethernet, 2));
    let size = 50_000;
    let expected = pattern::digest(DOWNLOAD_SEED, size);
    crowd(1_000, 16, |number| {
        let (family, name) = (Family::BOTH[number % 2], NAMES[number / 2 % 3]);
        let crypto = [Crypto::Classic, Crypto::PostQuantum][number / 6 % 2];
        let client = &site.lab.clients[number / 12 % 2].namespace;
        let config = config(&site.lab.pki, crypto, &[])?;
        let mut tls = TlsClient::connect(client, &config, name, site.entrance(family, ALERT))?;
        assert_eq!(
            tls.download(&format!("/bytes/{size}"))?,
            (size, expected.clone()),
            "{name} by {family:?}"
        );
        Ok(())
    });
    Ok(())
}
