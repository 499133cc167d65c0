//! Interfaces that come, go and change, and several of each kind.

use std::net::SocketAddr;
use std::time::Duration;

use forwarder_tests::Result;
use forwarder_tests::client::Curl;
use forwarder_tests::forwarder::Forwarder;
use forwarder_tests::lab::{Family, Lab, TunnelKind};
use forwarder_tests::packet::Flags;
use forwarder_tests::process::wait_until;
use forwarder_tests::raw::{RawTcp, SYN_OPTIONS};
use forwarder_tests::server::web::{Report, WebOptions, WebServer};
use forwarder_tests::site::{LISTENERS, Site, pool, route};

/// Time enough to hear of a change and act on it.
const ADAPTS: Duration = Duration::from_secs(10);

#[test]
fn a_recreated_tunnel_is_found_again() -> Result<()> {
    let site = Site::start();
    assert_eq!(site.report(Family::V4, "www.example.org")?.server, "node0");
    site.lab.recreate_wireguard(&site.lab.nodes[0])?;
    for family in Family::BOTH {
        for name in ["www.example.org", "proxied.example.org"] {
            wait_until(&format!("{name} by {family:?}"), ADAPTS, || {
                let curl = site
                    .curl(family, name, "/")
                    .map(|curl| curl.limit(Duration::from_secs(2)));
                curl.and_then(Curl::json::<Report>)
                    .is_ok_and(|report| report.server == "node0")
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_changed_mtu_changes_the_mss() -> Result<()> {
    let site = Site::start();
    let mss = |family| -> Result<Option<u16>> {
        let mut raw = site.raw(family, 443)?;
        let mut syn = raw.segment(Flags::SYN);
        syn.options = SYN_OPTIONS.to_vec();
        raw.send(&syn)?;
        Ok(raw
            .expect("a SYN-ACK", |segment| segment.flags == Flags::SYN_ACK)?
            .mss())
    };
    assert_eq!(
        (mss(Family::V4)?, mss(Family::V6)?),
        (Some(1_380), Some(1_360))
    );
    site.lab.entrance.ip("link set wg0 mtu 1280")?;
    wait_until("the smaller MSS", ADAPTS, || {
        mss(Family::V4).is_ok_and(|mss| mss == Some(1_240))
            && mss(Family::V6).is_ok_and(|mss| mss == Some(1_220))
    })?;
    assert_eq!(site.report(Family::V6, "www.example.org")?.server, "node0");
    Ok(())
}

#[test]
fn an_added_address_is_served() -> Result<()> {
    let site = Site::start();
    site.lab
        .entrance
        .ip("addr add 203.0.113.8/24 dev eth0\naddr add 2001:db8::8/64 dev eth0 nodad")?;
    for address in ["203.0.113.8:443", "[2001:db8::8]:443"] {
        let address: SocketAddr = address.parse().unwrap();
        let client = &site.lab.clients[0].namespace;
        wait_until(&format!("service on {address}"), ADAPTS, || {
            let curl = Curl::new(client, &site.lab.pki, "www.example.org", address, "/");
            let curl = curl.map(|curl| curl.limit(Duration::from_secs(2)));
            curl.and_then(Curl::json::<Report>)
                .is_ok_and(|report| report.server == "node0")
        })?;
    }
    Ok(())
}

#[test]
fn several_public_interfaces_and_tunnels_work_side_by_side() -> Result<()> {
    let lab = Lab::builder()
        .public_interfaces(2)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::WireGuard, 1)
        .tunnel(TunnelKind::Ethernet, 1)
        .build()?;
    let _servers = lab
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(number, node)| {
            let name = format!("node{number}");
            let start = |options| WebServer::start(&node.namespace, &lab.pki, options);
            [
                start(WebOptions::new(&name, 443)),
                start(WebOptions::new(&name, 8443).proxy()),
            ]
        })
        .collect::<Result<Vec<_>>>()?;
    let mut config = LISTENERS.to_owned();
    for (number, node) in lab.nodes.iter().enumerate() {
        config += &pool(&format!("plain{number}"), "transparent", &[(node, 443)]);
        config += &route(
            &[&format!("plain{number}.example.org")],
            &format!("plain{number}"),
        );
        config += &pool(&format!("proxied{number}"), "proxy-v2", &[(node, 8443)]);
        config += &route(
            &[&format!("proxied{number}.example.org")],
            &format!("proxied{number}"),
        );
    }
    let _forwarder = Forwarder::start(&lab, &config)?;
    for family in Family::BOTH {
        for interface in 0..2 {
            let entrance = SocketAddr::new(lab.public_on(interface, family), 443);
            for number in 0..3 {
                for kind in ["plain", "proxied"] {
                    let name = format!("{kind}{number}.example.org");
                    let curl =
                        Curl::new(&lab.clients[0].namespace, &lab.pki, &name, entrance, "/")?;
                    let report: Report = curl.limit(Duration::from_secs(20)).json()?;
                    let context = format!("{name} by {entrance}");
                    assert_eq!(report.server, format!("node{number}"), "{context}");
                    assert_eq!(
                        report.client().ip(),
                        lab.clients[0].address(family),
                        "{context}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_listener_with_addresses_claims_those_alone() -> Result<()> {
    let lab = Lab::builder()
        .public_interfaces(2)
        .tunnel(TunnelKind::Ethernet, 1)
        .build()?;
    let _server = WebServer::start(
        &lab.nodes[0].namespace,
        &lab.pki,
        WebOptions::new("node0", 443),
    )?;
    let addresses = Family::BOTH.map(|family| lab.public_on(1, family).to_string());
    let config = format!(
        "[[listener]]\nname = \"https\"\nprotocol = \"tls\"\nport = 443\naddresses = {addresses:?}\n{}\n{}",
        pool("web", "transparent", &[(&lab.nodes[0], 443)]),
        route(&["www.example.org"], "web")
    );
    let _forwarder = Forwarder::start(&lab, &config)?;
    for family in Family::BOTH {
        let entrance = SocketAddr::new(lab.public_on(1, family), 443);
        let curl = Curl::new(
            &lab.clients[0].namespace,
            &lab.pki,
            "www.example.org",
            entrance,
            "/",
        )?;
        assert_eq!(curl.json::<Report>()?.server, "node0");
        // The other address belongs to the kernel, which has no server there.
        let mut raw = RawTcp::new(
            &lab.clients[0],
            SocketAddr::new(lab.public_on(0, family), 443),
        )?;
        raw.send(&raw.segment(Flags::SYN))?;
        raw.expect("the kernel's reset", |segment| {
            segment.flags.has(Flags::RST)
        })?;
    }
    Ok(())
}
